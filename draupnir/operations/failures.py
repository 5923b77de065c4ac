"""Describes why a job failed, in text that is safe for the metadata and for a terminal."""

from __future__ import annotations

from draupnir.errors import DraupnirError, ImageFailed, NoRoom
from draupnir.models import Failure
from draupnir_helper import wire


def of_job(job: wire.Job) -> Failure:
    """Return the error that a failed job reported, or the one that systemd reports."""
    if job.report.error_code and job.report.error:
        return Failure(job.report.error_code, printable(job.report.error))
    doing = f" while {printable(job.report.step)}" if job.report.step else ""
    match job.result:
        case "timeout" | "watchdog":
            return Failure(
                "timed_out",
                f"The {job.kind} job exceeded its time limit{doing} and was stopped. Finalise again. For large data,"
                f" raise RuntimeMaxSec= in a drop-in of draupnir-{job.kind}-.service.",
            )
        case "oom-kill":
            return Failure("job_killed", f"The {job.kind} job ran out of memory{doing}; add memory to the server.")
        case result:
            unit = f"draupnir-{job.kind}-{job.image_id}"
            # The job failed, but systemd did not see its exit status.
            how = "" if result == "success" else f" ({result})"
            return Failure(
                "job_killed", f"The {job.kind} job ended{doing} without a reason{how}; see `journalctl -u {unit}`."
            )


def error_of(failure: Failure) -> DraupnirError:
    """Return the failure as an exception for the waiting caller."""
    if failure.code == NoRoom.code:
        return NoRoom(failure.detail)
    return ImageFailed(failure.code, failure.detail)


def printable(text: str) -> str:
    """Make untrusted text of a job safe for the metadata and for a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
