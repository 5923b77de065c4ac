"""Runs in the sandbox of an instance instead of Postgres: tests what native code may do there, and writes a report.

Each probe is a function that returns if the action is possible, and raises OSError if it is refused.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
# x86-64, arm64
NUMBERS = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "execveat": (322, 281), "userfaultfd": (323, 282),
    "process_vm_writev": (311, 271), "remap_file_pages": (216, 234), "vmsplice": (278, 75),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219),
    "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "personality": (135, 92),
    "open_by_handle_at": (304, 265), "add_key": (248, 217), "pidfd_getfd": (438, 438), "kexec_load": (246, 104),
    "init_module": (175, 105), "quotactl": (179, 60), "swapon": (167, 224), "settimeofday": (164, 170),
    "chroot": (161, 51), "fsopen": (430, 430), "move_mount": (429, 429), "acct": (163, 89), "reboot": (169, 142),
}  # fmt: skip
# Arguments with which the kernel would succeed, or fail for another reason than a refusal.
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "memfd_create": (b"x", 0),
    "execveat": (-100, b"/usr/lib/postgresql/none", None, None, 0),
    "userfaultfd": (1,),  # UFFD_USER_MODE_ONLY
    "unshare": (0x10000000,),  # CLONE_NEWUSER
    "personality": (0x0400000,),  # READ_IMPLIES_EXEC
    "setns": (0, 0),
}
FORBIDDEN = {1, 13, 38}  # EPERM, EACCES, ENOSYS
WRITABLE = ("/srv/pgdata", "/tmp", "/dev/shm")
# Programs that print their version at any path.
PROGRAM = "/usr/lib/postgresql/{major}/bin/psql"
LOADER = "/lib64/ld-linux-x86-64.so.2" if os.uname().machine == "x86_64" else "/lib/ld-linux-aarch64.so.1"


def call(name: str) -> None:
    """Run the system call by its number; only a refusal by the sandbox counts."""
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    if LIBC.syscall(number, *ARGUMENTS.get(name, (0, 0, 0, 0, 0))) == -1:
        error = ctypes.get_errno()
        if error in FORBIDDEN:
            raise PermissionError(error, os.strerror(error))


def copy_of(program: str, directory: str) -> str:
    path = f"{directory}/probe-program"
    Path(path).write_bytes(Path(program).read_bytes())
    Path(path).chmod(0o700)
    return path


def run(*command: str, **options: object) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise PermissionError(done.stderr)


def run_descriptor(descriptor: int) -> None:
    # pass_fds is not used, because Python needs ioctl for it.
    fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
    run(f"/proc/self/fd/{descriptor}", close_fds=False)


def run_nameless(program: str, directory: str) -> None:
    """Execute a file that never had a name."""
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o700)
    os.write(descriptor, Path(program).read_bytes())
    readable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    os.close(descriptor)
    run_descriptor(readable)


def run_from_memory(program: str) -> None:
    descriptor = os.memfd_create("x", 0)
    os.write(descriptor, Path(program).read_bytes())
    run_descriptor(descriptor)


def run_copy(program: str, directory: str) -> None:
    run(copy_of(program, directory))


def load_copy(program: str, directory: str) -> None:
    run(LOADER, copy_of(program, directory))


def map_copy(program: str, directory: str) -> None:
    with Path(copy_of(program, directory)).open("rb") as file:
        mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)


def make_executable() -> None:
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if LIBC.mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_EXEC) == -1:
        raise PermissionError


def attach_executable() -> None:
    segment = LIBC.shmget(0, 4096, 0o1700)
    LIBC.shmat.restype = ctypes.c_void_p
    if LIBC.shmat(segment, None, 0o100000) in (None, ctypes.c_void_p(-1).value):  # SHM_EXEC
        raise PermissionError


def nest_subvolume() -> None:
    """Create a subvolume by ioctl, which works in any own directory."""
    top = os.open("/srv/pgdata", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(top, 0x5000940E, bytearray(struct.pack("=q4088s", 0, b"nested-by-a-probe")))


def probes(major: str) -> dict[str, Callable[[], object]]:
    program = PROGRAM.format(major=major)
    found: dict[str, Callable[[], object]] = {f"call {name}": partial(call, name) for name in NUMBERS}
    for directory in WRITABLE:
        found[f"run a program in {directory}"] = partial(run_copy, LOADER, directory)
        found[f"load a program in {directory}"] = partial(load_copy, program, directory)
        found[f"map a file in {directory}"] = partial(map_copy, program, directory)
        found[f"run a nameless file in {directory}"] = partial(run_nameless, LOADER, directory)
    found["run a program from memory"] = lambda: run_from_memory(LOADER)
    found["map memory writable and executable"] = lambda: mmap.mmap(
        -1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    found["make memory executable"] = make_executable
    found["nest a subvolume"] = nest_subvolume
    found["attach shared memory executable"] = attach_executable
    for family in ("AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"):
        number = getattr(socket, family, None)
        if number is not None:
            found[f"a socket {family}"] = partial(socket.socket, number, socket.SOCK_RAW)
    return found


def attempt(probe: Callable[[], object]) -> str:
    try:
        probe()
    except OSError:
        return "refused"
    return "done"


def main() -> None:
    """Run each probe in a separate process, because some kill it."""
    answers = {"a program of Postgres's": attempt(partial(run, PROGRAM.format(major=sys.argv[1])))}
    for name, probe in probes(sys.argv[1]).items():
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, attempt(probe).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            answers[name] = answer.read() or "died"
        os.wait()
    Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
