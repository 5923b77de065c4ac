"""The images table. Every change of status or step is a compare-and-swap, which returns None if it lost a race."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from draupnir.errors import ImageHasInstances, NotFound
from draupnir.lifecycles import IMAGES, Kind
from draupnir.models import Failure, FinaliseStep, Image, ImageStatus, InstanceStatus, Progress, Purpose
from draupnir.store.database import Database, Row
from draupnir.store.ids import draw_image_id
from draupnir.store.instances import destroy_all_of
from draupnir.store.transitions import take_turn

MAX_LISTED_SCRIPT_CHARS = 8192
# The statuses from which an image can be destroyed.
_LIVING = tuple(before for before, after in IMAGES if after == ImageStatus.DESTROYING and before is not None)


class Images:
    """Rows of images."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        backed_up_at: datetime,
        anonymisation_script: str,
        taken_ids: Collection[int],
        parameters: Mapping[str, str] | None = None,
        canaries: Sequence[str] = (),
        *,
        keep_residue: bool = False,
    ) -> Image:
        """Insert an image that awaits its upload, with an id not in `taken_ids`. Raises NoFreeId."""
        async with take_turn(self._database) as turn:
            image_id = await draw_image_id(turn.connection, taken_ids)
            cursor = await turn.connection.execute(
                "INSERT INTO images (id, status, backed_up_at, anonymisation_script, given_settings, canaries,"
                " keep_residue) VALUES (%s, %s, %s, %s, %s, %s, %s)"
                " RETURNING *",
                [
                    image_id,
                    ImageStatus.AWAITING_UPLOAD,
                    backed_up_at,
                    anonymisation_script,
                    Jsonb(parameters or {}),
                    Jsonb(list(canaries)),
                    keep_residue,
                ],
            )
            (row,) = await cursor.fetchall()
            await turn.made(Kind.IMAGE, row)
            return _image(row)

    async def get(self, image_id: int) -> Image | None:
        """Return the image, or None."""
        return await self._one("SELECT * FROM images WHERE id = %s", [image_id])

    async def list_all(self) -> list[Image]:
        """Return all images, by id, with only the beginning of each script, to bound the size."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, status, backed_up_at, left(anonymisation_script, %(most)s) AS anonymisation_script,"
                " length(anonymisation_script) > %(most)s AS script_truncated, created_at, updated_at, step, activity,"
                " done_bytes, total_bytes, step_started_at, failure_code, failure_detail, postgres_major, size_bytes,"
                " trigger_tables, given_settings, settings, superuser, database, keep_residue, proved"
                " FROM images ORDER BY id",
                {"most": MAX_LISTED_SCRIPT_CHARS},
            )
            return [_image(row) async for row in cursor]

    async def update(
        self,
        image_id: int,
        *,
        backed_up_at: datetime | None,
        anonymisation_script: str | None,
        parameters: Mapping[str, str | None],
        canaries: Sequence[str] | None = None,
        keep_residue: bool | None = None,
    ) -> Image | None:
        """Change the values that are not None, if the image awaits its upload or has failed.

        A setting that is None in `parameters` is removed.
        """
        return await self._one(
            "UPDATE images SET backed_up_at = coalesce(%s, backed_up_at),"
            " anonymisation_script = coalesce(%s, anonymisation_script),"
            " given_settings = jsonb_strip_nulls(given_settings || %s), canaries = coalesce(%s, canaries),"
            " keep_residue = coalesce(%s, keep_residue), updated_at = now()"
            " WHERE id = %s AND status IN ('awaiting_upload', 'failed') RETURNING *",
            [
                backed_up_at,
                anonymisation_script,
                Jsonb(parameters),
                None if canaries is None else Jsonb(list(canaries)),
                keep_residue,
                image_id,
            ],
        )

    async def begin_finalising(self, image_id: int, activity: str) -> Image | None:
        """Move an image from awaiting_upload or failed to the first step."""
        return await self._change(
            [ImageStatus.AWAITING_UPLOAD, ImageStatus.FAILED],
            ImageStatus.FINALISING,
            where="id = %(id)s",
            values={"id": image_id, "activity": activity},
            also="step = 'seal', activity = %(activity)s, step_started_at = now(), done_bytes = NULL,"
            " total_bytes = NULL, postgres_major = NULL, size_bytes = NULL, trigger_tables = NULL, settings = '{}',"
            " superuser = NULL, database = NULL, proved = false",
        )

    async def move_to_step(
        self,
        image: Image,
        step: FinaliseStep,
        activity: str,
        *,
        postgres_major: int | None = None,
        size_bytes: int | None = None,
        trigger_tables: Sequence[str] | None = None,
        parameters: Mapping[str, str] | None = None,
        superuser: str | None = None,
        database: str | None = None,
        proved: bool | None = None,
    ) -> Image | None:
        """Move the image to another step, and record new facts."""
        return await self._one(
            "UPDATE images SET step = %s, activity = %s, step_started_at = now(), done_bytes = NULL,"
            " total_bytes = NULL, postgres_major = coalesce(%s, postgres_major),"
            " size_bytes = coalesce(%s, size_bytes), trigger_tables = coalesce(%s, trigger_tables),"
            " settings = coalesce(%s, settings),"
            " superuser = coalesce(%s, superuser), database = coalesce(%s, database),"
            " proved = coalesce(%s, proved), updated_at = now()"
            " WHERE id = %s AND status = 'finalising' AND step = %s RETURNING *",
            [
                step,
                activity,
                postgres_major,
                size_bytes,
                None if trigger_tables is None else list(trigger_tables),
                None if parameters is None else Jsonb(parameters),
                superuser,
                database,
                proved,
                image.id,
                image.step,
            ],
        )

    async def note_progress(self, image: Image, activity: str, done: int | None, total: int | None) -> Image | None:
        """Record the progress of the current step; bound the numbers, because jobs are not trusted."""
        bound = 2**63 - 1
        return await self._one(
            "UPDATE images SET activity = %s, done_bytes = %s, total_bytes = %s, updated_at = now()"
            " WHERE id = %s AND status = 'finalising' AND step = %s RETURNING *",
            [
                activity,
                None if done is None else min(done, bound),
                None if total is None else min(total, bound),
                image.id,
                image.step,
            ],
        )

    async def mark_ready(self, image: Image) -> Image | None:
        """Move the image from the last step to ready."""
        return await self._change(
            [ImageStatus.FINALISING],
            ImageStatus.READY,
            where="id = %(id)s AND step = %(step)s",
            values={"id": image.id, "step": image.step},
            also="step = NULL, activity = NULL, failure_code = NULL, failure_detail = NULL, canaries = '[]'",
        )

    async def mark_failed(self, image_id: int, failure: Failure) -> Image | None:
        """Move the image from any step to failed."""
        return await self._change(
            [ImageStatus.FINALISING],
            ImageStatus.FAILED,
            where="id = %(id)s",
            values={"id": image_id, "code": failure.code, "detail": failure.detail},
            also="step = NULL, activity = NULL, failure_code = %(code)s, failure_detail = %(detail)s",
            reason=failure.code,
        )

    async def leave_finalising(self, image_id: int) -> Image | None:
        """Return the image to its status before the finalise."""
        for after, had_failed in ((ImageStatus.AWAITING_UPLOAD, "IS NULL"), (ImageStatus.FAILED, "IS NOT NULL")):
            left = await self._change(
                [ImageStatus.FINALISING],
                after,
                where=f"id = %(id)s AND failure_code {had_failed}",
                values={"id": image_id},
                also="step = NULL, activity = NULL",
                reason="nothing_uploaded",
            )
            if left is not None:
                return left
        return None

    async def begin_destroying(self, image_id: int, *, cascade: bool) -> None:
        """Mark the image for destruction, and with `cascade` its instances; trial instances never prevent it.

        A lock on the row prevents new instances until then. Raises NotFound, ImageHasInstances.
        """
        async with take_turn(self._database) as turn:
            connection = turn.connection
            cursor = await connection.execute("SELECT FROM images WHERE id = %s FOR UPDATE", [image_id])
            if await cursor.fetchone() is None:
                raise NotFound(f"Image {image_id} not found.")
            cursor = await connection.execute(
                "SELECT id FROM instances WHERE image_id = %s AND purpose = %s AND status <> %s ORDER BY id",
                [image_id, Purpose.USE, InstanceStatus.DESTROYING],
            )
            living = [str(row["id"]) async for row in cursor]
            if living and not cascade:
                raise ImageHasInstances(
                    f"Image {image_id} still has the instances {', '.join(living)}; destroy them first."
                )
            await destroy_all_of(turn, image_id)
            await turn.change(
                Kind.IMAGE,
                _LIVING,
                ImageStatus.DESTROYING,
                where="id = %(id)s",
                values={"id": image_id},
                also="step = NULL, activity = NULL",
            )

    async def delete(self, image_id: int) -> None:
        """Delete the row of an image whose destruction is complete."""
        async with take_turn(self._database) as turn:
            await turn.delete(Kind.IMAGE, image_id, ImageStatus.DESTROYING)

    async def _change(
        self,
        befores: Collection[str],
        after: ImageStatus,
        *,
        where: str,
        values: Mapping[str, object],
        also: str,
        reason: str | None = None,
    ) -> Image | None:
        async with take_turn(self._database) as turn:
            found = await turn.change(Kind.IMAGE, befores, after, where=where, values=values, also=also, reason=reason)
            return _image(found[0]) if found else None

    async def _one(self, query: str, values: list[object]) -> Image | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(query.encode(), values)
            row = await cursor.fetchone()
            return None if row is None else _image(row)


def _image(row: Row) -> Image:
    status = ImageStatus(row["status"])
    progress = None
    if status is ImageStatus.FINALISING:
        progress = Progress(row["activity"] or "", row["done_bytes"], row["total_bytes"], row["step_started_at"])
    failure = None
    if status is ImageStatus.FAILED:
        failure = Failure(row["failure_code"], row["failure_detail"])
    return Image(
        id=row["id"],
        status=status,
        backed_up_at=row["backed_up_at"],
        anonymisation_script=row["anonymisation_script"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        step=FinaliseStep(row["step"]) if row["step"] else None,
        progress=progress,
        failure=failure,
        postgres_major=row["postgres_major"],
        size_bytes=row["size_bytes"],
        script_truncated=row.get("script_truncated", False),
        trigger_tables=tuple(row["trigger_tables"] or ()),
        given_parameters=row["given_settings"],
        parameters=row["settings"],
        superuser=row["superuser"],
        database=row["database"],
        canaries=tuple(row.get("canaries", ())),
        keep_residue=row["keep_residue"],
        proved=row["proved"],
    )
