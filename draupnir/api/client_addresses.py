"""The address of the client: the TCP peer, or the address reported by trusted proxies."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import Scope

from draupnir.addresses import Address, read_ip_address
from draupnir.settings import Settings

# Proxies write addresses bare, in brackets, or with a port.
_ELEMENT = re.compile(r"\[(?P<bracketed>[^\]]*)\](:[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}|(?P<bare>.*)", re.DOTALL)


def client_address_of(scope: Scope, settings: Settings) -> Address | None:
    """Return the address of the client, or None if the address of the TCP peer is unknown.

    X-Forwarded-For is read from the right, where the nearest proxy wrote, as long as its writer is trusted. The result
    is the first untrusted address, or else the last valid one.
    """
    address = _peer(scope)
    if address is None or not settings.use_x_forwarded_for:
        return address
    elements = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    while elements and any(address in cidr for cidr in settings.trusted_proxy_cidrs):
        forwarded = _read_element(elements.pop().strip())
        if forwarded is None:
            break
        address = forwarded
    return address


def _peer(scope: Scope) -> Address | None:
    return None if scope.get("client") is None else _read(scope["client"][0])


def _read_element(element: str) -> Address | None:
    match = _ELEMENT.fullmatch(element)
    return None if match is None else _read(match["bracketed"] or match["v4"] or match["bare"] or "")


def _read(text: str) -> Address | None:
    try:
        return read_ip_address(text)
    except ValueError:
        return None
