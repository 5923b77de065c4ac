"""Laws of the API as a public service: slow clients, renewed certificates and secrets."""

from __future__ import annotations

import concurrent.futures
import secrets
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from tests.odd_requests import ODD
from tests.served import answer, everything
from tests.system.faults import DAEMON, await_healthy, await_that, main_pid
from tests.system.https import PORT, TLS, Certbot, connect, https, shown
from tests.system.service import SECRET, URL, Service, run
from tests.system.slow_clients import KINDS, slow_clients

HEALTH = f"{URL}/health_check"
ASK_HEALTH = b"GET /health_check HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def certbot(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certbot]:
    with https(tmp_path_factory.mktemp("live")) as certbot:
        await_healthy(service)
        yield certbot


@pytest.fixture
def trusted(certbot: Certbot) -> httpx.Client:
    """Provide an HTTPS client that trusts the current certificate."""
    context = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
    return httpx.Client(base_url=f"https://localhost:{PORT}", verify=context, timeout=300)


def said(words: str, since: str) -> bool:
    return words in run("journalctl", "-u", DAEMON, "-o", "cat", "--since", since).stdout


def test_five_hundred_slow_clients_do_not_delay_others(service: Service, trusted: httpx.Client) -> None:
    with slow_clients(500) as (shed, connected):
        await_that(lambda: sum(connected.values()) >= 500, "all are connected")
        # Each kind has to be disconnected, while others are served on both listeners.
        deadline = time.monotonic() + 120
        while set(KINDS) - set(shed):
            assert time.monotonic() < deadline, f"not let go: {set(KINDS) - set(shed)}"
            assert httpx.get(HEALTH, timeout=300).status_code == 200
            assert trusted.get("/health_check").status_code == 200
            assert service.ask("GET", "/images").status_code == 200
    trusted.close()
    await_healthy(service)


@contextmanager
def addresses(*hosts: str) -> Iterator[None]:
    """Give the machine these non-loopback addresses during the block, to connect to itself."""
    with ExitStack() as stack:
        for host in hosts:
            run("ip", "address", "add", f"{host}/32", "dev", "lo")
            stack.callback(run, "ip", "address", "del", f"{host}/32", "dev", "lo")
        yield


def test_a_client_with_too_many_connections_loses_its_own_and_excludes_nobody(certbot: Certbot) -> None:
    one, other = "198.51.100.1", "198.51.100.2"
    with addresses(one, other), ExitStack() as stack:

        def reach(host: str) -> socket.socket:
            return stack.enter_context(socket.create_connection((host, PORT), 30, source_address=(host, 0)))

        first = reach(other)
        silent = [reach(one) for _ in range(300)]
        for lost in silent[:44]:
            assert everything(lost) == b""
        context = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
        for kept in (first, silent[44], silent[-1]):
            with context.wrap_socket(kept, server_hostname="localhost") as connection:
                connection.sendall(ASK_HEALTH)
                assert answer(connection)[0] == 200


def test_a_renewed_certificate_is_loaded_without_closing_connections(certbot: Certbot) -> None:
    before, pid = shown(), main_pid(DAEMON)
    over, outcomes = threading.Event(), Counter[str]()

    def come_again_and_again() -> None:
        while not over.is_set():
            with connect() as connection:
                connection.sendall(ASK_HEALTH)
                outcomes[str(answer(connection)[0])] += 1

    with connect() as idle, connect() as slow, concurrent.futures.ThreadPoolExecutor(4) as crowd:
        idle.sendall(ASK_HEALTH)
        assert answer(idle)[0] == 200
        token = SECRET.read_text().strip()
        slow.sendall(
            b"POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAuthorization: Bearer %b\r\n\r\n"
            % token.encode()
        )
        slow.sendall(b"{")
        coming = [crowd.submit(come_again_and_again) for _ in range(4)]
        try:
            await_that(lambda: outcomes["200"] > 20, "they are served")
            renewed = certbot.renew()
            assert shown() == renewed != before
            served = outcomes["200"]
            await_that(lambda: outcomes["200"] > served + 20, "they still are")
        finally:
            over.set()
        for each in coming:
            each.result()
        assert set(outcomes) == {"200"}
        idle.sendall(ASK_HEALTH)
        assert answer(idle)[0] == 200
        slow.sendall(b"}")
        assert answer(slow)[0] == 400  # an empty document, read to its end
    assert main_pid(DAEMON) == pid


def test_a_broken_pair_is_refused_in_the_journal_and_the_old_one_continues(certbot: Certbot) -> None:
    before, since = shown(), f"@{time.time():.6f}"
    kept = (certbot.folder / "privkey.pem").read_bytes()
    certbot.renew(deploy=False)
    right = (certbot.folder / "privkey.pem").read_bytes()
    (certbot.folder / "privkey.pem").write_bytes(kept)
    certbot.deploy()
    await_that(lambda: said("The old certificate stays in use", since), "it is refused")
    assert shown() == before
    done = run("draupnir", "doctor", ok=False)
    assert done.returncode == 1
    assert "✗ api certificate:" in done.stdout
    (certbot.folder / "privkey.pem").write_bytes(right)
    certbot.deploy()
    assert shown() != before
    assert "✗" not in run("draupnir", "doctor").stdout


def test_doctor_reports_a_renewed_certificate_that_was_not_loaded(certbot: Certbot) -> None:
    certbot.renew(deploy=False)
    (TLS / "certificate.pem").write_bytes((certbot.folder / "fullchain.pem").read_bytes())
    (TLS / "key.pem").write_bytes((certbot.folder / "privkey.pem").read_bytes())
    done = run("draupnir", "doctor", ok=False)
    assert done.returncode == 1
    assert "systemctl reload draupnir" in done.stdout
    run("systemctl", "reload", DAEMON)
    assert "✗" not in run("draupnir", "doctor").stdout


def test_over_a_restart_https_refuses_nobody(certbot: Certbot, service: Service) -> None:
    over, outcomes = threading.Event(), Counter[str]()

    def come_again_and_again() -> None:
        while not over.is_set():
            with connect() as connection:
                connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                outcomes[str(answer(connection)[0])] += 1

    with concurrent.futures.ThreadPoolExecutor(4) as crowd:
        coming = [crowd.submit(come_again_and_again) for _ in range(4)]
        try:
            for _ in range(3):
                served = outcomes["404"]
                run("systemctl", "restart", DAEMON)
                await_that(lambda served=served: outcomes["404"] > served + 20, "they are served")  # type: ignore[misc]
        finally:
            over.set()
        for each in coming:
            each.result()
    assert set(outcomes) == {"404"}
    await_healthy(service)


@pytest.mark.parametrize("case", ODD)
def test_odd_requests_are_answered_without_unexpected_errors(certbot: Certbot, case: str) -> None:
    since = f"@{time.time():.6f}"
    request, _ = ODD[case]
    for connection in (socket.create_connection(("127.0.0.1", 8432), 30), connect()):
        with connection:
            with suppress(ConnectionError, ssl.SSLEOFError):  # TLS has no way to be closed on one side only
                connection.sendall(request)
            received = everything(connection)
        assert received.startswith(b"HTTP/1.1 4"), received
        assert received.count(b"HTTP/1.1 ") == 1, received
    run("journalctl", "--sync")
    assert run("journalctl", "-q", "-u", DAEMON, "-p", "warning", "-o", "cat", "--since", since).stdout == ""


def test_no_secret_that_is_sent_is_found_in_an_answer_or_in_the_journal(trusted: httpx.Client) -> None:
    canary = "canary" + secrets.token_hex(16)
    since = f"@{time.time():.6f}"
    bodies = [
        f'{{"data": {{"attributes": {{"token": "{canary}", "backed_up_at": 5}}}}}}',
        f'{{"token": "{canary}"',
        f'"{canary}"',
        canary,
    ]
    headers = [
        f"Bearer {canary}",
        f"Basic {canary}",
        canary,
        f"Bearer {canary} {canary}",
        f"bearer\t{canary}",
        f"Digest x={canary}",
    ]
    paths = [f"/images?token={canary}", f"/oauth_callback?code={canary}&state={canary}&error={canary}", f"/x?{canary}"]
    right = f"Bearer {SECRET.read_text().strip()}"
    with httpx.Client(base_url=URL) as plain, trusted:
        for client in (plain, trusted):
            answers = [client.get("/images", headers={"Authorization": each}) for each in headers]
            answers += [client.request(method, each) for each in paths for method in ("GET", "POST", "DELETE")]
            answers += [
                client.post("/images", content=each, headers={"Authorization": authorization})
                for each in bodies
                for authorization in (right, f"Bearer {canary}")
            ]
            for each in answers:
                assert 400 <= each.status_code < 500, each.text
                assert canary not in each.text + str(each.headers), each.text
    with socket.create_connection(("127.0.0.1", 8432), 30) as odd:
        odd.sendall(f"GET / HTTP/1.1\r\nAuthorization: Bearer {canary}\r\nAuthorization {canary}\r\n\r\n".encode())
        received = everything(odd)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert canary.encode() not in received
    run("journalctl", "--sync")
    assert canary not in run("journalctl", "-a", "-o", "export", "--since", since).stdout
