"""setup.cfg, debian/ and the units agree with the project."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_package_of_the_source_is_installed() -> None:
    listed = set(setup_cfg()["options"]["packages"].split())
    folders = {"draupnir": ROOT, "draupnir_helper": ROOT, "draupnir_client": ROOT / "client"}
    found = {
        ".".join(module.parent.relative_to(parent).parts)
        for name, parent in folders.items()
        for module in (parent / name).rglob("*.py")
    }
    assert listed == found


def test_versions_agree() -> None:
    changelog = (ROOT / "debian/changelog").read_text(encoding="utf-8")
    packaged = re.match(r"draupnir \(([^)]+)\)", changelog)
    code = re.search(r'^__version__ = "([^"]+)"', (ROOT / "draupnir/__init__.py").read_text(), re.MULTILINE)
    assert packaged is not None
    assert code is not None
    assert packaged[1] == code[1]


def test_every_unit_is_enabled_or_treated_at_an_upgrade() -> None:
    scripts = "".join((ROOT / "debian" / name).read_text(encoding="utf-8") for name in ("rules", "draupnir.postinst"))
    named = set(re.findall(r"\bdraupnir[a-z@-]*\.(?:service|socket)", scripts))
    shipped = {path.name for path in (ROOT / "systemd").iterdir() if path.suffix in (".service", ".socket")}
    assert named == shipped


def test_every_key_of_the_configuration_is_documented_twice() -> None:
    template = (ROOT / "packaging/etc/config.toml").read_text(encoding="utf-8")
    page = (ROOT / "packaging/man/draupnir-config.toml.5").read_text(encoding="utf-8")
    from draupnir.settings import HttpSettings, OidcSettings, Settings

    for key in (
        *Settings.model_fields.keys() - {"http", "oidc"},
        *HttpSettings.model_fields,
        *OidcSettings.model_fields,
    ):
        assert re.search(rf"^#{key} = ", template, re.MULTILINE), key
        assert key in page, key


def test_the_values_in_the_template_are_valid(tmp_path: Path) -> None:
    from draupnir.settings import load

    template = (ROOT / "packaging/etc/config.toml").read_text(encoding="utf-8")
    written = tmp_path / "config.toml"
    written.write_text(template, encoding="utf-8")
    as_shipped = load(written)
    absent = load(tmp_path / "absent.toml")
    assert as_shipped == absent
    written.write_text(re.sub(r"^#(\w+ = |\[)", r"\1", template, flags=re.MULTILINE), encoding="utf-8")
    everything = load(written)
    assert everything.min_instance_port == absent.min_instance_port
    assert everything.data_path == absent.data_path
