"""An S3 Inventory in the place of a listing: its manifest, and its lists in CSV ("Amazon S3
Inventory" in the user guide of S3).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import S3BadInventory, S3Missing
from xapi_etl_processor.base.telemetry import shown
from xapi_etl_processor.s3 import fetch
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.lines import MIB
from xapi_etl_processor.xapi.timestamps import instant, milliseconds

MAX_FILE_BYTES = 256 * MIB
"""The largest manifest or list that is read; each is in memory as a whole. Our limit: S3 writes
lists of some tens of MB."""


@dataclass(frozen=True)
class Inventory:
    """What a manifest says: where the lists are, and their columns."""

    manifest: S3Object
    bucket: str
    columns: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    """Key and MD5 of each list."""


def read_manifest(
    stores: Stores, manifest: S3Object, bucket: str, deadline: Deadline = FOREVER
) -> Inventory:
    """The inventory of a bucket that a manifest is about. Raises S3BadInventory unless it is whole,
    about this bucket and in CSV, and S3Error if S3 does not give it.
    """
    try:
        found = json.loads(_content(stores, manifest, deadline))
        file_format, source = str(found["fileFormat"]), str(found["sourceBucket"])
        columns = tuple(name.strip() for name in found["fileSchema"].split(","))
        files = tuple((str(file["key"]), str(file["MD5checksum"])) for file in found["files"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise S3BadInventory(
            f"inventory: {manifest.uri} is not a complete S3 Inventory manifest: name the key that"
            " ends in manifest.json"
        ) from None
    if file_format != "CSV" or not {"Bucket", "Key"} <= set(columns):
        raise S3BadInventory(
            f"inventory: {manifest.uri} has the format {shown(file_format)}: configure the"
            " inventory with the output format CSV"
        )
    if source != bucket:
        raise S3BadInventory(
            f"inventory: {manifest.uri} is about s3://{source}, not about s3://{bucket}: name the"
            " bucket with s3_bucket"
        )
    return Inventory(manifest, bucket, columns, files)


def objects(
    stores: Stores, inventory: Inventory, after: str = "", deadline: Deadline = FOREVER
) -> Iterator[tuple[str, S3Object]]:
    """The current objects after a position, each with its own: file and row. Raises S3BadInventory
    if a list is damaged, and S3Error if S3 does not give it.
    """
    for number, (key, md5) in enumerate(inventory.files):
        last = _position(number, 10**9 - 1)
        if after >= last:
            continue
        file = S3Object(inventory.manifest.bucket, key)
        packed = _content(stores, file, deadline)
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5.lower():
            raise _damaged(file, "its MD5 is not that of the manifest")
        for row, fields in enumerate(_rows(packed, file)):
            position = _position(number, row)
            if position > after and (found := _object(inventory, fields, file)):
                yield position, found


def _position(file: int, row: int) -> str:
    return f"{file:06}:{row:09}"


def _rows(packed: bytes, file: S3Object) -> Iterator[list[str]]:
    try:
        with gzip.open(io.BytesIO(packed), "rt", encoding="utf-8", newline="") as lines:
            yield from csv.reader(lines, strict=True)
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise _damaged(file, f"it is not CSV under gzip ({type(error).__name__})") from None


def _object(inventory: Inventory, fields: list[str], file: S3Object) -> S3Object | None:
    """The object of a row; None for a version that is not current."""
    row = dict(zip(inventory.columns, fields, strict=False))
    if len(fields) != len(inventory.columns) or row["Bucket"] != inventory.bucket:
        raise _damaged(file, "a row does not fit the manifest")
    if row.get("IsLatest") == "false" or row.get("IsDeleteMarker") == "true":
        return None
    digits = row.get("Size", "")
    size = int(digits) if re.fullmatch(r"[0-9]{1,18}", digits) else None
    millis = milliseconds(row.get("LastModifiedDate", ""))
    modified = None if millis is None else instant(millis)
    return S3Object(inventory.bucket, unquote_plus(row["Key"]), row.get("ETag", ""), size, modified)


def _damaged(file: S3Object, why: str) -> S3BadInventory:
    return S3BadInventory(
        f"{file.uri} is damaged, {why}: use another inventory, or send the request without"
    )


def _content(stores: Stores, obj: S3Object, deadline: Deadline) -> bytes:
    _, body = next(fetch.bodies(stores, [obj], deadline))
    content = bytearray()
    try:
        for chunk in body:
            content += chunk
            if len(content) > MAX_FILE_BYTES:
                raise S3BadInventory(
                    f"{obj.uri} has more than {MAX_FILE_BYTES // MIB} MiB, too much for a list of"
                    " an inventory: send the request without it"
                )
    except S3Missing as error:
        raise S3BadInventory(f"inventory: {error}") from None
    return bytes(content)
