"""A fake helper in memory that obeys the laws of the contract, and can fail, crash or hang on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from pydantic import ValidationError

from draupnir.errors import HelperUnavailable, ImageFailed
from draupnir.helper import Helper
from draupnir.identity.encryption import Cipher
from draupnir.models import Authority
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode, JobKind, JobState

Network = IPv4Network | IPv6Network


# The key for the authority keys of instances in tests.
CIPHER = Cipher(bytes(range(32)))
ROOM = wire.Room(size_bytes=2**40, free_bytes=2**39, low_bytes=2**34, critical_bytes=2**33, max_instance_bytes=2**38)


class Killed(BaseException):
    """The daemon crashes here; no code may catch this."""


class Refused(Exception):
    """The helper's refusal."""

    def __init__(self, code: ErrorCode, detail: str = "as the test wants it") -> None:
        super().__init__(detail)
        self.refusal = wire.Refusal(code=code, detail=detail)


class Probe:
    """Fake sign-in probes: they pass unless a fault is set."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.ports: list[int] = []

    async def __call__(self, port: int, authority: Authority, superuser: str) -> None:
        self.ports.append(port)
        if self.fault is not None:
            raise ImageFailed("trial_failed", self.fault)


@dataclass
class Disk:
    """The state of btrfs and systemd; survives every daemon."""

    uploads: dict[int, str] = field(default_factory=dict)
    seals: dict[int, str] = field(default_factory=dict)
    work: dict[int, str] = field(default_factory=dict)
    images: dict[int, str] = field(default_factory=dict)
    instances: dict[int, int] = field(default_factory=dict)
    listening: dict[int, int] = field(default_factory=dict)
    admitted: dict[int, list[Network] | None] = field(default_factory=dict)
    asleep: set[int] = field(default_factory=set)
    frozen: bool = False
    broken: set[int] = field(default_factory=set)
    ceilings: dict[int, wire.Ceiling] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    started: dict[int, wire.StartInstance] = field(default_factory=dict)
    made_with: dict[int, wire.StartInstance] = field(default_factory=dict)
    jobs: dict[tuple[JobKind, int], JobState] = field(default_factory=dict)
    error_texts: dict[int, str] = field(default_factory=dict)
    reports: dict[int, str] = field(default_factory=dict)
    proved: set[int] = field(default_factory=set)
    superusers: set[int] = field(default_factory=set)
    trash: int = 0
    undeletable: int = 0
    unknown: list[str] = field(default_factory=list)


class FakeHelper(Helper):
    """Requests and answers are converted to JSON and back, so that only valid ones pass.

    `uploads` get content by `upload`. Jobs succeed at once unless `job_states` has another state; `answers` override
    what a kind of request does. `kill_at` counts requests: at request k the daemon dies before (`kill_after` false)
    or after it was carried out.
    """

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.away = False
        self.filters_addresses = True
        self.room = ROOM
        self.ports = range(1024, 65536)
        self.foreign_ports: set[int] = set()
        self.majors = [15]
        self.allow_residue = False
        self.allow_superuser = False
        self.reports: dict[JobKind, wire.JobReport] = {
            JobKind.EXTRACT: wire.JobReport(step="extracting", postgres_major=15),
            JobKind.FINALISE: wire.JobReport(
                step="running the anonymisation script",
                size_bytes=1000,
                superuser="postgres",
                database="my_db",
                proved=True,
            ),
        }
        self.outcomes: dict[JobKind, JobState] = {}
        self.result = "success"
        # Jobs leave these in the work directory.
        self.error_text: str | None = None
        self.report = "[]"
        self.answers: dict[type[wire.Wire], Callable[[wire.AnyRequest], wire.Wire]] = {}
        self.gates: dict[type[wire.Wire], asyncio.Event] = {}
        self.arrived: dict[type[wire.Wire], asyncio.Event] = {}
        self.asked: list[wire.AnyRequest] = []
        self.kill_at: int | None = None
        self.kill_after = False
        self.dead = False

    def upload(self, image_id: int, content: str = "a backup") -> None:
        """Upload content, as scp would."""
        self.disk.uploads[image_id] = content

    def reboot(self) -> None:
        """Remove all units and keep the subvolumes, as a reboot does."""
        self.disk.jobs.clear()
        self.disk.listening.clear()
        self.disk.admitted.clear()

    def hold(self, kind: type[wire.Wire]) -> tuple[asyncio.Event, asyncio.Event]:
        """Block requests of this kind; return two events: one has arrived, continue."""
        self.arrived[kind], self.gates[kind] = asyncio.Event(), asyncio.Event()
        return self.arrived[kind], self.gates[kind]

    async def exchange(self, request: wire.AnyRequest) -> bytes:
        try:
            request = wire.parse_request(request.model_dump_json(warnings=False))
        except ValidationError:
            return _refusal(Refused(ErrorCode.BAD_REQUEST))
        await asyncio.sleep(0)
        number = len(self.asked)
        self.asked.append(request)
        if self.dead or (number == self.kill_at and not self.kill_after):
            self.dead = True
            raise Killed
        if self.away:
            raise HelperUnavailable("The helper is away.")
        if type(request) in self.gates:
            self.arrived[type(request)].set()
            await self.gates[type(request)].wait()
        try:
            override = self.answers.get(type(request))
            answer = override(request) if override else self._do(request)
            answer_bytes = wire.Answer(reply=answer.model_dump(mode="json")).model_dump_json().encode()
        except Refused as error:
            answer_bytes = _refusal(error)
        if number == self.kill_at:
            self.dead = True
            raise Killed
        return answer_bytes

    def inspection(self) -> wire.Inspection:
        """Return a machine with enough space."""
        return wire.Inspection(
            storage=wire.Storage(
                filesystem_id="5f0c",
                missing_mount_options=[],
                simple_quotas=True,
                room=self.room,
                embedded=True,
            ),
            memory=wire.Memory(total_bytes=2**34, available_bytes=2**33),
            postgres_majors=self.majors,
            systemd_version="257",
            filters_addresses=self.filters_addresses,
        )

    def _do(self, request: wire.AnyRequest) -> wire.Wire:
        match request:
            case wire.Inspect():
                return self.inspection()
            case wire.TakeInventory():
                return self._inventory()
            case wire.ObserveInstances():
                written = [wire.Written(instance_id=it, size_bytes=size) for it, size in self.disk.written.items()]
                return wire.Observed(instance_units=self._instance_units(), written=written, room=self.room)
            case wire.EmptyTrash():
                self.disk.trash = self.disk.undeletable
                return wire.Trash(left=self.disk.trash)
            case wire.AdmitAddresses(instance_id=instance_id, addresses=addresses):
                if instance_id in self.disk.listening:
                    self.disk.admitted[instance_id] = _with_loopback(addresses)
                return self._state(instance_id)
            case wire.LimitInstance(instance_id=instance_id, ceiling=ceiling):
                if instance_id not in self.disk.instances:
                    raise Refused(ErrorCode.NOT_FOUND)
                self._require_ceiling(instance_id, ceiling)
                self.disk.ceilings[instance_id] = ceiling
                return self._state(instance_id)
            case wire.ObserveAddresses():
                admitted = sorted(self.disk.admitted.items())
                return wire.Admissions(ports=[wire.Admission(instance_id=i, addresses=each) for i, each in admitted])
            case wire.AssignInstance(instance_id=instance_id):
                return self._state(instance_id)
            case wire.StartInstance() | wire.CloseInstance() | wire.DestroyInstance():
                return self._do_instance(request)
            case _:
                return self._do_image(request)

    def _do_image(self, request: wire.AnyRequest) -> wire.Wire:
        disk = self.disk
        match request:
            case wire.CreateUpload(image_id=image_id):
                self._require_room()
                disk.uploads.setdefault(image_id, "")
            case wire.LimitUploads(frozen=frozen):
                disk.frozen = frozen
            case wire.SealUpload(image_id=image_id):
                if image_id not in disk.uploads:
                    raise Refused(ErrorCode.NOT_FOUND)
                self._forget_texts(image_id)
                disk.seals[image_id] = disk.uploads[image_id]
                return wire.Sealed(empty=not disk.seals[image_id])
            case wire.StartExtract(image_id=image_id):
                if (JobKind.EXTRACT, image_id) not in disk.jobs:
                    if image_id not in disk.seals:
                        raise Refused(ErrorCode.NOT_FOUND)
                    disk.work[image_id] = disk.seals[image_id]
                    disk.jobs[JobKind.EXTRACT, image_id] = JobState.RUNNING
                return self._job(JobKind.EXTRACT, image_id)
            case wire.StartFinalise(image_id=image_id):
                if (JobKind.FINALISE, image_id) not in disk.jobs:
                    if disk.jobs.get((JobKind.EXTRACT, image_id)) is not JobState.SUCCEEDED:
                        raise Refused(ErrorCode.WRONG_STATE)
                    if request.keep_residue and not self.allow_residue:
                        raise Refused(ErrorCode.BAD_REQUEST)
                    self._require_major(request.postgres_major)
                    # A second run on the same work would show here.
                    disk.work[image_id] += " | " + request.anonymisation_script
                    disk.jobs[JobKind.FINALISE, image_id] = JobState.RUNNING
                    del disk.jobs[JobKind.EXTRACT, image_id]
                return self._job(JobKind.FINALISE, image_id)
            case wire.InspectJob(kind=kind, image_id=image_id):
                if disk.jobs.get((kind, image_id)) is JobState.RUNNING:
                    empty = kind is JobKind.EXTRACT and not disk.work[image_id]
                    disk.jobs[kind, image_id] = (
                        JobState.FAILED if empty else self.outcomes.get(kind, JobState.SUCCEEDED)
                    )
                return self._job(kind, image_id)
            case wire.StopJobs(image_id=image_id):
                for kind in JobKind:
                    disk.jobs.pop((kind, image_id), None)
            case wire.PublishImage(image_id=image_id):
                if image_id not in disk.images:
                    if disk.jobs.get((JobKind.FINALISE, image_id)) is not JobState.SUCCEEDED:
                        raise Refused(ErrorCode.WRONG_STATE)
                    disk.images[image_id] = disk.work[image_id]
                    disk.reports[image_id] = self.report
                    disk.proved.discard(image_id)
                    disk.proved |= {image_id} if self.reports[JobKind.FINALISE].proved else set()
                return wire.Published(uuid=_uuid(image_id))
            case wire.KeepErrorText(image_id=image_id):
                self._forget_texts(image_id)
                if image_id in disk.work and image_id not in disk.images:
                    disk.reports[image_id] = self.report
                if self.error_text is not None and image_id in disk.work and image_id in disk.uploads:
                    disk.error_texts[image_id] = self.error_text
            case wire.ReadErrorText(image_id=image_id):
                return wire.ErrorText(text=disk.error_texts.get(image_id))
            case wire.ReadReport(image_id=image_id):
                return wire.ReportText(text=disk.reports.get(image_id))
            case wire.DiscardParts(image_id=image_id, parts=parts):
                if any(disk.jobs.get((kind, image_id)) is JobState.RUNNING for kind in JobKind):
                    raise Refused(ErrorCode.IN_USE)
                if "image" in parts and image_id in disk.instances.values():
                    raise Refused(ErrorCode.IN_USE)
                places = {"upload": disk.uploads, "seal": disk.seals, "work": disk.work, "image": disk.images}
                self._discard(image_id, *(places[part] for part in parts))
                if "upload" in parts:
                    disk.error_texts.pop(image_id, None)
            case wire.DestroyImage(image_id=image_id):
                if image_id in disk.instances.values():
                    raise Refused(ErrorCode.IN_USE)
                for kind in JobKind:
                    disk.jobs.pop((kind, image_id), None)
                self._discard(image_id, disk.uploads, disk.seals, disk.work, disk.images)
                self._forget_texts(image_id)
            case _:
                raise AssertionError(request)
        return wire.Done()

    def _do_instance(self, request: wire.StartInstance | wire.CloseInstance | wire.DestroyInstance) -> wire.Wire:
        disk, instance_id = self.disk, request.instance_id
        match request:
            case wire.StartInstance():
                if instance_id not in disk.instances:
                    if not request.new:
                        raise Refused(ErrorCode.NOT_FOUND)
                    self._require_room()
                    if request.image_id not in disk.images:
                        raise Refused(ErrorCode.NOT_FOUND)
                    if request.ceiling is None:
                        raise Refused(ErrorCode.BAD_REQUEST)
                if instance_id not in disk.listening:
                    if request.ceiling is not None:
                        self._require_ceiling(instance_id, request.ceiling)
                    if request.superuser:
                        self._require_superuser(instance_id, request.image_id)
                    if request.port not in self.ports:
                        raise Refused(ErrorCode.PORT_OUT_OF_RANGE)
                    self._require_major(request.postgres_major)
                    if request.port in {*self.foreign_ports, *disk.listening.values()}:
                        raise Refused(ErrorCode.PORT_IN_USE)
                    if request.superuser:
                        disk.superusers.add(instance_id)
                    if request.new:
                        disk.instances.setdefault(instance_id, request.image_id)
                        disk.written.setdefault(instance_id, 0)
                        disk.made_with[instance_id] = request
                        disk.asleep.discard(instance_id)
                    else:
                        disk.asleep.add(instance_id)
                    disk.listening[instance_id] = request.port
                    disk.started[instance_id] = request
                    if request.ceiling is not None:
                        disk.ceilings[instance_id] = request.ceiling
                    disk.admitted[instance_id] = _with_loopback(request.addresses)
                return self._state(instance_id)
            case wire.CloseInstance():
                disk.listening.pop(instance_id, None)
                disk.admitted.pop(instance_id, None)
            case wire.DestroyInstance():
                disk.listening.pop(instance_id, None)
                disk.admitted.pop(instance_id, None)
                disk.ceilings.pop(instance_id, None)
                disk.made_with.pop(instance_id, None)
                disk.superusers.discard(instance_id)
                disk.written.pop(instance_id, None)
                if disk.instances.pop(instance_id, None) is not None:
                    disk.trash += 1
        return wire.Done()

    def _require_ceiling(self, instance_id: int, ceiling: wire.Ceiling) -> None:
        made = self.disk.made_with.get(instance_id)
        own = made.ceiling.max_bytes if made is not None and made.ceiling is not None else 0
        if ceiling.max_bytes > max(own, self.room.max_instance_bytes):
            raise Refused(ErrorCode.BAD_REQUEST)

    def _require_superuser(self, instance_id: int, image_id: int) -> None:
        allowed = self.allow_superuser and image_id in self.disk.proved
        if not allowed and instance_id not in self.disk.superusers:
            raise Refused(ErrorCode.BAD_REQUEST)

    def _require_major(self, major: int) -> None:
        if major not in self.majors:
            raise Refused(ErrorCode.POSTGRES_MISSING)

    def _require_room(self) -> None:
        if self.room.free_bytes < self.room.low_bytes:
            raise Refused(ErrorCode.NO_ROOM)

    def _forget_texts(self, image_id: int) -> None:
        self.disk.error_texts.pop(image_id, None)
        if image_id not in self.disk.images:
            self.disk.reports.pop(image_id, None)

    def _discard(self, image_id: int, *places: dict[int, str]) -> None:
        for place in places:
            if place.pop(image_id, None) is not None:
                self.disk.trash += 1

    def _job(self, kind: JobKind, image_id: int) -> wire.Job:
        state = self.disk.jobs.get((kind, image_id), JobState.ABSENT)
        if state is JobState.ABSENT:
            return wire.Job(kind=kind, image_id=image_id, state=state, report=wire.JobReport(), result="")
        report = self.reports[kind].model_copy(update={"finished": state is JobState.SUCCEEDED})
        if kind is JobKind.EXTRACT and not self.disk.work[image_id]:
            report = wire.JobReport(error_code="no_data_directory", error="The upload holds nothing.")
        return wire.Job(kind=kind, image_id=image_id, state=state, report=report, result=self.result)

    async def wake(self, port: int) -> None:
        """Wakes the instance behind the port."""
        self.disk.asleep -= {it for it, its_port in self.disk.listening.items() if its_port == port}

    def _instance_units(self) -> list[wire.InstanceState]:
        return [self._state(instance_id) for instance_id in sorted(self.disk.listening)]

    def _state(self, instance_id: int) -> wire.InstanceState:
        listening = instance_id in self.disk.listening
        postgres = "active" if listening and instance_id not in self.disk.asleep else "inactive"
        if instance_id in self.disk.broken:
            postgres = "failed"
        return wire.InstanceState(instance_id=instance_id, listening=listening, postgres=postgres)

    def _inventory(self) -> wire.Inventory:
        disk = self.disk
        return wire.Inventory(
            uploads=sorted(disk.uploads),
            seals=sorted(disk.seals),
            work=sorted(disk.work),
            images=[wire.ImageFound(image_id=it, uuid=_uuid(it), read_only=True) for it in sorted(disk.images)],
            instances=sorted(disk.instances),
            instance_units=self._instance_units(),
            jobs=[self._job(kind, image_id) for kind, image_id in disk.jobs],
            trash=disk.trash,
            undeletable=[f"{number}: not empty" for number in range(disk.undeletable)],
            idle_quota_groups=0,
            unknown=disk.unknown,
        )


def _uuid(image_id: int) -> str:
    return f"00000000-0000-0000-0000-{image_id:012x}"


def _refusal(refused: Refused) -> bytes:
    return wire.Answer(refusal=refused.refusal).model_dump_json().encode()


def _with_loopback(addresses: list[Network] | None) -> list[Network] | None:
    return None if addresses is None else [*wire.LOOPBACK, *addresses]
