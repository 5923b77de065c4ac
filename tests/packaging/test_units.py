"""The installed packages on a booted Debian 13: units, users, directories, manual pages, completions."""

from __future__ import annotations

import gzip
import pwd
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

UNITS = Path("/usr/lib/systemd/system")
# A command, and one of its completions.
COMPLETED = {"draupnir": "doctor", "draupnir-client": "instances"}

pytestmark = pytest.mark.skipif(not (UNITS / "draupnir.service").exists(), reason="the packages are not installed here")


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_systemd_finds_no_fault_in_a_unit(tmp_path: Path) -> None:
    units = [str(path) for path in sorted(UNITS.glob("draupnir*.s*")) if path.is_file()]
    # A prefix drop-in applies only to a unit of that prefix, so each gets a minimal unit.
    for drop_in in sorted(UNITS.glob("draupnir-*-.*.d")):
        shutil.copytree(drop_in, tmp_path / drop_in.name)
        unit = tmp_path / drop_in.name.removesuffix(".d").replace("-.", "-1.")
        complete = any(re.search("^ExecStart=", path.read_text(), re.MULTILINE) for path in drop_in.iterdir())
        if unit.suffix == ".service":
            unit.write_text("[Service]\n" if complete else "[Service]\nExecStart=/bin/true\n")
        else:
            unit.write_text("[Socket]\nListenStream=6432\n")
        units.append(str(unit))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", *units]
    verified = subprocess.run(command, check=False, capture_output=True, text=True)
    assert verified.stderr == ""
    assert verified.returncode == 0


def test_every_user_a_unit_names_is_made_at_installation() -> None:
    made = set(re.findall(r"^[ug]!? (\S+)", Path("/usr/lib/sysusers.d/draupnir.conf").read_text(), re.MULTILINE))
    named = {
        name
        for path in UNITS.glob("draupnir*")
        if path.is_file()
        for name in re.findall(r"^(?:User|Group|SocketUser|SocketGroup)=(\S+)", path.read_text(), re.MULTILINE)
    }
    assert named - {"root"} <= made
    assert {"draupnir", "upload", "draupnir-data"} <= made


def test_every_directory_made_at_boot_is_as_declared() -> None:
    lines = re.findall(r"^d (\S+) (\d+) (\S+) \S+", Path("/usr/lib/tmpfiles.d/draupnir.conf").read_text(), re.MULTILINE)
    assert lines
    for name, mode, owner in lines:
        status = Path(name).stat()
        assert stat.S_IMODE(status.st_mode) == int(mode, 8), name
        assert status.st_uid == pwd.getpwnam(owner).pw_uid, name


def test_nobody_can_sign_in_as_our_users() -> None:
    for name in ("draupnir", "upload"):
        assert pwd.getpwnam(name).pw_shell == "/usr/sbin/nologin"


@pytest.mark.parametrize("page", ["man8/draupnir.8", "man5/draupnir-config.toml.5", "man1/draupnir-client.1"])
def test_manual_pages_have_no_faults(page: str) -> None:
    path = f"/usr/share/man/{page}.gz"
    assert gzip.decompress(Path(path).read_bytes()).startswith(b".")
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", path],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )
    assert shown.stderr == ""
    assert "NAME" in shown.stdout


def test_bash_completes_both_commands() -> None:
    script = """
        source /usr/share/bash-completion/completions/{command}
        COMP_WORDS=({command} '') COMP_CWORD=1
        _{function}_completion {command}
        echo "${{COMPREPLY[@]}}"
    """
    for command, expected in COMPLETED.items():
        text = script.format(command=command, function=command.replace("-", "_"))
        assert expected in output_of("bash", "-c", text).split()


def test_fish_completes_both_commands() -> None:
    for command, expected in COMPLETED.items():
        offered = output_of("fish", "-c", f"complete -C '{command} '").splitlines()
        assert expected in [line.partition("\t")[0] for line in offered]


def test_zsh_completes_both_commands() -> None:
    # Calls the function that zsh finds, and prints the offered completions.
    script = """
        autoload -Uz compinit && compinit -D -u
        _describe() {{ print -rl -- "${{(@P)3}}" }}
        words=({command} '') CURRENT=2
        ${{_comps[{command}]}}
    """
    for command, expected in COMPLETED.items():
        offered = output_of("zsh", "-f", "-c", script.format(command=command)).splitlines()
        assert expected in [line.partition(":")[0] for line in offered]


def test_the_upload_user_gets_sftp_in_its_chroot_and_nothing_else() -> None:
    effective = output_of("/usr/sbin/sshd", "-T", "-C", "user=upload,host=localhost,addr=127.0.0.1")
    for line in (
        "chrootdirectory /run/draupnir/data/chroot",
        'authorizedkeyscommand /usr/lib/draupnir/upload-keys %f "%C"',
        "authenticationmethods publickey",
        "disableforwarding yes",
        "permittty no",
        "permituserrc no",
    ):
        assert line in effective.splitlines()
    assert re.search(r"^forcecommand internal-sftp ", effective, re.MULTILINE)
    others = output_of("/usr/sbin/sshd", "-T", "-C", "user=root,host=localhost,addr=127.0.0.1").splitlines()
    assert "chrootdirectory none" in others
    assert "forcecommand none" in others
