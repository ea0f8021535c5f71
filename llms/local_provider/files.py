"""Uploaded and produced files: kept in a temporary folder, never in memory."""

import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar
from uuid import uuid4

from aiohttp import BodyPartReader
from aiohttp.web import BaseRequest

from llms.local_provider.wire import ApiError, JsonObject, invalid, missing

_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_LARGEST = 512 * 1024 * 1024
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class StoredFile:
    id: str
    filename: str
    purpose: str
    size: int
    """Bytes."""
    created_at: int
    path: Path

    def as_json(self) -> JsonObject:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }


@dataclass
class FileStore:
    folder: TemporaryDirectory[str] | None = None
    files: dict[str, StoredFile] = field(default_factory=dict[str, StoredFile])

    def new_path(self) -> Path:
        if self.folder is None:
            self.folder = TemporaryDirectory(prefix="local-provider-")
        return Path(self.folder.name) / uuid4().hex

    def add(self, path: Path, filename: str, purpose: str) -> StoredFile:
        """Takes a finished file of this folder into the store."""
        stored = StoredFile(f"file-{uuid4().hex}", filename, purpose, path.stat().st_size, int(time.time()), path)
        self.files[stored.id] = stored
        return stored

    def get(self, file_id: str) -> StoredFile:
        """Raises `ApiError` 404."""
        if file_id not in self.files:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return self.files[file_id]

    def delete(self, file_id: str) -> JsonObject:
        self.get(file_id).path.unlink(missing_ok=True)
        del self.files[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def keep(self, stored: StoredFile) -> Path:
        """A second name for the content, which outlives a deletion of the file."""
        path = self.new_path()
        os.link(stored.path, path)
        return path

    def clear(self) -> None:
        for file_id in list(self.files):
            self.delete(file_id)

    def close(self) -> None:
        """Removes the folder; a later upload begins another."""
        self.files.clear()
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    def listed(self, query: Mapping[str, str]) -> JsonObject:
        purpose = query.get("purpose")
        chosen = [stored for stored in self.files.values() if purpose in (None, stored.purpose)]
        if query.get("order", "desc") == "desc":
            chosen.reverse()
        return page(chosen, query, default=10_000, most=10_000)

    async def upload(self, request: BaseRequest, purposes: Collection[str] = _PURPOSES) -> StoredFile:
        """Stores the `file` of a multipart form, under its `file_name`. Raises `ApiError` 400 or 413."""
        if not request.content_type.startswith("multipart/"):
            raise invalid("file", "'file' must be sent as multipart/form-data.")
        path, purpose, filename, name = self.new_path(), "", "", ""
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    continue
                if part.name == "file":
                    filename = part.filename or "file"
                    await _write(part, path)
                elif part.name == "purpose":
                    purpose = await part.text()
                elif part.name == "file_name":
                    name = await part.text()
            if not filename:
                raise missing("file")
            if purpose not in purposes:
                raise invalid("purpose", f"'{purpose}' is not one of {list(purposes)} - 'purpose'")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return self.add(path, name or filename, purpose)


async def _write(part: BodyPartReader, path: Path) -> None:
    size = 0
    with path.open("wb") as file:
        while chunk := await part.read_chunk(_CHUNK):
            size += len(chunk)
            if size > _LARGEST:
                raise ApiError(413, f"The file is larger than the allowed {_LARGEST} bytes; split it.", param="file")
            file.write(chunk)


class Listed(Protocol):
    @property
    def id(self) -> str: ...
    def as_json(self) -> JsonObject: ...


ListedT = TypeVar("ListedT", bound=Listed)


def page(entries: Iterable[ListedT], query: Mapping[str, str], *, default: int, most: int) -> JsonObject:
    """One page of a list, by `limit` and `after` of the query. Raises `ApiError` 400."""
    found, after = list(entries), query.get("after")
    limit = query.get("limit", str(default))
    if not limit.isdigit() or not 1 <= int(limit) <= most:
        raise invalid("limit", f"Invalid 'limit': expected an integer from 1 to {most}, but got {limit!r} instead.")
    if after is not None:
        places = [place for place, entry in enumerate(found) if entry.id == after]
        if not places:
            raise invalid("after", f"Invalid 'after': no object {after!r} in the list.")
        found = found[places[0] + 1 :]
    shown = found[: int(limit)]
    return {
        "object": "list",
        "data": [entry.as_json() for entry in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": len(found) > len(shown),
    }
