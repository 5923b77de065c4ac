"""Follows a finalise on the server to its end, and explains why an image is not ready."""

from __future__ import annotations

from draupnir_client.api import DraupnirAPI
from draupnir_client.commands import Invocation
from draupnir_client.errors import ClientError, Interrupted, ServerUnreachable
from draupnir_client.models import Image
from draupnir_client.progress import Display

POLL_S = 0.5
# The finalise continues while the service restarts, so the client keeps waiting.
PATIENCE_S = 60.0


def follow(invocation: Invocation, api: DraupnirAPI, image: Image) -> Image:
    """Show progress until the finalise ends, and return the image."""
    display = Display(invocation.now)
    try:
        while image.status == "finalising":
            display.show(image)
            image = _ask_again(invocation, api, image.id, display)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Image {image.id} is still being finalised on the server;"
            f" `draupnir-client images finalise {image.id}` joins the work again."
        ) from None
    finally:
        display.close()
    return image


def _ask_again(invocation: Invocation, api: DraupnirAPI, image_id: int, display: Display) -> Image:
    patient_until_s = invocation.now() + PATIENCE_S
    while True:
        invocation.pause(POLL_S)
        try:
            return api.get_image(image_id)
        except ServerUnreachable:
            if invocation.now() > patient_until_s:
                raise
            display.wait_for_server()


def why_failed(api: DraupnirAPI, image: Image) -> str | None:
    """Return why an image failed, or None. The reason is the public sentence, and the full text if it is readable."""
    if image.status != "failed":
        return None
    published = (image.error or "the server gives no reason").rstrip()
    try:
        return f"{published}\n{api.get_image_error(image.id).rstrip()}"
    except ClientError:
        # The caller may not read the text, or it does not exist, or an older server does not have it.
        return published


def why_not_ready(api: DraupnirAPI, image: Image) -> str:
    """Return why an image is not ready after its finalise, and the next command if there is one."""
    if image.status == "failed":
        failed = f"Image {image.id} failed: {why_failed(api, image)}"
        # Every error has its own advice. Only that of the script has a command, which works as written with the id.
        correct = f"Next: draupnir-client images update {image.id} --script FILE"
        return f"{failed}\n{correct}" if image.error_code == "script_failed" else failed
    if image.status == "awaiting_upload":
        return (
            f"Image {image.id} was not finalised, because nothing was uploaded; upload the backup and finalise again."
        )
    return f"Image {image.id} was not finalised, because it is {image.status}."
