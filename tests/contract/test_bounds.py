"""Limits of the size of modules and functions, and no circular imports."""

from __future__ import annotations

import ast
import statistics
from graphlib import TopologicalSorter
from pathlib import Path

from tests.contract.test_imports import EVERY, sources

MOST_LINES, MEDIAN_LINES, MOST_LINES_OF_A_FUNCTION = 330, 120, 45
MODULES = dict(sources())


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_modules_have_a_maximum_length() -> None:
    lengths = {module: lines_of(path) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > MOST_LINES} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_LINES


def test_functions_have_a_maximum_length() -> None:
    long = {
        f"{module}.{node.name}": length
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_no_modules_import_each_other() -> None:
    """Imports for type checking count, too."""
    graph = {module: {name for name in names if name in MODULES and name != module} for module, names in EVERY.items()}
    list(TopologicalSorter(graph).static_order())
