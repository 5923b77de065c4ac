"""Everything that can go wrong for a person, as exceptions with a stable code and a sentence; knows no HTTP.

DraupnirError
├── InvalidRequest          the caller sent something that cannot be meant
├── Unauthorized            who are you
│   └── SignInRefused
├── Forbidden               not yours to do
├── NotFound                not there, or not yours
│   └── SignInGone
├── WrongState              there, but not in a state for this
│   ├── NothingUploaded
│   └── TokenNameTaken
├── Impossible              understood, and not possible as asked
│   ├── ImageNotReady  ImageHasInstances  NoFreePort  NoFreeId  DirectRefused  PostgresMissing  OwnerUnknown
│   ├── CeilingTooHigh
│   ├── SignInNotConfigured  NotASession  AllowListsOff  TooManyAddresses  FilterMissing
│   └── ImageFailed         carries the code of what failed
├── TooManyRequests         slow down
├── TooManyInstances        the owner has as many as one may have
├── TooManyTokens           likewise
├── NoRoom                  the disk is full
└── Unavailable             not now: a part of the service is away
    ├── HelperUnavailable  MetadataUnavailable  StorageMissing  ProviderUnavailable
    └── EncryptionKeyMissing
"""

from __future__ import annotations


class DraupnirError(Exception):
    """An error for people: its `code` is stable, its `title` names the kind, its `detail` says what happened."""

    code = "internal"
    title = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(DraupnirError):
    """The request cannot be meant as it stands; the detail names the attribute."""

    code = "invalid_request"
    title = "Invalid request"


class Unauthorized(DraupnirError):
    """No token, or one that nobody has been given."""

    code = "unauthorized"
    title = "Unauthorized"


class SignInRefused(Unauthorized):
    """The provider does not confirm the user, or the code is wrong; the detail is for the journal."""

    code = "sign_in_refused"
    title = "Sign-in refused"


class Forbidden(DraupnirError):
    """The caller is known, and this is not for its role or its token to do."""

    code = "forbidden"
    title = "Forbidden"


class NotFound(DraupnirError):
    """The thing does not exist, or belongs to another user."""

    code = "not_found"
    title = "Not found"


class SignInGone(NotFound):
    """The sign-in was used, has expired, or is another browser's."""

    code = "sign_in_gone"
    title = "Sign-in gone"


class WrongState(DraupnirError):
    """The thing is not in a state in which this can be done."""

    code = "wrong_state"
    title = "Wrong state"


class NothingUploaded(WrongState):
    """The image was to be finalised before anything had been uploaded."""

    code = "nothing_uploaded"
    title = "Nothing uploaded"


class TokenNameTaken(WrongState):
    """The owner has a token of that name."""

    code = "token_name_taken"
    title = "Token name taken"


class Impossible(DraupnirError):
    """Understood, and not possible as asked."""

    code = "impossible"
    title = "Not possible"


class ImageNotReady(Impossible):
    """An instance was asked of an image that is not ready."""

    code = "image_not_ready"
    title = "Image not ready"


class ImageHasInstances(Impossible):
    """The image still has instances."""

    code = "image_has_instances"
    title = "Image has instances"


class NoFreePort(Impossible):
    """Every port of the configured range is taken."""

    code = "no_free_port"
    title = "No free port"


class NoFreeId(Impossible):
    """Every id is taken, by the metadata or by what lies on the data disk."""

    code = "no_free_id"
    title = "No free id"


class DirectRefused(Impossible):
    """The operator has not allowed instances without the network wall."""

    code = "direct_refused"
    title = "Direct instances not allowed"


class CeilingTooHigh(Impossible):
    """An instance was to be allowed to write more than the operator allows."""

    code = "ceiling_too_high"
    title = "Ceiling too high"


class OwnerUnknown(Impossible):
    """The new owner has never signed in, or was revoked."""

    code = "owner_unknown"
    title = "Owner unknown"


class AllowListsOff(Impossible):
    """The operator has not turned allow-lists of addresses on."""

    code = "allow_lists_off"
    title = "No allow-lists"


class TooManyAddresses(Impossible):
    """The instance has as many addresses as it may."""

    code = "too_many_addresses"
    title = "Too many addresses"


class FilterMissing(Impossible):
    """The machine cannot hold addresses off a port."""

    code = "filter_missing"
    title = "No address filter"


class PostgresMissing(Impossible):
    """The image needs a Postgres major that is not installed on the server."""

    code = "postgres_missing"
    title = "Postgres not installed"


class SignInNotConfigured(Impossible):
    """The operator has configured no identity provider."""

    code = "sign_in_not_configured"
    title = "Sign-in not configured"


class NotASession(Impossible):
    """The shared secret is not given out by signing in, so it cannot be given back."""

    code = "not_a_session"
    title = "Not a session"


FAILURE_CODES = frozenset(
    {
        *("cleaning_failed", "damaged_archive", "internal", "job_failed", "job_killed", "manifest_mismatch"),
        *("no_data_directory", "no_room", "no_superuser", "not_an_archive", "postgres_missing", "ratio_exceeded"),
        *("recovery_failed", "role_conflict", "script_failed", "several_archives", "tablespaces", "tampered_catalogs"),
        *("timed_out", "trial_failed", "truncated_archive", "unclean_stop", "unsafe_archive"),
    }
)
"""Why an image may fail: the codes that the jobs report, and those of the finalise itself."""


class ImageFailed(Impossible):
    """Finalising failed; `code` is that of the failure."""

    title = "Image failed"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class TooManyRequests(DraupnirError):
    """The network of the client has tried too often; `retry_after_s` is when it may again."""

    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many attempts from your address; wait {retry_after_s} s before the next one.")
        self.retry_after_s = retry_after_s


class TooManyInstances(DraupnirError):
    """The owner has as many instances as one user may have."""

    code = "too_many_instances"
    title = "Too many instances"


class TooManyTokens(DraupnirError):
    """The owner has as many named tokens as one user may have."""

    code = "too_many_tokens"
    title = "Too many tokens"


class NoRoom(DraupnirError):
    """The disk is full."""

    code = "no_room"
    title = "No room"


class Unavailable(DraupnirError):
    """A part of the service is away just now."""

    code = "unavailable"
    title = "Not available"


class HelperUnavailable(Unavailable):
    """The helper does not answer, or answers something else than the contract."""

    code = "helper_unavailable"
    title = "Helper not available"


class MetadataUnavailable(Unavailable):
    """The metadata database does not answer."""

    code = "metadata_unavailable"
    title = "Metadata not available"


class StorageMissing(Unavailable):
    """The data filesystem is not mounted, or not as it has to be."""

    code = "storage_missing"
    title = "Storage missing"


class EncryptionKeyMissing(Unavailable):
    """The key that protects the keys of instances is missing, or is not the one they were encrypted under."""

    code = "encryption_key_missing"
    title = "Encryption key missing"


class ProviderUnavailable(Unavailable):
    """The identity provider does not answer, or not as OpenID Connect has it; `reason` is for the operator."""

    code = "provider_unavailable"
    title = "Identity provider not available"

    def __init__(self, reason: str) -> None:
        super().__init__("The identity provider does not answer as it should; try again in a moment.")
        self.reason = reason
