"""Values in the bodies of requests and answers: parsers, formatters and their descriptions."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from draupnir.addresses import Cidr, read_cidr
from draupnir.identity import emails
from draupnir_helper import wire
from draupnir_helper.wire import MIN_MAX_BYTES

EARLIEST_YEAR, LATEST_YEAR = 1970, 2199
LONGEST_SLEEP_AFTER_S = 30 * 24 * 3600
MAX_MAX_BYTES = 2**60 - 1
SHORTEST_ADMISSION_S, LONGEST_ADMISSION_S = 60, 365 * 24 * 3600
# An allowlist restricts access, so a network larger than that of a large provider is refused as a mistake.
WIDEST_V4, WIDEST_V6 = 8, 32

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DECIMAL = re.compile(r"[1-9][0-9]{0,18}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
MAX_CANARIES = 100
_CANARY = re.compile(r"[^\x00-\x1f]{8,200}")


def is_decimal(text: str) -> bool:
    """Return whether the text is a positive integer in canonical form."""
    return _DECIMAL.fullmatch(text) is not None


def read_time(value: object) -> datetime:
    """Parse an RFC 3339 time with a zone, converted to UTC. Raises ValueError."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError('must be a time with its zone, such as "2017-05-01T12:00:00Z"')
    try:
        time = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError(f"must be a time that exists ({error})") from error
    if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
        raise ValueError(f"must be a time of the years {EARLIEST_YEAR} to {LATEST_YEAR}")
    return time.astimezone(UTC)


def read_text(value: object) -> str:
    """Parse a text that Postgres can store. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if found := _UNSTORABLE.search(value):
        raise ValueError(
            f"must not contain the character U+{ord(found.group()):04X}, which is character {found.start()}"
        )
    return value


def read_id(value: object) -> int:
    """Parse a positive integer, also as a decimal string. Raises ValueError."""
    if isinstance(value, str) and is_decimal(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError("must be a positive integer, such as 1")


def read_flag(value: object) -> bool:
    """Parse a boolean. Raises ValueError."""
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def read_seconds(value: object) -> int:
    """Parse whole seconds up to thirty days, 0 for never. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LONGEST_SLEEP_AFTER_S:
        return value
    raise ValueError(f"must be a number of seconds from 0 (never) to {LONGEST_SLEEP_AFTER_S}")


def read_ceiling(value: object) -> int:
    """Parse the ceiling of an instance in bytes; the maximum is checked elsewhere. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and MIN_MAX_BYTES <= value <= MAX_MAX_BYTES:
        return value
    raise ValueError(f"must be a number of bytes, {MIN_MAX_BYTES} or more")


def read_canaries(value: object) -> list[str]:
    """Parse canaries. Raises ValueError, which does not quote them."""
    if not isinstance(value, list) or len(value) > MAX_CANARIES:
        raise ValueError(f"must be a list of at most {MAX_CANARIES} texts")
    for number, each in enumerate(value, 1):
        if not isinstance(each, str) or not _CANARY.fullmatch(each) or re.search("[\ud800-\udfff]", each):
            raise ValueError(f"has an invalid canary, number {number}; write 8 to 200 characters on one line")
    return value


def read_parameters(value: object) -> dict[str, str]:
    """Parse settings of Postgres, name to value. Raises ValueError, which names the first fault."""
    changes = read_parameter_changes(value)
    if removed := [name for name, given in changes.items() if given is None]:
        raise ValueError(f"must give {removed[0]} a value")
    return {name: given for name, given in changes.items() if given is not None}


def read_parameter_changes(value: object) -> dict[str, str | None]:
    """Parse changes of settings; null removes one. Raises ValueError, which names the first fault."""
    if not isinstance(value, dict) or len(value) > len(wire.PARAMETERS):
        raise ValueError('must be an object of settings, such as {"work_mem": "64MB"}')
    changes: dict[str, str | None] = {}
    for name, given in value.items():
        text = _write_parameter(given)
        if name.lower() not in wire.PARAMETERS:
            alike = difflib.get_close_matches(name.lower(), wire.PARAMETERS, n=1)
            advice = f"write {alike[0]}" if alike else "in an instance, use SET or ALTER DATABASE"
            raise ValueError(
                f"has {name[:60]!r}, which cannot be set for an image or an instance; omit it, or {advice}"
            )
        if text is not None and (fault := wire.fault(name.lower(), text)):
            raise ValueError(f"has {name.lower()} = {text[:60]!r}, which {fault}")
        changes[name.lower()] = text
    return changes


def _write_parameter(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return "on" if value else "off"
        case int() | float():
            return str(value)
        case _:
            raise ValueError("must have strings, numbers and booleans as values")


def read_admissible(value: object) -> Cidr:
    """Parse an address or network for an allowlist. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be an address or a network in a string, such as '192.0.2.7' or '192.0.2.0/24'")
    try:
        cidr = read_cidr(value)
    except ValueError as error:
        raise ValueError("must be an address or a network, such as '192.0.2.7' or '192.0.2.0/24'") from error
    if cidr.prefixlen < (WIDEST_V4 if cidr.version == 4 else WIDEST_V6):
        raise ValueError(f"must be no wider than /{WIDEST_V4} (IPv4) or /{WIDEST_V6} (IPv6)")
    return cidr


def read_admission(value: object) -> int:
    """Parse the lifetime of an allowlist entry in seconds. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and SHORTEST_ADMISSION_S <= value <= LONGEST_ADMISSION_S:
        return value
    raise ValueError(f"must be a number of seconds from {SHORTEST_ADMISSION_S} to {LONGEST_ADMISSION_S}")


def read_email_address(value: object) -> str:
    """Parse an e-mail address, converted to lower case. Raises ValueError."""
    if isinstance(value, str) and emails.PATTERN.fullmatch(value):
        return value.lower()
    raise ValueError("must be an e-mail address")


def write_time(time: datetime) -> str:
    """Format a time as `2017-05-01T12:00:00Z`, truncated to whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


TIME = BeforeValidator(
    read_time,
    json_schema_input_type=Annotated[
        str, Field(description=f"RFC 3339 with a zone, of the years {EARLIEST_YEAR} to {LATEST_YEAR}.")
    ],
)
TEXT = BeforeValidator(read_text, json_schema_input_type=str)
FLAG = BeforeValidator(read_flag, json_schema_input_type=bool)
ID = BeforeValidator(
    read_id,
    json_schema_input_type=Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=f"^{_DECIMAL.pattern}$")],
)
SECONDS = BeforeValidator(read_seconds, json_schema_input_type=Annotated[int, Field(ge=0, le=LONGEST_SLEEP_AFTER_S)])
CEILING = BeforeValidator(
    read_ceiling, json_schema_input_type=Annotated[int, Field(ge=MIN_MAX_BYTES, le=MAX_MAX_BYTES)]
)
_SETTING = str | bool | int | float
CANARIES = BeforeValidator(
    read_canaries,
    json_schema_input_type=Annotated[
        list[Annotated[str, Field(min_length=8, max_length=200)]],
        Field(
            max_length=MAX_CANARIES,
            description="Values of the source that no file of the image may contain. They are never returned, and are"
            " deleted when the image is ready.",
        ),
    ],
)
_EXAMPLE = Field(description="Settings of Postgres, such as `work_mem`; the operator guide lists them.")
PARAMETERS = BeforeValidator(read_parameters, json_schema_input_type=Annotated[dict[str, _SETTING], _EXAMPLE])
PARAMETER_CHANGES = BeforeValidator(
    read_parameter_changes, json_schema_input_type=Annotated[dict[str, _SETTING | None], _EXAMPLE]
)
ADMISSIBLE = BeforeValidator(
    read_admissible,
    json_schema_input_type=Annotated[str, Field(description="An IPv4 or IPv6 address, or a network in CIDR notation.")],
)
ADMISSION = BeforeValidator(
    read_admission,
    json_schema_input_type=Annotated[int, Field(ge=SHORTEST_ADMISSION_S, le=LONGEST_ADMISSION_S)],
)
EMAIL = BeforeValidator(read_email_address, json_schema_input_type=str)

WrittenTime = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time in the format of write_time."""
