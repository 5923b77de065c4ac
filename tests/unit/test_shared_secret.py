"""Laws of the shared secret: short, missing or invalid ones are refused, and never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir import shared_secret


def test_the_secret_is_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    assert shared_secret.read(path) == b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"tiny-secret", b"x" * 31, b"two words that are together long enough", b"\xff" * 32]
)
def test_an_unfit_secret_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(shared_secret.SecretError) as raised:
        shared_secret.read(path)
    assert not content.strip() or content.strip().decode("latin-1") not in str(raised.value)


def test_a_missing_secret_is_reported_with_advice(tmp_path: Path) -> None:
    with pytest.raises(shared_secret.SecretError, match="draupnir-setup"):
        shared_secret.read(tmp_path / "absent")
