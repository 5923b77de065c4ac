"""The context of every operation: settings, metadata, helper, and running tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from draupnir import probes, wake_ups
from draupnir.helper import Helper
from draupnir.identity.encryption import Cipher
from draupnir.models import Authority
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_helper import wire

if TYPE_CHECKING:
    # Importing this at run time is necessary only if an identity provider is configured.
    from draupnir.identity.oidc import Provider


@dataclass(frozen=True, slots=True)
class SignIn:
    """Dependencies of sign-in: the identity provider, and the cipher for its refresh tokens."""

    provider: Provider
    cipher: Cipher


@dataclass(slots=True)
class Seen:
    """The last observations of the disk watch and of the reconciler."""

    room: wire.Room | None = None
    image_ids: frozenset[int] | None = None
    instance_ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The dependencies of one daemon, created once by the composition root."""

    settings: Settings
    store: Store
    helper: Helper
    tasks: Tasks
    # Runs the sign-in probes of the trial boot with port, authority and superuser. Raises ImageFailed.
    probe: Callable[[int, Authority, str], Awaitable[None]] = field(default_factory=probes.Probes)
    # Wakes an instance through its port, because systemd starts the proxy only for a connection.
    wake: Callable[[int], Awaitable[None]] = wake_ups.wake
    # A claim of an instance of the pool sets this event.
    vacancies: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Seen = field(default_factory=Seen)
    # Encrypts the authority keys of instances. It is None if its key is missing.
    cipher: Cipher | None = None
    # This is None without a configured identity provider.
    sign_in: SignIn | None = None
