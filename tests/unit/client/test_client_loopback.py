"""Laws of the listener for the browser's code: one request, of one form, and a fixed answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from draupnir_client.loopback import Arrival, Listener

CODE = "a-one-time-code-of-ours"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listening:
        yield listening


def raw(listener: Listener, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection:
        connection.sendall(request.encode().replace(b"HOST", f"Host: 127.0.0.1:{listener.port}".encode()))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def taken(listener: Listener, *, signed_in: bool = True, query: str = f"code={CODE}") -> tuple[Arrival, httpx.Response]:
    """Return the arrival of a request, and the browser's answer."""
    answers: list[httpx.Response] = []
    url = f"http://127.0.0.1:{listener.port}/?{query}"
    browser = threading.Thread(target=lambda: answers.append(httpx.get(url, trust_env=False, timeout=10)))
    browser.start()
    arrival = listener.wait(10)
    assert arrival is not None
    arrival.answer(signed_in=signed_in)
    browser.join()
    return arrival, answers[0]


def test_a_code_arrives_and_the_page_says_so_when_it_was_good(listener: Listener) -> None:
    arrival, answer = taken(listener)
    assert (arrival.code, arrival.error, answer.status_code) == (CODE, None, 200)
    assert "You are signed in; you can close this tab." in answer.text


def test_an_error_arrives_and_the_page_says_so(listener: Listener) -> None:
    arrival, answer = taken(listener, signed_in=False, query="error=sign_in_refused")
    assert (arrival.code, arrival.error) == (None, "sign_in_refused")
    assert "not signed in" in answer.text


def test_the_page_runs_and_loads_nothing_and_repeats_nothing(listener: Listener) -> None:
    _, answer = taken(listener)
    assert CODE not in answer.text + str(answer.headers)
    assert not {"script", "src=", "href="} & set(answer.text.lower().split())
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    wanted = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
    assert wanted.items() <= dict(answer.headers).items()
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /favicon.ico HTTP/1.1\r\nHOST\r\n\r\n",
        "GET / HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET /other?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET //evil.tld/?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET http://evil.tld/?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET /?code={CODE}&error=x HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET /?code={CODE}&code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        "GET /?code= HTTP/1.1\r\nHOST\r\n\r\n",
        "GET /?code=%1b%5b31m%1b%5b31m%1b%5b31m HTTP/1.1\r\nHOST\r\n\r\n",
        "GET /?error=Call+this+number HTTP/1.1\r\nHOST\r\n\r\n",
        f"GET /?code={CODE} HTTP/1.1\r\nHost: evil.tld\r\n\r\n",
        f"GET /?code={CODE} HTTP/1.1\r\n\r\n",
        f"POST /?code={CODE} HTTP/1.1\r\nHOST\r\nContent-Length: 0\r\n\r\n",
        f"HEAD /?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        f"OPTIONS /?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
)
def test_a_stray_request_is_not_found_and_does_not_end_the_wait(listener: Listener, request_text: str) -> None:
    # The last one counts as HTTP/0.9, which has no status line.
    assert raw(listener, request_text)[:12] == (b"" if request_text.startswith("nonsense") else b"HTTP/1.0 404")
    assert taken(listener)[0].code == CODE


def test_a_second_code_is_not_taken(listener: Listener) -> None:
    taken(listener)
    assert b"404" in raw(listener, f"GET /?code={CODE} HTTP/1.1\r\nHOST\r\n\r\n").splitlines()[0]
    assert listener.wait(0) is None


def test_a_silent_connection_does_not_block_the_browser(listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.port)):
        assert taken(listener)[0].code == CODE


def test_the_listener_accepts_only_this_machine_and_only_while_needed() -> None:
    with Listener() as listener:
        assert listener._server.server_address[0] == "127.0.0.1"
        assert listener.wait(0) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port))
