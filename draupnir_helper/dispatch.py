"""The table of all requests to root, and one lock for each id."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from draupnir_helper import bus, images, instances, inventory, storage, subvolumes, wire
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings
from draupnir_helper.wire import AnyRequest, Wire


def handlers(settings: Settings) -> dict[type[AnyRequest], Callable[[Any], Wire]]:
    """Return the handler of each request class."""
    return dict(
        [
            wire.Inspect.by(lambda _: inventory.inspect(settings)),
            wire.TakeInventory.by(lambda _: inventory.take_inventory()),
            wire.CreateUpload.by(lambda request: images.create_upload(request, settings)),
            wire.LimitUploads.by(lambda request: images.limit_uploads(request, settings)),
            wire.SealUpload.by(images.seal_upload),
            wire.StartExtract.by(lambda request: images.start_extract(request, settings)),
            wire.StartFinalise.by(lambda request: images.start_finalise(request, settings)),
            wire.InspectJob.by(images.inspect_job),
            wire.StopJobs.by(images.stop_jobs),
            wire.PublishImage.by(lambda request: images.publish_image(request, settings)),
            wire.DiscardParts.by(images.discard_parts),
            wire.DestroyImage.by(images.destroy_image),
            wire.KeepErrorText.by(images.keep_error_text),
            wire.ReadErrorText.by(images.read_error_text),
            wire.ReadReport.by(images.read_report),
            wire.StartInstance.by(lambda request: instances.start_instance(request, settings)),
            wire.AssignInstance.by(instances.assign_instance),
            wire.CloseInstance.by(instances.close_instance),
            wire.AdmitAddresses.by(instances.admit_addresses),
            wire.LimitInstance.by(lambda request: instances.limit_instance(request, settings)),
            wire.ObserveAddresses.by(lambda _: inventory.observe_addresses()),
            wire.ObserveInstances.by(lambda _: inventory.observe_instances(settings)),
            wire.DestroyInstance.by(instances.destroy_instance),
            wire.EmptyTrash.by(lambda _: _empty_trash()),
        ]
    )


class Dispatcher:
    """Calls the handler of each request, and holds a lock on the image or instance that it changes."""

    def __init__(self, settings: Settings) -> None:
        self._handlers = handlers(settings)
        # A lock is removed when no thread holds it or waits for it. Otherwise every id ever used would keep one.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def __call__(self, request: AnyRequest) -> Wire:
        with self._guard:
            lock = self._locks.setdefault(_subject(request), threading.Lock())
        with lock, bus.session():
            return self._handlers[type(request)](request)


def _subject(request: AnyRequest) -> str:
    for attribute in ("instance_id", "image_id"):
        if some_id := getattr(request, attribute, None):
            return f"{attribute} {some_id}"
    return request.op


def _empty_trash() -> wire.Trash:
    with storage.root() as root:
        quotas = Quotas(root)
        quotas.let_go()
        left = subvolumes.empty_trash(root)
        quotas.sweep()
        return wire.Trash(left=left)
