"""The contract and the number of its protocol change together."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from draupnir_helper import wire

# The digests of every released protocol, and of the next one. After a change of the contract record the new digest.
# Also increment wire.PROTOCOL, unless it is already higher than in the last release.
RECORDED = {2: "3185435c7c7a4d9b"}


def digest() -> str:
    """Return the digest of the code of all modules, without comments and docstrings."""
    found = hashlib.sha256()
    for path in sorted(Path(wire.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        found.update(ast.unparse(tree).encode())
    return found.hexdigest()[:16]


def test_a_changed_contract_has_a_new_number() -> None:
    assert RECORDED[wire.PROTOCOL] == digest()
