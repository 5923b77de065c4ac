"""Checks whether the user of an instance may be a superuser there: the operator allows it, and the image is proved."""

from __future__ import annotations

from draupnir.errors import Impossible
from draupnir.models import Image, ImageStatus, Shape
from draupnir.operations.context import Context


class SuperuserNotAllowed(Impossible):
    """The operator does not allow superusers in instances."""

    code = "superuser_not_allowed"
    title = "Superuser not allowed"


class ImageNotProved(Impossible):
    """The files of the image may have values that the script removed, and a superuser could read them."""

    code = "image_not_proved"
    title = "Image not proved"


def require_allowed(context: Context, shape: Shape) -> None:
    """Raise SuperuserNotAllowed unless the operator allows the shape."""
    if shape.superuser and not context.settings.allow_superuser:
        raise SuperuserNotAllowed(
            "The operator does not allow superusers in instances; omit superuser, or ask the operator to set"
            " allow_superuser = true in /etc/draupnir/config.toml."
        )


def require_proved(image: Image) -> None:
    """Raise ImageNotProved for a ready image whose files may have values that the script removed."""
    if image.status is ImageStatus.READY and not image.proved:
        raise ImageNotProved(
            f"The files of image {image.id} are not proved to have no value that the script removed, and a superuser"
            " could read such values; omit superuser, or use an image with `proved`."
        )
