"""Sends a hostile upload through the installed service, and returns the result."""

from __future__ import annotations

import time
from pathlib import Path

from tests.system.service import Service

# The job has a deadline of hours. An upload that keeps it busy until then does no harm, and can be destroyed.
UNFINISHED = "unfinished"
# Error codes of bad uploads. job_failed and similar codes mean an unexpected error.
UNFORESEEN = {"job_failed", "internal", "internal_error", "unexpected"}


def outcome(service: Service, upload: Path | bytes, directory: Path, script: str = "SELECT 1;") -> str:
    """`ready`, or the code of the failure; the image is destroyed."""
    path = upload
    if isinstance(path, bytes):
        path = directory / "backup"
        path.write_bytes(upload if isinstance(upload, bytes) else b"")
    image_id = service.create_image(script)
    try:
        service.upload(image_id, path)
        return finalised(service, image_id)
    finally:
        service.destroy_image(image_id)


def finalised(service: Service, image_id: int, patience_s: float = 900) -> str:
    """Finalise the upload; return `ready`, the code of the failure, or UNFINISHED after a timeout."""
    answer = service.finalise(image_id, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + patience_s
    while (attributes := service.image(image_id))["status"] not in {"ready", "failed"}:
        if time.monotonic() > deadline:
            return UNFINISHED
        time.sleep(0.1)
    assert attributes["ready"] is (attributes["status"] == "ready")
    return "ready" if attributes["ready"] else str(attributes["error"]["code"])
