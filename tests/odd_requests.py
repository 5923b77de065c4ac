"""Unusual requests: ambiguous, malformed, oversized or rare."""

from __future__ import annotations

END = b"\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x"
POST = b"POST /echo HTTP/1.1\r\nHost: x"
CHUNKED = b"\r\nTransfer-Encoding: chunked"
CLOSE = b"\r\nConnection: close"
ODD = {
    "both lengths": (POST + b"\r\nContent-Length: 5" + CHUNKED + END + b"0" + END, 400),
    "chunked in 1.0": (b"POST /echo HTTP/1.0" + CHUNKED + END + b"0" + END, 400),
    "two lengths": (POST + b"\r\nContent-Length: 5\r\nContent-Length: 6" + END + b"hello", 400),
    "list of lengths": (POST + b"\r\nContent-Length: 5, 6" + END + b"hello", 400),
    "signed length": (POST + b"\r\nContent-Length: +5" + END + b"hello", 400),
    "huge length": (POST + b"\r\nContent-Length: " + b"9" * 5000 + END, 400),
    "unknown encoding": (POST + b"\r\nTransfer-Encoding: gzip" + END, 400),
    "encoded twice": (POST + b"\r\nTransfer-Encoding: chunked, chunked" + END, 400),
    "disguised encoding": (POST + b"\r\nTransfer-Encoding: xchunked" + END, 400),
    "space before the colon": (GET + b"\r\nContent-Length : 5" + END + b"hello", 400),
    "no chunk size": (POST + CHUNKED + END + b"zz\r\n", 400),
    "chunk of another length": (POST + CHUNKED + END + b"1\r\nabcd\r\n", 400),
    "no host": (b"GET / HTTP/1.1" + END, 400),
    "two hosts": (GET + b"\r\nHost: y" + END, 400),
    "no version": (b"GET /" + END, 400),
    "TLS to HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "NUL in a header": (GET + b"\r\nA: b\0c" + END, 400),
    "bare CR in a header": (GET + b"\r\nA: b\rC: d" + END, 400),
    "not ASCII in the path": ("GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
    "very long method": (b"A" * 5000 + b" / HTTP/1.1\r\nHost: x" + CLOSE + END, 405),
    "header too long": (GET + b"\r\nA: " + b"b" * 1_000_000 + END, 431),
    "header too long, in one piece": (GET + b"\r\nA: " + b"b" * 16_384 + END, 431),
    "path too long, in one piece": (b"GET /" + b"a" * 16_384 + b" HTTP/1.1\r\nHost: x" + END, 431),
    "many headers too long, in one piece": (GET + b"\r\nA: b" * 3_000 + END, 431),
    "path too long": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x" + END, 431),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\nConnection: close\n\n", 200),
    "absolute URI": (b"GET http://evil.example/ HTTP/1.1\r\nHost: x" + CLOSE + END, 404),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: x" + CLOSE + END, 404),
    "authority": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x" + CLOSE + END, 404),
    "broken escapes": (b"GET /%ff%00%2e%2e/%zz HTTP/1.1\r\nHost: x" + CLOSE + END, 404),
    "HTTP/1.0": (b"GET / HTTP/1.0" + END, 200),
    "HTTP/2": (b"PRI * HTTP/2.0" + END, 404),
    "websocket": (GET + b"\r\nConnection: close, upgrade\r\nUpgrade: websocket" + END, 200),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: x" + CLOSE + END, 200),
    "HEAD of nothing": (b"HEAD /nowhere HTTP/1.1\r\nHost: x" + CLOSE + END, 404),
    "DELETE": (b"DELETE / HTTP/1.1\r\nHost: x" + CLOSE + END, 405),
    "OPTIONS": (b"OPTIONS / HTTP/1.1\r\nHost: x" + CLOSE + END, 405),
    "GET with a body": (GET + CLOSE + b"\r\nContent-Length: 5" + END + b"hello", 200),
}
"""Requests, and the answer that each has to get before the connection closes, for a server with / and /echo."""
