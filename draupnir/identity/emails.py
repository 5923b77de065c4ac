"""The syntax of e-mail addresses for the configuration, requests and the identity provider."""

from __future__ import annotations

import re

# The helper accepts only such owners of an instance, see Owner in draupnir_helper/wire/instances.py.
PATTERN = re.compile(r"[A-Za-z0-9._+'-]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)
