"""The settings that an image or an instance may have, each with its group, its type and range, and its first major.

No setting names a path, a library, a command or a host. The helper accepts nothing else, whatever the daemon sends.
Names, types and ranges are those of pg_settings. Must import only the standard library: the jobs use it, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_MAX_LENGTH = 200
_OLDEST = 12
_BOOLEAN = {"on", "off", "true", "false", "yes", "no", "1", "0"}
_NUMBER = re.compile(r"(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]{0,3})")
# A number without a unit is in kB, in pages of 8 kB, or in ms.
_KIB = {"": 1, "B": 1 / 1024, "kB": 1, "MB": 1024, "GB": 1024**2, "TB": 1024**3}
_PAGES = _KIB | {"": 8}
_MS = {"": 1, "us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_STYLE = "(ISO|SQL|Postgres|German|MDY|DMY|YMD|US|European)"
_LOCALE = r"(C|POSIX|[A-Za-z]{2,3}(_[A-Z]{2,3})?)(\.[A-Za-z0-9-]{1,12})?(@[a-z]{1,20})?"
_NAME = r'([A-Za-z_][A-Za-z0-9_$]{0,62}|"[^"\\\n\']{1,63}"|"\$user")'
_INT_MAX = 2**31 - 1


class Parameter(NamedTuple):
    """A setting: its group, its valid values, and the first major that knows it.

    `words` are the values of an enum, `pattern` that of a string. A number lies between `low` and `high`, in the unit
    of factor 1 in `units`.
    """

    group: str
    words: frozenset[str] = frozenset()
    pattern: str = ""
    low: float = 0
    high: float = 0
    units: Mapping[str, float] = {}
    since: int = _OLDEST


def _flags(group: str, names: str, since: int = _OLDEST) -> dict[str, Parameter]:
    return {name: Parameter(group, frozenset(_BOOLEAN), since=since) for name in names.split()}


def _numbers(group: str, low: float, high: float, names: str, since: int = _OLDEST) -> dict[str, Parameter]:
    return {name: Parameter(group, low=low, high=high, since=since) for name in names.split()}


def _sizes(group: str, low: float, high: float, names: str, units: Mapping[str, float]) -> dict[str, Parameter]:
    return {name: Parameter(group, low=low, high=high, units=units) for name in names.split()}


def _texts(group: str, pattern: str, names: str) -> dict[str, Parameter]:
    return {name: Parameter(group, pattern=pattern) for name in names.split()}


def _words(group: str, name: str, words: str, since: int = _OLDEST) -> dict[str, Parameter]:
    return {name: Parameter(group, frozenset(words.split()), since=since)}


PLANNER = {
    **_flags(
        "planner",
        "enable_bitmapscan enable_gathermerge enable_hashagg enable_hashjoin enable_indexonlyscan enable_indexscan"
        " enable_material enable_mergejoin enable_nestloop enable_parallel_append enable_parallel_hash"
        " enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join enable_seqscan enable_sort"
        " enable_tidscan geqo",
    ),
    **_flags("planner", "enable_incremental_sort", 13),
    **_flags("planner", "enable_async_append enable_memoize", 14),
    **_flags("planner", "enable_presorted_aggregate", 16),
    **_flags("planner", "enable_group_by_reordering", 17),
    **_flags("planner", "enable_distinct_reordering enable_self_join_elimination", 18),
    **_numbers(
        "planner", 0, 1e9,
        "cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost parallel_setup_cost parallel_tuple_cost"
        " random_page_cost seq_page_cost",
    ),
    **_numbers("planner", 0.001, 1_000_000, "recursive_worktable_factor", 15),
    **_numbers("planner", 1, _INT_MAX, "from_collapse_limit join_collapse_limit"),
    **_numbers("planner", 2, _INT_MAX, "geqo_threshold"),
    **_numbers("planner", 1, 10, "geqo_effort"),
    **_numbers("planner", 0, _INT_MAX, "geqo_generations geqo_pool_size"),
    **_numbers("planner", 1.5, 2, "geqo_selection_bias"),
    **_numbers("planner", 0, 1, "cursor_tuple_fraction geqo_seed"),
    **_numbers("planner", 1, 10_000, "default_statistics_target"),
    **_numbers("planner", 0, 1024, "max_parallel_workers_per_gather"),
    **_sizes("planner", 8, 8 * _INT_MAX, "effective_cache_size", _PAGES),
    **_sizes("planner", 0, 8 * 715827882, "min_parallel_index_scan_size min_parallel_table_scan_size", _PAGES),
    **_words("planner", "constraint_exclusion", "on off partition"),
    **_words("planner", "plan_cache_mode", "auto force_generic_plan force_custom_plan"),
}  # fmt: skip
MEMORY = {
    **_sizes("memory", 64, 2**30, "work_mem", _KIB),
    **_sizes("memory", 1024, 2**30, "maintenance_work_mem", _KIB),
    **_sizes("memory", 800, 2**30, "temp_buffers", _PAGES),
    **_numbers("memory", 1, 1000, "hash_mem_multiplier", 13),
}
FORMATS = {
    **_texts(
        "formats",
        rf"(?i){_STYLE}(\s*,\s*{_STYLE})?",
        "datestyle",
    ),
    **_words("formats", "intervalstyle", "postgres postgres_verbose sql_standard iso_8601"),
    **_words("formats", "bytea_output", "hex escape"),
    **_words("formats", "xmlbinary", "base64 hex"),
    **_words("formats", "xmloption", "content document"),
    **_words("formats", "backslash_quote", "safe_encoding on off"),
    "default_transaction_isolation": Parameter(
        "formats", frozenset({"read uncommitted", "read committed", "repeatable read", "serializable"})
    ),
    **_numbers("formats", -15, 3, "extra_float_digits"),
    **_flags(
        "formats",
        "array_nulls check_function_bodies default_transaction_deferrable escape_string_warning quote_all_identifiers"
        " standard_conforming_strings synchronize_seqscans transform_null_equals",
    ),
    **_texts("formats", rf"({_NAME}(\s*,\s*{_NAME})*)?", "search_path"),
}
PARAMETERS: Mapping[str, Parameter] = {
    **PLANNER,
    **MEMORY,
    **FORMATS,
    **_texts("text_search", rf"{_NAME}(\.{_NAME})?", "default_text_search_config"),
    **_numbers("text_search", 0, _INT_MAX, "gin_fuzzy_search_limit"),
    **_texts("time_zone", r"[A-Za-z][A-Za-z0-9_+/-]{0,60}", "timezone"),
    # lc_messages is missing, because the trial boot and the journal need messages in one language.
    **_texts("locale", _LOCALE, "lc_monetary lc_numeric lc_time"),
    **_sizes("timeouts", 0, _INT_MAX, "idle_in_transaction_session_timeout lock_timeout statement_timeout", _MS),
    "idle_session_timeout": Parameter("timeouts", high=_INT_MAX, units=_MS, since=14),
    "transaction_timeout": Parameter("timeouts", high=_INT_MAX, units=_MS, since=17),
}
GROUPS = tuple(dict.fromkeys(parameter.group for parameter in PARAMETERS.values()))


def fault(name: str, value: str) -> str | None:
    """Return the fault of a setting, as the end of a sentence that begins with its name, or None if it is valid."""
    parameter = PARAMETERS.get(name)
    if parameter is None:
        return "cannot be set for an image or an instance"
    if len(value) > _MAX_LENGTH or not value.isprintable():
        return f"must be at most {_MAX_LENGTH} printable characters"
    if parameter.words:
        return None if value.lower() in parameter.words else f"must be one of {', '.join(sorted(parameter.words))}"
    if parameter.pattern:
        return None if re.fullmatch(parameter.pattern, value) else "does not have the form that Postgres expects"
    return _fault_of_number(parameter, value)


def _fault_of_number(parameter: Parameter, value: str) -> str | None:
    found = _NUMBER.fullmatch(value.strip())
    units = parameter.units or {"": 1}
    if found is None or found[2] not in units:
        return f"must be a number with a unit, such as 1{list(units)[-1]}" if parameter.units else "must be a number"
    if not parameter.low <= float(found[1]) * units[found[2]] <= parameter.high:
        unit = next((name for name, factor in parameter.units.items() if name and factor == 1), "")
        return f"must be between {parameter.low:.15g}{unit} and {parameter.high:.15g}{unit}"
    return None


def applicable(major: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that this major knows."""
    return {name: value for name, value in settings.items() if PARAMETERS[name].since <= major}
