"""Checks whether the identity provider still confirms a user."""

from __future__ import annotations

import logging

from draupnir import audit
from draupnir.callers import Standing, User
from draupnir.identity.encryption import CannotDecrypt
from draupnir.operations.context import Context
from draupnir.settings import DISCOVERY_PATH

log = logging.getLogger(__name__)


async def check(context: Context, user: User) -> Standing:
    """Ask the identity provider about a user. Return REVOKED only if it definitely refuses the current token.

    A provider that rotates refresh tokens refuses the old one, even if the new one was lost in transit. So the request
    is recorded before it is sent. A refusal after a possible loss is UNCLEAR, and the user has to sign in again. A user
    who does not do so within the grace period is revoked.
    Raises MetadataUnavailable.
    """
    if context.sign_in is None or context.settings.oidc is None:
        return Standing.UNKNOWN
    if context.settings.oidc.discovery_url != f"{user.issuer.rstrip('/')}{DISCOVERY_PATH}":
        # A refresh token must be sent only to its issuer.
        log.warning("%s signed in with another identity provider than the configured one", user.email)
        return Standing.UNKNOWN
    try:
        refresh_token = context.sign_in.cipher.decrypt(user.refresh_token, user.email)
    except CannotDecrypt:
        log.warning("the refresh token of %s is encrypted under another key; the user has to sign in again", user.email)
        return Standing.UNKNOWN
    settled_so_far = user.rotates is not False and not user.unsettled
    if settled_so_far:
        await context.store.users.note_unsettled(user, True)
    standing, renewed = await context.sign_in.provider.check_refresh_token(refresh_token)
    match standing:
        case Standing.VALID:
            unchanged = renewed == refresh_token
            encrypted = user.refresh_token if unchanged else context.sign_in.cipher.encrypt(renewed, user.email)
            await context.store.users.note_valid(user, encrypted)
        case Standing.UNKNOWN if settled_so_far:
            await context.store.users.note_unsettled(user, False)
        case Standing.REVOKED:
            return await _judge_refusal(context, user)
    return standing


async def _judge_refusal(context: Context, user: User) -> Standing:
    current = await context.store.users.get(user.email)
    if current is None or current.refresh_token != user.refresh_token:
        # The user has signed in again since, so the refused token is not the current one.
        return Standing.UNKNOWN
    if not user.unsettled or (user.refused_s or 0) >= context.settings.grace_period.total_seconds():
        return Standing.REVOKED
    if await context.store.users.doubt(user):
        with audit.for_reason(f"renewal_lost:{user.email}"):
            audit.record_work(audit.origin.get(), f"end sessions of {user.email}", None)
    return Standing.UNCLEAR
