"""What an e-mail address may look like: one rule for the configuration, for requests and for the identity provider."""

from __future__ import annotations

import re

# The helper accepts no other owner of an instance, see Owner in draupnir_helper/wire/instances.py.
PATTERN = re.compile(r"[A-Za-z0-9._+'-]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)
