"""The stories of people who once signed in: whether their company still vouches for them."""

from __future__ import annotations

import logging

from draupnir.encryption import CannotDecrypt
from draupnir.models import Standing, User
from draupnir.operations.context import Context
from draupnir.settings import DISCOVERY_PATH

log = logging.getLogger(__name__)


async def check(context: Context, user: User) -> Standing:
    """Ask the identity provider about somebody: REVOKED only on its definite word, UNKNOWN on anything unclear.

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
        log.warning("the refresh token of %s is encrypted under another key; they have to sign in anew", user.email)
        return Standing.UNKNOWN
    standing, renewed = await context.sign_in.provider.check_refresh_token(refresh_token)
    if standing is Standing.VALID:
        unchanged = renewed == refresh_token
        encrypted = user.refresh_token if unchanged else context.sign_in.cipher.encrypt(renewed, user.email)
        await context.store.users.note_valid(user, encrypted)
    if standing is Standing.REVOKED and await context.store.users.get(user.email) != user:
        # They have signed in again meanwhile, and the token that was refused is not theirs any more.
        return Standing.UNKNOWN
    return standing
