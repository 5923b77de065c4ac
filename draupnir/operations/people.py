"""The stories of people who once signed in: whether their company still vouches for them."""

from __future__ import annotations

import logging

from draupnir import audit
from draupnir.callers import Standing, User
from draupnir.identity.encryption import CannotDecrypt
from draupnir.operations.context import Context
from draupnir.settings import DISCOVERY_PATH

log = logging.getLogger(__name__)


async def check(context: Context, user: User) -> Standing:
    """Ask the identity provider about somebody: REVOKED only on its definite word, and only if that can be theirs.

    A provider that renews refresh tokens refuses the old one, also when the new one was lost on its way here. So it is
    written down before asking that one may be under way; a refusal after one that may have been lost is UNCLEAR, and
    they have to sign in again. It counts once they have not done so for as long as a closed instance is kept.
    Raises MetadataUnavailable.
    """
    if context.sign_in is None or context.settings.oidc is None:
        return Standing.UNKNOWN
    if context.settings.oidc.discovery_url != f"{user.issuer.rstrip('/')}{DISCOVERY_PATH}":
        # Nor is a refresh token to be shown to anybody but who gave it.
        log.warning("%s signed in with another identity provider than the configured one", user.email)
        return Standing.UNKNOWN
    try:
        refresh_token = context.sign_in.cipher.decrypt(user.refresh_token, user.email)
    except CannotDecrypt:
        log.warning("the refresh token of %s is encrypted under another key; they have to sign in again", user.email)
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
        # They have signed in again since, and the refused token is no longer theirs.
        return Standing.UNKNOWN
    if not user.unsettled or (user.refused_s or 0) >= context.settings.grace_period.total_seconds():
        return Standing.REVOKED
    if await context.store.users.doubt(user):
        with audit.for_reason(f"renewal_lost:{user.email}"):
            audit.record_work(audit.origin.get(), f"end sessions of {user.email}", None)
    return Standing.UNCLEAR
