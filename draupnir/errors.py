"""The errors of the service, as exceptions with a stable code and a sentence; independent of HTTP.

DraupnirError
├── InvalidRequest          the request is invalid
├── Unauthorized            the caller is not authenticated
│   └── SignInRefused
├── Forbidden               the caller may not do this
├── NotFound                does not exist, or belongs to another user
│   └── SignInGone
├── WrongState              exists, but in the wrong state
│   ├── NothingUploaded
│   └── TokenNameTaken
├── Impossible              valid, but not possible
│   ├── ImageNotReady  ImageHasInstances  NoFreePort  NoFreeId  DirectRefused  PostgresMissing  OwnerUnknown
│   ├── CeilingTooHigh  RoleRefused  SettingRefused  ResidueNotAllowed
│   ├── SignInNotConfigured  NotASession  AllowListsOff  TooManyAddresses  FilterMissing
│   └── ImageFailed         carries the code of what failed
├── TooManyRequests         rate limit
├── TooManyInstances        the owner has reached the limit
├── TooManyTokens           likewise
├── NoRoom                  the disk is full
└── Unavailable             a part of the service does not answer
    ├── HelperUnavailable  MetadataUnavailable  StorageMissing  ProviderUnavailable
    └── EncryptionKeyMissing
"""

from __future__ import annotations


class DraupnirError(Exception):
    """An error for people: `code` is stable, `title` names the kind, `detail` says what happened and what to do."""

    code = "internal"
    title = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(DraupnirError):
    """The request is invalid; the detail names the attribute."""

    code = "invalid_request"
    title = "Invalid request"


class Unauthorized(DraupnirError):
    """The token is missing or unknown."""

    code = "unauthorized"
    title = "Unauthorized"


class SignInRefused(Unauthorized):
    """The provider does not confirm the user, or the code is wrong; the detail is for the journal."""

    code = "sign_in_refused"
    title = "Sign-in refused"


class Forbidden(DraupnirError):
    """The caller's role or token does not allow this."""

    code = "forbidden"
    title = "Forbidden"


class NotFound(DraupnirError):
    """The thing does not exist, or belongs to another user."""

    code = "not_found"
    title = "Not found"


class SignInGone(NotFound):
    """The sign-in was used, has expired, or belongs to another browser."""

    code = "sign_in_gone"
    title = "Sign-in gone"


class WrongState(DraupnirError):
    """The state of the resource does not allow this."""

    code = "wrong_state"
    title = "Wrong state"


class NothingUploaded(WrongState):
    """The image cannot be finalised, because nothing was uploaded."""

    code = "nothing_uploaded"
    title = "Nothing uploaded"


class TokenNameTaken(WrongState):
    """The owner already has a token of that name."""

    code = "token_name_taken"
    title = "Token name taken"


class Impossible(DraupnirError):
    """The request is valid, but not possible."""

    code = "impossible"
    title = "Not possible"


class ImageNotReady(Impossible):
    """The image of a requested instance is not ready."""

    code = "image_not_ready"
    title = "Image not ready"


class ImageHasInstances(Impossible):
    """The image still has instances."""

    code = "image_has_instances"
    title = "Image has instances"


class NoFreePort(Impossible):
    """Every port of the configured range is in use."""

    code = "no_free_port"
    title = "No free port"


class NoFreeId(Impossible):
    """Every id is in use, in the metadata or on the data disk."""

    code = "no_free_id"
    title = "No free id"


class DirectRefused(Impossible):
    """The operator has not allowed direct instances."""

    code = "direct_refused"
    title = "Direct instances not allowed"


class RoleRefused(Impossible):
    """Nobody can sign in as that role: a superuser, or a reserved or impossible name."""

    code = "role_refused"
    title = "Role refused"


class CeilingTooHigh(Impossible):
    """The requested ceiling is above the operator's maximum."""

    code = "ceiling_too_high"
    title = "Ceiling too high"


class SettingRefused(Impossible):
    """The operator does not allow the setting of Postgres."""

    code = "setting_refused"
    title = "Setting not allowed"


class ResidueNotAllowed(Impossible):
    """The operator does not allow images that keep removed values in their files."""

    code = "residue_not_allowed"
    title = "Residue not allowed"


class OwnerUnknown(Impossible):
    """The new owner has never signed in, or was revoked."""

    code = "owner_unknown"
    title = "Owner unknown"


class AllowListsOff(Impossible):
    """The operator has not enabled allowlists."""

    code = "allow_lists_off"
    title = "No allow-lists"


class TooManyAddresses(Impossible):
    """The allowlist of the instance is full."""

    code = "too_many_addresses"
    title = "Too many addresses"


class FilterMissing(Impossible):
    """The machine cannot filter addresses."""

    code = "filter_missing"
    title = "No address filter"


class PostgresMissing(Impossible):
    """The image needs a Postgres major that is not installed on the server."""

    code = "postgres_missing"
    title = "Postgres not installed"


class SignInNotConfigured(Impossible):
    """No identity provider is configured."""

    code = "sign_in_not_configured"
    title = "Sign-in not configured"


class NotASession(Impossible):
    """The shared secret is not a session, so it cannot be signed out."""

    code = "not_a_session"
    title = "Not a session"


FAILURE_CODES = frozenset(
    {
        *("backup_damaged", "cleaning_failed", "damaged_archive", "incremental_backup", "internal", "job_failed"),
        *("canary_found", "residue_found", "value_kept"),
        *("job_killed", "manifest_mismatch", "preflight_failed", "wal_missing"),
        *("no_data_directory", "no_room", "no_superuser", "not_an_archive", "postgres_missing", "ratio_exceeded"),
        *("recovery_failed", "role_conflict", "script_failed", "setting_refused", "several_archives", "tablespaces"),
        *("residue_not_allowed", "tampered_catalogs"),
        *("timed_out", "trial_failed", "truncated_archive", "unclean_stop", "unsafe_archive"),
    }
)
"""The codes of a failed image: those that the jobs report, and those of the finalise itself."""


class ImageFailed(Impossible):
    """Finalising failed; `code` is the code of the failure."""

    title = "Image failed"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class TooManyRequests(DraupnirError):
    """The client's network has sent too many requests; the next is allowed after `retry_after_s`."""

    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many attempts from your address; wait {retry_after_s} s before the next one.")
        self.retry_after_s = retry_after_s


class TooManyInstances(DraupnirError):
    """The owner has reached the limit of instances for one user."""

    code = "too_many_instances"
    title = "Too many instances"


class TooManyTokens(DraupnirError):
    """The owner has reached the limit of named tokens for one user."""

    code = "too_many_tokens"
    title = "Too many tokens"


class NoRoom(DraupnirError):
    """The disk is full."""

    code = "no_room"
    title = "No room"


class Unavailable(DraupnirError):
    """A part of the service does not answer."""

    code = "unavailable"
    title = "Not available"


class HelperUnavailable(Unavailable):
    """The helper does not answer, or its answer violates the contract."""

    code = "helper_unavailable"
    title = "Helper not available"


class MetadataUnavailable(Unavailable):
    """The metadata database does not answer."""

    code = "metadata_unavailable"
    title = "Metadata not available"


class StorageMissing(Unavailable):
    """The data filesystem is not mounted, or has wrong mount options."""

    code = "storage_missing"
    title = "Storage missing"


class EncryptionKeyMissing(Unavailable):
    """The key that encrypts the keys of instances is missing, or is not the one used for encryption."""

    code = "encryption_key_missing"
    title = "Encryption key missing"


class ProviderUnavailable(Unavailable):
    """The identity provider does not answer, or violates OpenID Connect; `reason` is for the operator."""

    code = "provider_unavailable"
    title = "Identity provider not available"

    def __init__(self, reason: str) -> None:
        super().__init__("The identity provider does not answer as it should; try again in a moment.")
        self.reason = reason
