"""Bundles on this machine's disk: the key is the absolute path, without links and `..`, and the
etag the MD5 of the bytes, as S3's usually is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import file_digest, md5
from pathlib import Path

from xapi_etl_processor.base.errors import BadRequest, S3Error
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.lines import READ_BYTES

_md5 = partial(md5, usedforsecurity=False)


def named(path: str) -> S3Object:
    """The file at a path, or at a file:// URI; raises BadRequest unless it can be read."""
    found = Path(path.removeprefix("file://")).resolve()
    if found.is_dir():
        raise BadRequest(f"{path} is a folder: name the files in it, such as {path.rstrip('/')}/*")
    try:
        with found.open("rb"):
            return S3Object("", str(found), is_file=True)
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): name a file, or s3://bucket/key"
        ) from error


def describe(file: S3Object) -> S3Object:
    """The file with its etag, size and time of modification, unless it cannot be read."""
    path = Path(file.key)
    try:
        status = path.stat()
        with path.open("rb") as opened:
            etag = file_digest(opened, _md5).hexdigest()
    except OSError:
        return file
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return replace(file, etag=etag, size=status.st_size, modified=modified)


def body(file: S3Object) -> Iterator[bytes]:
    """The file's bytes, in chunks; raises S3Error if it cannot be read, or was changed since it was
    described.
    """
    hashed = _md5()
    try:
        with Path(file.key).open("rb") as opened:
            while chunk := opened.read(READ_BYTES):
                hashed.update(chunk)
                yield chunk
    except OSError as error:
        raise S3Error(f"{file.uri} cannot be read: {error.strerror}") from error
    if file.etag and hashed.hexdigest() != file.etag:
        raise S3Error(f"{file.uri} was changed while it was read: try again")
