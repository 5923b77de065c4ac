"""A script's failure quotes a row of production: only uploaders and admins can read it."""

from __future__ import annotations

from pathlib import Path

from tests.system.backups import CANARY
from tests.system.people import BOSS, sign_in, signing_in
from tests.system.service import Service, run
from tests.system.world import DATA

SCRIPT = """\\c my_db
ALTER TABLE users ADD CHECK (length(email) < 3) NOT VALID;
UPDATE users SET name = 'x' || name;
"""


def test_a_raw_row_reaches_uploaders_and_admins_and_no_journal(service: Service, backup: Path) -> None:
    with signing_in(service):
        since = run("date", "+@%s").stdout.strip()
        jane, boss = sign_in(service, "jane@example.com"), sign_in(service, BOSS)
        image_id = service.create_image(SCRIPT)
        service.upload(image_id, backup)
        answer = service.finalise(image_id)
        assert "SQLSTATE 23514 (check_violation)" in answer.text

        for keeper in (service, boss):
            found = keeper.ask("GET", f"/images/{image_id}/error")
            assert found.status_code == 200
            assert "Failing row contains" in found.json()["data"]["attributes"]["text"]
            assert CANARY in found.json()["data"]["attributes"]["text"]
        assert CANARY in service.client("images", "show", str(image_id)).stdout
        assert CANARY in service.client("images", "finalise", str(image_id), ok=False).stderr

        seen = [
            answer.text,
            *(jane.ask("GET", path).text for path in ("/images", f"/images/{image_id}", f"/images/{image_id}/error")),
            jane.client("images", "show", str(image_id)).stdout,
            run("journalctl", "--namespace=*", "--all", "--output=export", "--since", since).stdout,
            run("systemctl", "status", "--full", "draupnir*", ok=False).stdout,
            run(
                "runuser", "-u", "draupnir", "--", "pg_dump", "-h", "/run/draupnir-metadata", "draupnir", cwd="/"
            ).stdout,
        ]
        assert [text for text in seen if CANARY in text] == []
        assert jane.ask("GET", f"/images/{image_id}/error").status_code == 403

        (kept,) = (DATA / "chroot/draupnir/image_uploads").glob("*.error")
        assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (0, 0o600)
        service.destroy_image(image_id)
        assert not kept.exists()
