"""The requests about the two unprivileged jobs of an image, and the report of a job."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from draupnir_helper.wire.models import Done, ImageId, PostgresMajor, Request, Wire
from draupnir_helper.wire.parameters import Parameters

Script = Annotated[str, Field(max_length=1024 * 1024)]


class JobKind(StrEnum):
    """The two unprivileged jobs of an image."""

    EXTRACT = "extract"
    FINALISE = "finalise"


class JobState(StrEnum):
    """The state of a job's unit. After a reboot it is ABSENT."""

    ABSENT = "absent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


# Postgres limits names of roles and databases to 63 bytes, so they have at most 63 characters.
RoleName = Annotated[str, Field(min_length=1, max_length=63)]


class JobReport(Wire):
    """The report of a job in the status text of its unit. Unprivileged code writes it, so it is bounded and untrusted.

    extract sets `postgres_major` and `parameters` (settings of the source). finalise sets `refused_parameters` (those
    of them that Postgres refuses), `size_bytes` (apparent bytes of the data directory), `trigger_tables` (tables that
    triggers wrote to during the script), `preload_libraries` (beside those of the operator), `superuser` (the bootstrap
    superuser, which cannot log in), `database` (to connect to by default) and `proved` (no file has a value that the
    script removed). Both set `finished` at the end, `error_code` and `error` on failure. `error` is public and quotes
    no data; the full text is in the work directory as jobs.reports.PRIVATE_NAME.
    """

    step: Annotated[str, Field(max_length=40)] = ""
    done_bytes: Annotated[int, Field(ge=0)] | None = None
    total_bytes: Annotated[int, Field(ge=0)] | None = None
    postgres_major: PostgresMajor | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    parameters: Parameters = Field(default_factory=dict)
    refused_parameters: list[Annotated[str, Field(pattern=r"^[a-z_]{1,63}$")]] = Field(
        default_factory=list, max_length=20
    )
    trigger_tables: list[Annotated[str, Field(max_length=120)]] = Field(default_factory=list, max_length=40)
    preload_libraries: list[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,63}$")]] = Field(
        default_factory=list, max_length=40
    )
    superuser: RoleName | None = None
    database: RoleName | None = None
    proved: bool = False
    finished: bool = False
    error_code: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")] | None = None
    error: Annotated[str, Field(max_length=4000)] | None = None


class Job(Wire):
    """One job: its unit's state, its last report, and systemd's Result of a failed one (`oom-kill`, …)."""

    kind: JobKind
    image_id: int
    state: JobState
    report: JobReport
    result: str


class StartExtract(Request[Job]):
    """Start the extract job on the seal, with a new work subvolume; join a running one."""

    op: Literal["start_extract"] = "start_extract"
    image_id: ImageId


Canary = Annotated[str, Field(min_length=8, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Canaries = Annotated[list[Canary], Field(max_length=100)]


class StartFinalise(Request[Job]):
    """Start the finalise job on the extracted work; join a running one.

    `carried_over` are settings of the source, which are dropped if Postgres refuses them. If Postgres refuses one of
    `given`, or if a file of the image contains one of the `canaries`, the job fails. With `keep_residue`, which the
    configuration has to allow, the job leaves removed values in the files, and does not search for them.
    """

    op: Literal["start_finalise"] = "start_finalise"
    image_id: ImageId
    postgres_major: PostgresMajor
    anonymisation_script: Script
    carried_over: Parameters
    given: Parameters
    canaries: Canaries
    keep_residue: bool


class InspectJob(Request[Job]):
    """Return the state of a job."""

    op: Literal["inspect_job"] = "inspect_job"
    kind: JobKind
    image_id: ImageId


class StopJobs(Request[Done]):
    """Stop both jobs of the image, and remove their results."""

    op: Literal["stop_jobs"] = "stop_jobs"
    image_id: ImageId
