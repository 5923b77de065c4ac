"""Examines every part of the service on this machine for `draupnir doctor`. Changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import http.client
import json
import os
import pwd
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from draupnir import errors, shared_secret, upload_keys
from draupnir.doctor import findings
from draupnir.doctor.findings import Finding, bad, ok
from draupnir.helper import HelperClient
from draupnir.identity import client_secret, encryption
from draupnir.serving import tls
from draupnir.settings import CONFIG_PATH, Settings, SettingsError, load
from draupnir.store import Store
from draupnir_helper import wire

API_HOST, API_PORT = "127.0.0.1", 8432
DAEMON_USER = "draupnir"
EMBEDDED_DISK = Path("/var/lib/draupnir/data.btrfs")
COMMAND_TIMEOUT_S = 10
HTTP_TIMEOUT_S = 15


def examine() -> list[Finding]:
    """Return every finding, in the order of dependencies. Needs root."""
    try:
        settings = load(CONFIG_PATH)
    except SettingsError as error:
        advice = "then run `systemctl restart draupnir-setup draupnir-helper draupnir`"
        return [bad("configuration", str(error), advice)]
    state = "is valid" if CONFIG_PATH.exists() else "does not exist, so all settings have their defaults"
    return [
        ok("configuration", f"{CONFIG_PATH} {state}"),
        _examine_secret(),
        _examine_key(),
        *_examine_embedded_disk(),
        *_examine_as_daemon(settings),
        _examine_health(),
        _examine_sshd(),
        _examine_upload_keys(),
        *_examine_certificate(settings),
        *_examine_sign_in(settings),
    ]


def _examine_secret() -> Finding:
    try:
        shared_secret.read(shared_secret.PATH)
        status = shared_secret.PATH.stat()
    except (shared_secret.SecretError, OSError) as error:
        return bad("shared secret", str(error), "then run `systemctl restart draupnir`")
    return findings.judge_secret_file(status.st_mode, _user_name(status.st_uid), _group_name(status.st_gid))


def _examine_key() -> Finding:
    """Check the key that encrypts authority keys and refresh tokens in the metadata."""
    try:
        encryption.check_key(_read(encryption.PATH))
        mode = encryption.PATH.stat().st_mode
    except (encryption.KeyMissing, OSError) as error:
        return bad("encryption key", str(error), "then run `systemctl restart draupnir`")
    return findings.judge_private_file("encryption key", encryption.PATH, mode) or ok(
        "encryption key", "only root can read the file"
    )


def _examine_embedded_disk() -> list[Finding]:
    if not EMBEDDED_DISK.exists():
        return []
    status, host = EMBEDDED_DISK.stat(), os.statvfs(EMBEDDED_DISK.parent)
    # On every filesystem st_blocks counts units of 512 bytes, see stat(2).
    return [findings.judge_embedded_disk(status.st_size, status.st_blocks * 512, host.f_bavail * host.f_frsize)]


def _examine_as_daemon(settings: Settings) -> list[Finding]:
    """Query the helper and the metadata as the daemon's user, to get the same results as the daemon."""
    try:
        with _acting_as(DAEMON_USER):
            return asyncio.run(_examine_helper_and_metadata(settings))
    except KeyError:
        return [
            bad("daemon", f"the user {DAEMON_USER} does not exist", "run `systemd-sysusers`, or reinstall the package")
        ]


async def _examine_helper_and_metadata(settings: Settings) -> list[Finding]:
    helper = HelperClient()
    result: list[Finding] = []
    inventory: wire.Inventory | None = None
    try:
        inspection = await helper.inspect()
        result += findings.judge_inspection(inspection)
        result += findings.judge_filter(settings.enable_ip_whitelisting, inspection.filters_addresses)
        if inspection.storage is not None:
            inventory = await helper.ask(wire.TakeInventory())
    except errors.DraupnirError as error:
        result.append(bad("helper", error.detail, "see `systemctl status draupnir-helper.socket draupnir-helper`"))
    store = Store(settings.dsn)
    try:
        await store.open(migrating=False)
        image_ids = [image.id for image in await store.images.list_all()]
        instance_ids = [instance.id for instance in await store.instances.list_all()]
        result.append(ok("metadata", f"the database answers; {len(image_ids)} images, {len(instance_ids)} instances"))
        if inventory is not None:
            result += findings.judge_inventory(inventory, image_ids, instance_ids)
        if settings.oidc is not None:
            concerned = await store.users.list_concerned()
            result.append(findings.judge_checks(concerned, settings.clean_interval, datetime.now(UTC)))
    except errors.DraupnirError as error:
        result.append(bad("metadata", error.detail, ""))
    finally:
        await store.close()
    return result


def _examine_health() -> Finding:
    connection = http.client.HTTPConnection(API_HOST, API_PORT, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("GET", "/health_check")
        response = connection.getresponse()
        body = json.loads(response.read())
        return findings.judge_health(response.status, body.get("parts", {}))
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = f"http://{API_HOST}:{API_PORT}/health_check does not answer ({error})"
        return bad("daemon", text, "see `systemctl status draupnir.socket draupnir` and `journalctl -u draupnir`")
    finally:
        connection.close()


def _examine_sshd() -> Finding:
    active = _run("systemctl", "is-active", "ssh.service", "ssh.socket", "sshd.service")
    running = active is not None and "active" in active.stdout.split()
    sshd = _run("sshd", "-T", "-C", "user=upload,host=localhost,addr=127.0.0.1")
    if sshd is not None and not running:
        # A stopped sshd also lacks its directory in /run, so `sshd -T` would fail.
        return findings.judge_sshd(running, sshd.stdout)
    if sshd is None or sshd.returncode != 0:
        why = "sshd is not installed" if sshd is None else f"sshd refuses its configuration: {sshd.stderr.strip()}"
        return bad("uploads", why, "install openssh-server, and fix the errors that `sshd -t` reports")
    return findings.judge_sshd(running, sshd.stdout)


def _examine_upload_keys() -> Finding:
    try:
        return findings.judge_upload_keys(len(upload_keys.read_all(upload_keys.PATH)))
    except upload_keys.UploadKeyError as error:
        return bad("upload keys", str(error), "then check the keys with `draupnir upload-key list`")


def _examine_certificate(settings: Settings) -> list[Finding]:
    http = settings.http
    if http.listen_address is None or http.tls_certificate is None:
        return []
    try:
        with _acting_as(DAEMON_USER):
            tls.load(http)
            pem = http.tls_certificate.read_bytes()
    except (tls.CertificateError, OSError) as error:
        return [bad("api certificate", str(error), "then run `systemctl reload-or-restart draupnir`")]
    except KeyError:
        return []  # another finding reports that the daemon's user does not exist
    served = _served_certificate(http.listen_address)
    return [findings.judge_certificate(http.tls_certificate, pem, served, settings.public_hostname, datetime.now(UTC))]


def _served_certificate(listen_address: str) -> str | None:
    """Return the certificate that the HTTPS listener presents, as PEM, or None if it does not answer."""
    host, _, port = listen_address.rpartition(":")
    host = {"": API_HOST, "0.0.0.0": API_HOST, "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    try:
        return ssl.get_server_certificate((host, int(port)), timeout=HTTP_TIMEOUT_S)
    except (OSError, ValueError):
        return None


def _examine_sign_in(settings: Settings) -> list[Finding]:
    """Check the client secret and the identity provider. The encryption key is checked separately."""
    if settings.oidc is None:
        return [ok("sign-in", "sign-in is not configured, so users authenticate with the shared secret only")]
    try:
        secret = client_secret.parse(_read(client_secret.PATH))
        mode = client_secret.PATH.stat().st_mode
    except (client_secret.ClientSecretError, OSError) as error:
        return [bad("sign-in", str(error), "then run `systemctl restart draupnir`")]
    kept = findings.judge_private_file("sign-in", client_secret.PATH, mode)
    return [*([kept] if kept else []), _examine_provider(settings, secret)]


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _examine_provider(settings: Settings, secret: str) -> Finding:
    # Import the HTTP client here, because only sign-in needs it.
    from draupnir.identity import oidc

    assert settings.oidc is not None
    url = settings.oidc.discovery_url
    # The finding below reports errors of the provider.
    oidc.log.disabled = True
    try:
        provider = asyncio.run(oidc.Provider(settings, secret).describe())
    except errors.ProviderUnavailable as error:
        advice = (
            "open that address from this server, and correct discovery_url, or put your own certificate authority into"
            " /usr/local/share/ca-certificates and run `update-ca-certificates`; then run `systemctl restart draupnir`"
        )
        return bad("sign-in", f"the identity provider at {url} is unusable: {error.reason}", advice)
    return ok("sign-in", f"{provider.issuer} answers; it sends browsers back to {settings.redirect_url}")


@contextlib.contextmanager
def _acting_as(user: str) -> Iterator[None]:
    """Act as the user in this block, also for peers of unix sockets. Raises KeyError if the user does not exist."""
    entry = pwd.getpwnam(user)
    own_uid, own_gid, own_groups = os.geteuid(), os.getegid(), os.getgroups()
    os.initgroups(user, entry.pw_gid)
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(own_uid)
        os.setegid(own_gid)
        os.setgroups(own_groups)


def _run(*argv: str) -> subprocess.CompletedProcess[str] | None:
    """Run a command and return its result, or None if the command is not installed or does not end."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env={"PATH": path, "LANG": "C"},
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
