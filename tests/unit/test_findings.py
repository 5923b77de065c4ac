"""Laws of doctor's findings: each fault is distinguished from health, and comes with advice."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from draupnir.callers import User
from draupnir.cli import line_of
from draupnir.doctor import findings
from draupnir.doctor.findings import Finding, Verdict
from draupnir_helper.wire import ImageFound, InstanceState, Inventory, Job, JobKind, JobReport, JobState, Room, Storage

GB = 10**9
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SNIPPET = """chrootdirectory /run/draupnir/data/chroot
forcecommand internal-sftp -u 0077
authorizedkeyscommand /usr/lib/draupnir/upload-keys %f "%C"
"""


def verdict(finding: Finding) -> str:
    assert (finding.advice == "") is (finding.verdict is Verdict.OK)
    return finding.verdict.value


def person(email: str, checked_ago: timedelta) -> User:
    return User(email, "issuer", "subject", b"", NOW, NOW, NOW - checked_ago, None)


def test_a_user_without_a_recent_check_is_reported() -> None:
    half_an_hour = timedelta(minutes=30)
    lately, late = person("ann@corp.example", timedelta(minutes=29)), person("bob@corp.example", timedelta(minutes=62))
    assert verdict(findings.judge_checks([], half_an_hour, NOW)) == "ok"
    assert verdict(findings.judge_checks([lately], half_an_hour, NOW)) == "ok"
    told = findings.judge_checks([lately, late], half_an_hour, NOW)
    assert verdict(told) == "warning"
    assert "bob@corp.example since 2025-12-31 22:58 UTC" in told.text


def storage(free_bytes: int = 50 * GB, missing: tuple[str, ...] = (), simple_quotas: bool = True) -> Storage:
    return Storage(
        filesystem_id="x",
        missing_mount_options=list(missing),
        simple_quotas=simple_quotas,
        room=Room(size_bytes=100 * GB, free_bytes=free_bytes, low_bytes=1, critical_bytes=0, max_instance_bytes=GB),
        embedded=True,
    )


@pytest.mark.parametrize(
    ("free", "says"), [(50, "ok"), (15, "ok"), (14, "warning"), (5, "warning"), (4, "bad"), (0, "bad")]
)
def test_low_space_is_a_warning_and_critical_space_is_bad(free: int, says: str) -> None:
    assert verdict(findings.judge_room(storage(free_bytes=free * GB))) == says


def test_missing_mount_options_and_quotas_are_bad() -> None:
    assert [verdict(each) for each in findings.judge_storage(storage())] == ["ok", "ok"]
    faulty = findings.judge_storage(storage(missing=("nodev", "nosuid"), simple_quotas=False))
    assert [verdict(each) for each in faulty] == ["bad", "bad"]
    assert "nodev,nosuid" in faulty[0].text


@pytest.mark.parametrize(("host_free", "says"), [(95, "ok"), (89, "warning"), (2, "warning"), (1, "bad"), (0, "bad")])
def test_a_host_that_cannot_hold_the_grown_disk_is_reported_before_it_is_full(host_free: int, says: str) -> None:
    assert verdict(findings.judge_embedded_disk(100 * GB, 10 * GB, host_free * GB)) == says


def test_a_fully_grown_disk_needs_no_host_space() -> None:
    assert verdict(findings.judge_embedded_disk(GB, GB, 0)) == "ok"


def test_the_secret_is_for_root_and_the_daemon_only() -> None:
    regular = stat.S_IFREG
    assert verdict(findings.judge_secret_file(regular | 0o640, "root", "draupnir")) == "ok"
    for mode, owner, group in ((0o644, "root", "draupnir"), (0o640, "root", "root"), (0o640, "draupnir", "draupnir")):
        assert verdict(findings.judge_secret_file(regular | mode, owner, group)) == "bad"


@pytest.mark.parametrize("line", SNIPPET.splitlines())
def test_each_line_of_the_sshd_snippet_is_needed(line: str) -> None:
    assert verdict(findings.judge_sshd(True, SNIPPET)) == "ok"
    assert verdict(findings.judge_sshd(False, SNIPPET)) == "bad"
    name, _, _ = line.partition(" ")
    assert verdict(findings.judge_sshd(True, SNIPPET.replace(line, f"{name} none"))) == "bad"


def test_a_missing_key_is_a_warning_and_a_missing_postgres_is_bad() -> None:
    assert verdict(findings.judge_upload_keys(0)) == "warning"
    assert verdict(findings.judge_upload_keys(1)) == "ok"
    assert verdict(findings.judge_postgres([])) == "bad"
    assert verdict(findings.judge_postgres([17, 16])) == "ok"


def test_an_unhealthy_daemon_names_the_part() -> None:
    assert verdict(findings.judge_health(200, {})) == "ok"
    unwell = findings.judge_health(503, {"metadata": "ok", "helper": "away"})
    assert verdict(unwell) == "bad"
    assert "helper: away" in unwell.text
    assert "metadata" not in unwell.text


def inventory(**found: object) -> Inventory:
    nothing = {
        "uploads": [],
        "seals": [],
        "work": [],
        "images": [],
        "instances": [],
        "instance_units": [],
        "jobs": [],
        "trash": 0,
        "undeletable": [],
        "idle_quota_groups": 0,
        "unknown": [],
    }
    return Inventory.model_validate({**nothing, **found})


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"uploads": [9]}, "upload 9"),
        ({"seals": [9]}, "seal 9"),
        ({"work": [9]}, "work 9"),
        ({"images": [ImageFound(image_id=9, uuid="u", read_only=True)]}, "image 9"),
        ({"instances": [9]}, "instance 9"),
        ({"instance_units": [InstanceState(instance_id=9, listening=True, postgres="active")]}, "units of instance 9"),
        (
            {"jobs": [Job(kind=JobKind.EXTRACT, image_id=9, state=JobState.FAILED, report=JobReport(), result="")]},
            "job of image 9",
        ),
        ({"unknown": ["instances/mine"]}, "instances/mine"),
    ],
)
def test_unknown_images_and_instances_are_named(found: dict[str, object], named: str) -> None:
    (stray,) = findings.judge_inventory(inventory(**found), {1}, {1})
    assert verdict(stray) == "warning"
    assert stray.text.startswith(named)


def test_known_images_and_instances_are_not_reported() -> None:
    found = inventory(uploads=[1], instances=[2], trash=3)
    assert [verdict(each) for each in findings.judge_inventory(found, {1}, {2})] == ["ok"]


def test_undeletable_trash_is_reported_with_advice() -> None:
    known, trash = findings.judge_inventory(inventory(trash=1, undeletable=["4-17: File name too long"]), {1}, {1})
    assert (verdict(known), verdict(trash)) == ("ok", "warning")
    assert trash.text.endswith("4-17: File name too long")
    assert "rm -rf /run/draupnir/data/trash/4-17`" in trash.advice


PATH = Path("x.pem")


def certificate(*names: x509.GeneralName, since: int = -1, until: int = 60) -> bytes:
    """Return the PEM of a certificate for these names, valid between these days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "db.example.org")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=since))
        .not_valid_after(NOW + timedelta(days=until))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def judge(pem: bytes, hostname: str = "db.example.org") -> Finding:
    return findings.judge_certificate(PATH, pem, pem.decode(), hostname, NOW)


@pytest.mark.parametrize(("days", "says"), [(90, "ok"), (15, "ok"), (13, "warning"), (0, "bad"), (-1, "bad")])
def test_a_certificate_is_reported_before_it_expires(days: int, says: str) -> None:
    assert verdict(judge(certificate(x509.DNSName("db.example.org"), since=-365, until=days))) == says


def test_a_certificate_of_the_future_is_bad() -> None:
    assert verdict(judge(certificate(x509.DNSName("db.example.org"), since=1))) == "bad"


@pytest.mark.parametrize(
    ("names", "hostname", "says"),
    [
        ([x509.DNSName("db.example.org")], "DB.example.org", "ok"),
        ([x509.DNSName("other.example.org"), x509.DNSName("db.example.org")], "db.example.org", "ok"),
        ([x509.DNSName("*.example.org")], "db.example.org", "ok"),
        ([x509.DNSName("*.example.org")], "example.org", "bad"),
        ([x509.DNSName("*.example.org")], "eu.db.example.org", "bad"),
        ([x509.DNSName("db.example.com")], "db.example.org", "bad"),
        ([x509.IPAddress(ip_address("192.0.2.1"))], "192.0.2.1", "ok"),
        ([x509.DNSName("192.0.2.1")], "192.0.2.1", "bad"),
        ([], "db.example.org", "bad"),  # clients ignore the common name
    ],
)
def test_a_certificate_for_another_name_is_bad(names: list[x509.GeneralName], hostname: str, says: str) -> None:
    assert verdict(judge(certificate(*names), hostname)) == says


def test_a_renewed_certificate_without_a_reload_is_reported() -> None:
    renewed, served = (certificate(x509.DNSName("db.example.org")) for _ in range(2))
    finding = findings.judge_certificate(PATH, renewed, served.decode(), "db.example.org", NOW)
    assert verdict(finding) == "bad"
    assert "systemctl reload draupnir" in finding.advice
    assert verdict(findings.judge_certificate(PATH, renewed, None, "db.example.org", NOW)) == "bad"


def test_an_invalid_certificate_is_bad() -> None:
    assert verdict(judge(b"hello")) == "bad"


def test_a_finding_is_one_line() -> None:
    assert line_of(findings.ok("postgres", "installed: 17")) == "✓ postgres: installed: 17"
    assert line_of(findings.bad("postgres", "none", "install one")) == "✗ postgres: none; install one"
