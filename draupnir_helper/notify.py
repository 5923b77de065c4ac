"""Notifies systemd, sd_notify(3); imports only the standard library, because the sandboxed jobs use it, too."""

from __future__ import annotations

import os
import socket


def escape(text: str) -> str:
    """Encode backslashes in the text, because systemd unescapes its input once."""
    return text.replace("%", "%25").replace("\\", "%5C")


def unescape(text: str) -> str:
    """Reverse `escape`, for any text."""
    return text.replace("%5C", "\\").replace("%25", "%")


def notify(**fields: str) -> None:
    """Send NAME=value lines to the service manager; do nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(message.encode(), address)
