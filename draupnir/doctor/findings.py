"""Judges observed facts for doctor: pure functions that return findings."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from draupnir import shared_secret, upload_keys
from draupnir.callers import User
from draupnir_helper.wire import Inspection, Inventory, Storage

WARN_FREE, BAD_FREE = 0.15, 0.05
HOST_RESERVE_BYTES = 1024**3
CHECKS_MISSED, CHECK_SLACK = 2, timedelta(minutes=1)
# Certbot and similar tools renew a certificate after two thirds of its life, usually thirty days before its end.
CERTIFICATE_WARN = timedelta(days=14)


class Verdict(StrEnum):
    """The state of a part: ok, warning, or broken."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the service, its state, and (unless it is ok) the advice."""

    verdict: Verdict
    part: str
    text: str
    advice: str = ""


def ok(part: str, text: str) -> Finding:
    """Return a finding that a part is ok."""
    return Finding(Verdict.OK, part, text)


def warning(part: str, text: str, advice: str) -> Finding:
    """Return a finding that a part works but needs attention."""
    return Finding(Verdict.WARNING, part, text, advice)


def bad(part: str, text: str, advice: str) -> Finding:
    """Return a finding that a part does not work."""
    return Finding(Verdict.BAD, part, text, advice)


def judge_secret_file(mode: int, owner: str, group: str) -> Finding:
    """Judge whether only root and the daemon can read the shared secret."""
    permissions = stat.S_IMODE(mode)
    if owner == "root" and group == "draupnir" and permissions == 0o640:
        return ok("shared secret", "only root and the daemon can read the file")
    path = shared_secret.PATH
    return bad(
        "shared secret",
        f"{path} is {permissions:04o} {owner}:{group} and must be 0640 root:draupnir",
        f"run `chown root:draupnir {path} && chmod 0640 {path}`; if others could read it, replace it",
    )


def judge_private_file(part: str, path: Path, mode: int) -> Finding | None:
    """Return a finding if others than root can read a file, or None."""
    permissions = stat.S_IMODE(mode)
    if not permissions & 0o077:
        return None
    advice = f"run `chown root:root {path} && chmod 0600 {path}`; if others could read it, replace it"
    return bad(part, f"{path} is {permissions:04o} and must be readable only by root", advice)


def judge_inspection(inspection: Inspection) -> list[Finding]:
    """Judge the helper's report about storage, free space and Postgres."""
    findings = [ok("helper", f"the helper answers; systemd has version {inspection.systemd_version}")]
    if inspection.storage is None:
        findings.append(
            bad(
                "storage",
                "the data filesystem does not exist, or is mounted without nodev, noexec or nosuid",
                "see `systemctl status draupnir-setup`, and run `findmnt --target` with data_path of config.toml",
            )
        )
    else:
        findings += [*judge_storage(inspection.storage), judge_room(inspection.storage)]
    findings.append(judge_postgres(inspection.postgres_majors))
    return findings


def judge_storage(storage: Storage) -> list[Finding]:
    """Judge the mount options and quotas of the data filesystem."""
    kind = "the embedded disk" if storage.embedded else "a btrfs filesystem of your own"
    missing = ",".join(storage.missing_mount_options)
    quotas = ok("quotas", "simple quotas are on")
    if not storage.simple_quotas:
        quotas = bad(
            "quotas",
            "simple quotas are off, so instances and uploads have no ceilings",
            "run `btrfs quota enable --simple /run/draupnir/data/`",
        )
    if missing:
        advice = f"add {missing} to its options (in /etc/fstab or its mount unit) and mount it again"
        return [bad("storage", f"{kind} is mounted without {missing}", advice), quotas]
    return [ok("storage", f"{kind} is mounted with the right options"), quotas]


def judge_room(storage: Storage) -> Finding:
    """Judge the free space of the data filesystem."""
    room = storage.room
    share = room.free_bytes / room.size_bytes if room.size_bytes else 0.0
    text = f"{gigabytes(room.free_bytes)} of {gigabytes(room.size_bytes)} are free ({share:.0%})"
    advice = "destroy unused instances and images, or enlarge the disk"
    if share < BAD_FREE:
        return bad("free space", text, advice)
    return warning("free space", text, advice) if share < WARN_FREE else ok("free space", text)


def judge_embedded_disk(size_bytes: int, allocated_bytes: int, host_free_bytes: int) -> Finding:
    """Judge the sparse file of the embedded disk. Writes to it fail when its host filesystem is full."""
    to_grow_bytes = max(0, size_bytes - allocated_bytes)
    text = f"the file may grow by {gigabytes(to_grow_bytes)}, and its filesystem has {gigabytes(host_free_bytes)} free"
    advice = "free space on the filesystem of /var/lib/draupnir, or move the data to a separate disk"
    if host_free_bytes < min(to_grow_bytes, HOST_RESERVE_BYTES):
        return bad("embedded disk", text, advice)
    if host_free_bytes < to_grow_bytes:
        return warning("embedded disk", text, advice)
    return ok("embedded disk", text)


def judge_postgres(majors: list[int]) -> Finding:
    """Judge whether a Postgres server is installed. An image needs the server of its own major."""
    if not majors:
        return bad(
            "postgres", "no Postgres server is installed", "run `apt install postgresql-17`, or install another major"
        )
    return ok("postgres", "installed majors: " + ", ".join(map(str, sorted(majors))))


def judge_filter(on: bool, works: bool) -> list[Finding]:
    """Judge whether ports can filter addresses. Return no finding if allowlists are off."""
    if not on:
        return []
    if works:
        return [ok("address filter", "ports accept only the addresses on their allowlists")]
    advice = (
        "boot with the unified cgroup hierarchy and a kernel that loads BPF programs, or set enable_ip_whitelisting = "
        "false and run `systemctl restart draupnir`"
    )
    return [
        bad(
            "address filter",
            "enable_ip_whitelisting is on, but systemd cannot filter addresses on this machine",
            advice,
        )
    ]


def judge_sshd(running: bool, effective: str) -> Finding:
    """Judge sshd; `effective` is the output of `sshd -T` for the user upload."""
    if not running:
        return bad("uploads", "sshd is not running", "run `systemctl enable --now ssh`")
    words = dict(line.partition(" ")[::2] for line in effective.splitlines())
    wrong = [
        name
        for name, fine in {
            "ChrootDirectory": words.get("chrootdirectory", "").endswith("/chroot"),
            "ForceCommand": words.get("forcecommand", "").startswith("internal-sftp"),
            "AuthorizedKeysCommand": words.get("authorizedkeyscommand", "").split()[:1] == [str(upload_keys.COMMAND)],
        }.items()
        if not fine
    ]
    if wrong:
        return bad(
            "uploads",
            f"sshd ignores {' and '.join(wrong)} of Draupnir's file for the user upload",
            "include /etc/ssh/sshd_config.d/*.conf in /etc/ssh/sshd_config before other rules for upload, "
            "and run `systemctl reload ssh`",
        )
    return ok("uploads", "sshd runs, and limits the user upload to sftp in its folder")


def judge_upload_keys(keys: int) -> Finding:
    """Judge whether there is an upload key."""
    if not keys:
        return warning("upload keys", "no key exists, so nobody can upload", "run `draupnir upload-key add FILE.pub`")
    return ok("upload keys", f"number of keys: {keys}")


def judge_checks(users: Collection[User], interval: timedelta, now: datetime) -> Finding:
    """Judge whether the identity provider has confirmed all users with instances, sessions or tokens recently."""
    if not users:
        return ok("people", "no signed-in user has an instance, a session or a token")
    longest_ago = min(users, key=lambda user: user.checked_at)
    since = f"{longest_ago.checked_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if now - longest_ago.checked_at > CHECKS_MISSED * interval + CHECK_SLACK:
        return warning(
            "people",
            f"the identity provider has not confirmed {longest_ago.email} since {since}, so a revoked user keeps"
            f" access; {len(users)} users to check",
            "see `journalctl -u draupnir` for the provider's answers, and check whether this server reaches it",
        )
    return ok("people", f"the identity provider has confirmed all {len(users)} users since {since}")


def judge_health(status: int, parts: dict[str, str]) -> Finding:
    """Judge the daemon's health check."""
    if status == 200:
        return ok("daemon", "the API answers on 127.0.0.1:8432 and is healthy")
    away = "; ".join(f"{part}: {state}" for part, state in parts.items() if state != "ok") or f"status {status}"
    return bad("daemon", f"the API is unhealthy: {away}", "see the other lines here and `journalctl -u draupnir`")


def judge_inventory(inventory: Inventory, image_ids: Iterable[int], instance_ids: Iterable[int]) -> list[Finding]:
    """Judge images and instances that are missing in the metadata. The service never deletes them."""
    images, instances = set(image_ids), set(instance_ids)
    strays = [
        *_strays("upload", inventory.uploads, images),
        *_strays("seal", inventory.seals, images),
        *_strays("work", inventory.work, images),
        *_strays("image", (found.image_id for found in inventory.images), images),
        *_strays("job of image", (job.image_id for job in inventory.jobs), images),
        *_strays("instance", inventory.instances, instances),
        *_strays("units of instance", (unit.instance_id for unit in inventory.instance_units), instances),
        *inventory.unknown,
    ]
    trash = [_judge_undeletable(entry) for entry in inventory.undeletable]
    if not strays:
        return [ok("inventory", "everything on disk and in systemd is known"), *trash]
    return trash + [
        warning(
            "inventory",
            f"{stray} exists and is not in the metadata",
            "the service does not touch it; inspect it, then remove it by hand or restore its metadata",
        )
        for stray in strays
    ]


def _judge_undeletable(entry: str) -> Finding:
    name = entry.partition(":")[0]
    return warning(
        "trash",
        f"an entry cannot be deleted and occupies space on the data disk: {entry}",
        f"run `rm -rf /run/draupnir/data/trash/{name}`; if that fails too, see `journalctl -k` for errors of the disk",
    )


def _strays(noun: str, found: Iterable[int], known: set[int]) -> list[str]:
    return [f"{noun} {stray}" for stray in sorted(set(found) - known)]


def judge_certificate(path: Path, pem: bytes, served: str | None, hostname: str, now: datetime) -> Finding:
    """Judge the configured certificate of the API. `served` is the one that the listener presents, or None."""
    part = "api certificate"
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        return bad(part, f"{path} is not a PEM certificate ({error})", "put the certificate chain there")
    expires_at = certificate.not_valid_after_utc
    renew = f"renew {path} and run `systemctl reload draupnir`"
    if expires_at <= now:
        return bad(part, f"the certificate expired on {expires_at:%Y-%m-%d}", renew)
    if certificate.not_valid_before_utc > now:
        text = f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
        return bad(part, text, f"check the clock, or {renew}")
    if not is_for(certificate, hostname):
        text = f"the certificate is not for {hostname}, the public_hostname, so clients refuse it"
        return bad(part, text, f"put a certificate for that name at {path} and run `systemctl reload draupnir`")
    if served is None:
        return bad(part, "the HTTPS listener does not answer", "see `journalctl -u draupnir`")
    if x509.load_pem_x509_certificate(served.encode()) != certificate:
        text = f"clients get another certificate than the one in {path}"
        return bad(
            part, text, "run `systemctl reload draupnir`; `journalctl -u draupnir` has the reason if it is refused"
        )
    text = f"the certificate is for {hostname} and valid until {expires_at:%Y-%m-%d}"
    return warning(part, text, renew) if expires_at - now < CERTIFICATE_WARN else ok(part, text)


def is_for(certificate: x509.Certificate, hostname: str) -> bool:
    """Return whether the certificate is valid for the host, by its subject alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(hostname) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        # A wildcard matches exactly the first label.
        return not known.isdisjoint({hostname.lower(), "*." + hostname.lower().partition(".")[2]})


def gigabytes(size_bytes: int) -> str:
    """Format a size for people."""
    return f"{size_bytes / 1e9:.1f} GB"
