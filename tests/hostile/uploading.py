"""Take a hostile upload through the installed service, and say how it ended."""

from __future__ import annotations

from pathlib import Path

from tests.system.service import Service

# What finalising may fail with when it is the upload's fault; job_failed and its like mean that we did not foresee it.
UNFORESEEN = {"job_failed", "internal", "internal_error", "unexpected"}


def outcome(service: Service, upload: Path | bytes, directory: Path, script: str = "SELECT 1;") -> str:
    """`ready`, or the code of the failure, which the answer and the image tell alike; the image is destroyed."""
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


def finalised(service: Service, image_id: int) -> str:
    """Finalise what has been uploaded; `ready`, or the code of the failure."""
    answer = service.finalise(image_id)
    attributes = service.image(image_id)
    if answer.status_code == 200:
        assert attributes["status"] == "ready"
        return "ready"
    assert answer.status_code in {422, 507}, answer.text
    (error,) = answer.json()["errors"]
    assert attributes["status"] == "failed"
    assert attributes["ready"] is False
    assert attributes["error"]["code"] == error["code"]
    return str(error["code"])
