"""Import rules of docs/ARCHITECTURE.md, checked in the source and in a running Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"draupnir": ROOT, "draupnir_helper": ROOT, "draupnir_client": ROOT / "client"}

# Each package may import these beyond the standard library and itself.
ALLOWED = {
    "draupnir": {
        "authlib",
        "click",
        "cryptography",
        "draupnir_helper.wire",
        "h11",
        "httpx",
        "psycopg",
        "psycopg_pool",
        "pydantic",
        "pydantic_core",
        "starlette",
        "typing_extensions",
        "uvicorn",
    },
    "draupnir_helper": {"pydantic", "pydantic_core", "pystemd"},
    "draupnir_client": {"click", "httpx"},
}

# The daemon loads these of the helper's package. The jobs use the table of settings, too, and load no pydantic.
CONTRACT = ("draupnir_helper.wire", "draupnir_helper.parameters")

# Libraries that only these modules may import.
DOORS = {
    "authlib": ("draupnir.identity.oidc", "draupnir.identity.id_tokens"),
    "httpx": ("draupnir.identity.oidc", "draupnir_client"),
    "psycopg": ("draupnir.store",),
    "psycopg_pool": ("draupnir.store",),
    "pystemd": ("draupnir_helper.bus",),
    "h11": ("draupnir.serving.connections",),
    "uvicorn": ("draupnir.serving", "draupnir.serving.connections"),
    "starlette": ("draupnir.api", "draupnir.app", "draupnir.serving"),
    "click": ("draupnir.cli", "draupnir_client"),
}

# Packages of the daemon, and the higher ones that they must not import.
ABOVE = {
    "draupnir.callers": ("draupnir.",),
    "draupnir.models": ("draupnir.",),
    "draupnir.errors": ("draupnir.",),
    "draupnir.addresses": ("draupnir.",),
    "draupnir.settings": ("draupnir.api", "draupnir.app", "draupnir.operations", "draupnir.helper", "draupnir.store"),
    "draupnir.store": ("draupnir.api", "draupnir.app", "draupnir.operations", "draupnir.helper", "draupnir.serving"),
    "draupnir.helper": ("draupnir.api", "draupnir.app", "draupnir.operations", "draupnir.store", "draupnir.serving"),
    "draupnir.operations": ("draupnir.api", "draupnir.app", "draupnir.serving", "draupnir.cli"),
    "draupnir.api": ("draupnir.app", "draupnir.serving", "draupnir.cli", "draupnir.store"),
}


def within(module: str, rooms: tuple[str, ...] | set[str]) -> bool:
    return any(module == room or module.startswith(room.rstrip(".") + ".") for room in rooms)


def sources() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted((folder / package).rglob("*.py")):
            yield ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"), path


def exists(module: str) -> bool:
    package = module.partition(".")[0]
    path = FOLDERS[package].joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(module: str, path: Path) -> set[str]:
    """Yield the full name of every imported module, at any place in the source."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            source = str(node.module)
            found.add(source)
            if source.partition(".")[0] in FOLDERS:
                found |= {f"{source}.{alias.name}" for alias in node.names if exists(f"{source}.{alias.name}")}
    # `from draupnir_helper import wire` also names the package, but means the module.
    return {name for name in found if not (name in FOLDERS and any(other.startswith(name + ".") for other in found))}


EVERY = {module: imports(module, path) for module, path in sources()}


@pytest.mark.parametrize("module", EVERY)
def test_a_package_imports_only_permitted_packages(module: str) -> None:
    package = module.partition(".")[0]
    foreign = {name for name in EVERY[module] if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not within(name, {package, *ALLOWED[package]})} == set()


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_only_by_its_module(library: str) -> None:
    openers = {module for module, names in EVERY.items() if any(within(name, (library,)) for name in names)}
    assert {module for module in openers if not within(module, DOORS[library])} == set()


@pytest.mark.parametrize("room", ABOVE)
def test_imports_point_downwards(room: str) -> None:
    modules = [module for module in EVERY if within(module, (room,))]
    upwards = {
        (module, name)
        for module in modules
        for name in EVERY[module]
        if within(name, ABOVE[room]) and not within(name, (room,)) and name != "draupnir"
    }
    assert modules
    assert upwards == set()


# If pystemd is not installed, empty modules replace it.
LOADED = """
import importlib, importlib.util, sys, types
forbidden, stand_ins, wanted = (argument.split(",") for argument in sys.argv[1:])
if importlib.util.find_spec("pystemd") is None:
    for name in stand_ins:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__getattr__ = lambda attribute: type(attribute, (Exception,), {})
for name in wanted:
    importlib.import_module(name)
print(*[name for name in forbidden if name in sys.modules])
"""


def loaded(forbidden: set[str], *modules: str) -> str:
    stand_ins = {"pystemd"} | {name for names in EVERY.values() for name in names if within(name, ("pystemd",))}
    result = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", LOADED, *map(",".join, (sorted(forbidden), stand_ins, modules))],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "PATH": "/usr/bin:/bin"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def modules_of(package: str, *without: str) -> list[str]:
    return [module for module in EVERY if within(module, (package,)) and not within(module, without)]


def test_the_daemon_loads_nothing_of_the_helper_but_the_wire() -> None:
    others = set(modules_of("draupnir_helper", *CONTRACT)) - {"draupnir_helper"}
    assert loaded({*others, "draupnir_helper.bus", "draupnir_client"}, *modules_of("draupnir")) == ""


def test_a_trial_loads_only_itself() -> None:
    others = {name for name in EVERY if not within(name, ("draupnir.trial",))} - {"draupnir"}
    assert loaded({*others, "psycopg", "pydantic", "cryptography"}, "draupnir.trial.__main__") == ""


def test_the_metadata_program_loads_nothing_of_the_daemon_but_the_settings() -> None:
    rooms = (
        "draupnir.metadata",
        "draupnir.settings",
        "draupnir.toml_errors",
        "draupnir.addresses",
        "draupnir.identity.emails",
    )
    others = {name for name in modules_of("draupnir") if not within(name, rooms)} - {"draupnir", "draupnir.identity"}
    assert loaded({*others, "psycopg", "starlette", "cryptography"}, "draupnir.metadata.__main__") == ""


def test_the_daemon_loads_an_http_client_only_to_speak_to_an_identity_provider() -> None:
    assert (
        loaded({"httpx", "authlib"}, *modules_of("draupnir", "draupnir.identity.oidc", "draupnir.identity.id_tokens"))
        == ""
    )


def test_the_helper_loads_nothing_of_the_daemon() -> None:
    forbidden = {"draupnir", "draupnir_client", "starlette", "uvicorn", "psycopg", "click", "httpx", "cryptography"}
    assert loaded(forbidden, *modules_of("draupnir_helper")) == ""


def test_the_wire_loads_only_pydantic() -> None:
    others = {name for name in EVERY if not within(name, CONTRACT)} - {"draupnir_helper"}
    assert loaded({*others, "starlette"}, "draupnir_helper.wire") == ""


def test_the_client_loads_nothing_of_the_server() -> None:
    forbidden = {"draupnir", "draupnir_helper", "pydantic", "starlette", "uvicorn", "psycopg", "cryptography"}
    assert loaded(forbidden, *modules_of("draupnir_client")) == ""
