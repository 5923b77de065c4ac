"""Laws of connections, on real sockets: every wait for a client has a limit, and invalid requests affect no other."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.odd_requests import ODD
from tests.served import DEADLINE_S, Served, answer, everything, free_port, trusting, write_certificate

HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_HELLO = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Listening:
    """The process under test, over HTTP and over HTTPS."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        write_certificate(folder)
        self.folder, self.port = folder, free_port()
        self.served = Served(folder, "https", str(folder), str(self.port), *arguments)
        self.served.told("READY=1")

    def reach(self, scheme: str) -> socket.socket:
        """Return a new connection, over TLS after the handshake."""
        if scheme == "http":
            return socket.create_connection(self.served.address, DEADLINE_S)
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        return trusting(self.folder).wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """Start the process with time limits of 0.6 seconds, for tests that wait until they are over."""
    listening = Listening(tmp_path_factory.mktemp("impatient"), "impatient")
    yield listening
    listening.served.stop()


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """Start the process with time limits of 2 seconds, for tests that get an answer first, also on a busy machine."""
    listening = Listening(tmp_path_factory.mktemp("unhurried"), "unhurried")
    yield listening
    listening.served.stop()


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """Start the process with more time for a second request to begin, too."""
    listening = Listening(tmp_path_factory.mktemp("keeping"), "keeping")
    yield listening
    listening.served.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    listening = Listening(tmp_path_factory.mktemp("patient"))
    yield listening
    listening.served.stop()


both = pytest.mark.parametrize("scheme", ["http", "https"])


@contextmanager
def dripping(connection: socket.socket, drop: bytes = b"x") -> Iterator[None]:
    """Keep sending small pieces during the block, until the other end closes."""
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not over.wait(0.02):
                connection.sendall(drop)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@both
def test_a_silent_client_is_disconnected_without_an_answer(impatient: Listening, scheme: str) -> None:
    with impatient.reach(scheme) as connection:
        assert everything(connection) == b""


@both
@pytest.mark.parametrize("drips", [False, True])
def test_a_header_that_does_not_end_is_answered_408(impatient: Listening, scheme: str, drips: bool) -> None:
    with impatient.reach(scheme) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with dripping(connection) if drips else nullcontext():
            head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"X-Request-Id: " in head
    assert json.loads(body)["errors"][0]["code"] == "header_too_slow"


@both
@pytest.mark.parametrize("drips", [False, True])
def test_a_second_header_has_no_more_time_than_the_first(keeping: Listening, scheme: str, drips: bool) -> None:
    with keeping.reach(scheme) as connection:
        connection.sendall(HELLO)
        assert answer(connection) == (200, scheme.encode())
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        with dripping(connection) if drips else nullcontext():
            assert everything(connection).startswith(b"HTTP/1.1 408 ")


@both
def test_an_idle_connection_is_closed(keeping: Listening, scheme: str) -> None:
    with keeping.reach(scheme) as connection:
        connection.sendall(HELLO)
        assert answer(connection) == (200, scheme.encode())
        assert everything(connection) == b""


@both
@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_does_not_end_ends_the_connection(impatient: Listening, scheme: str, drips: bool) -> None:
    with impatient.reach(scheme) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        with dripping(connection) if drips else nullcontext():
            assert everything(connection) == b""


@both
def test_the_rest_of_an_unread_body_is_not_awaited(unhurried: Listening, scheme: str) -> None:
    with unhurried.reach(scheme) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert answer(connection)[0] == 404
        with dripping(connection):
            assert everything(connection) == b""


@both
def test_a_body_that_is_too_large_is_refused_after_it_is_sent(patient: Listening, scheme: str) -> None:
    with patient.reach(scheme) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        assert answer(connection)[0] == 404
        connection.sendall(HELLO)
        assert answer(connection) == (200, scheme.encode())


@both
def test_an_unread_answer_has_a_deadline(unhurried: Listening, scheme: str) -> None:
    with unhurried.reach(scheme) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        unhurried.served.told("STATUS=no longer read")
        assert len(everything(connection)) < 100_000_000


@both
def test_an_answer_that_is_read_comes_whole_however_long_it_is(unhurried: Listening, scheme: str) -> None:
    with unhurried.reach(scheme) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(answer(connection)[1]) == 100_000_000


def test_a_handshake_that_does_not_end_ends_the_connection(impatient: Listening) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), DEADLINE_S) as connection:
        connection.sendall(b"\x16\x03\x01")
        assert everything(connection) == b""


def test_plain_http_to_the_https_listener_ends_the_connection(impatient: Listening) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), DEADLINE_S) as connection:
        connection.sendall(HELLO)
        assert b"200" not in everything(connection)


@both
def test_a_client_that_waits_for_the_answer_has_no_time_limit(impatient: Listening, scheme: str) -> None:
    with impatient.reach(scheme) as waiting:
        waiting.sendall(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")
        impatient.served.told("STATUS=at the gate")
        for _ in range(2):
            with impatient.reach(scheme) as silent:
                assert everything(silent) == b""
        with impatient.reach(scheme) as opener:
            opener.sendall(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(opener) == (200, b"opened")
        assert answer(waiting) == (200, b"through")


@both
@pytest.mark.parametrize("case", ODD)
def test_odd_requests_are_answered_correctly_and_smuggle_no_second_request(
    unhurried: Listening, scheme: str, case: str
) -> None:
    request, status = ODD[case]
    with unhurried.reach(scheme) as connection:
        with suppress(ConnectionError, ssl.SSLEOFError):  # TLS cannot be half-closed
            connection.sendall(request)
        received = everything(connection)
    assert received.startswith(b"HTTP/1.1 %d " % status), received
    assert received.count(b"HTTP/1.1 ") == 1, received
    assert b"X-Request-Id: " in received or b"x-request-id: " in received
    with unhurried.reach(scheme) as connection:
        connection.sendall(HELLO)
        assert answer(connection) == (200, scheme.encode())


@both
def test_pipelined_requests_are_answered_in_order(patient: Listening, scheme: str) -> None:
    echo = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    with patient.reach(scheme) as connection:
        connection.sendall(HELLO + echo + LAST_HELLO)
        bodies = [each.partition(b"\r\n\r\n")[2] for each in everything(connection).split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [scheme.encode(), b"hello", scheme.encode()]


@both
def test_garbage_after_a_request_does_not_affect_its_answer(patient: Listening, scheme: str) -> None:
    with patient.reach(scheme) as connection:
        connection.sendall(HELLO + b"\x00\x01\x02\r\n\r\n")
        received = everything(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in received


@both
def test_expect_100_continue_is_answered(patient: Listening, scheme: str) -> None:
    with patient.reach(scheme) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert answer(connection) == (200, b"hello")


@both
def test_an_expectation_without_a_route_gets_404(unhurried: Listening, scheme: str) -> None:
    with unhurried.reach(scheme) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert answer(connection)[0] == 404
        assert everything(connection) == b""


def test_hostile_clients_cause_no_unexpected_error(tmp_path: Path) -> None:
    listening = Listening(tmp_path, "impatient")
    for request, _ in ODD.values():
        for scheme in ("http", "https"):
            with listening.reach(scheme) as connection, suppress(OSError):
                connection.sendall(request)
                everything(connection)
    lines = listening.served.stop().splitlines()
    assert [line for line in lines if not line.startswith("<6>")] == []
    assert all("source=127.0.0.1" in line for line in lines)
