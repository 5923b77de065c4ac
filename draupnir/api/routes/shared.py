"""Groups of errors and parameters that several endpoints share."""

from __future__ import annotations

from draupnir import errors
from draupnir.api.endpoints import Errors, Parameter
from draupnir.helper import PortInUse, UnitFailed

# Operations on the disk fail if the helper does not answer, or if the disk is not mounted.
HELPER: Errors = (errors.HelperUnavailable, errors.StorageMissing)
# Operations that start Postgres also fail for a port in use, a failed unit, or a missing encryption key.
START: Errors = (*HELPER, UnitFailed, PortInUse, errors.PostgresMissing, errors.EncryptionKeyMissing)

FLAG = {"type": "boolean", "default": False}
EVERYBODYS = Parameter("all", FLAG, "true")
