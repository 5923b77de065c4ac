"""What every operation is given: the settings, the metadata, the helper and the tasks under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from draupnir import probes, wake_ups
from draupnir.helper import Helper
from draupnir.identity.encryption import Cipher
from draupnir.models import Credentials
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_helper import wire

if TYPE_CHECKING:
    # Loaded only where an identity provider is configured.
    from draupnir.identity.oidc import Provider


@dataclass(frozen=True, slots=True)
class SignIn:
    """What signing in takes: the identity provider, and what encrypts the refresh tokens it gives."""

    provider: Provider
    cipher: Cipher


@dataclass(slots=True)
class Seen:
    """What was seen last: by the watch over the disk, and by the reconciler."""

    room: wire.Room | None = None
    image_ids: frozenset[int] | None = None
    instance_ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """One daemon's hands; made once by the composition root."""

    settings: Settings
    store: Store
    helper: Helper
    tasks: Tasks
    # The trial boot's sign-in probes: port and credentials in, ImageFailed out. The one thing that needs a live server.
    probe: Callable[[int, Credentials], Awaitable[None]] = field(default_factory=probes.Probes)
    # What wakes an instance, given its port; systemd starts the proxy only for a connection.
    wake: Callable[[int], Awaitable[None]] = wake_ups.wake
    # Set by each claim of an instance from the pool.
    vacancies: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Seen = field(default_factory=Seen)
    # What encrypts the authority keys of instances; None where its key is missing.
    cipher: Cipher | None = None
    # None where the operator has configured no identity provider.
    sign_in: SignIn | None = None
