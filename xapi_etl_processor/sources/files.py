"""Bundles on this machine's disk, read as if they were objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

from xapi_etl_processor.errors import BadRequest, S3Error
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.xapi.lines import READ_BYTES


@dataclass(frozen=True)
class LocalFile(S3Object):
    """A file, whose key is its absolute path, without links and `..`, and whose bucket is ''.

    Its path says what a key says. Its etag is the MD5 of its bytes, as S3's usually is.
    """

    @property
    def uri(self) -> str:
        """file:///path"""
        return f"file://{self.key}"


def named(path: str) -> LocalFile:
    """The file at a path, or at a file:// URI; raises BadRequest unless it can be read."""
    found = Path(path.removeprefix("file://")).resolve()
    if found.is_dir():
        raise BadRequest(f"{path} is a folder: name the files in it, such as {path.rstrip('/')}/*")
    try:
        with found.open("rb"):
            return LocalFile("", str(found))
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): name a file, or s3://bucket/key"
        ) from error


def describe(file: LocalFile) -> LocalFile:
    """The file with its current etag, size and time of modification.

    One that cannot be read stays as it is: reading it will say why.
    """
    try:
        status = Path(file.key).stat()
        hashed = md5(usedforsecurity=False)
        for chunk in _chunks(file):
            hashed.update(chunk)
    except OSError:
        return file
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return replace(file, etag=hashed.hexdigest(), size=status.st_size, modified=modified)


def body(file: LocalFile) -> Iterator[bytes]:
    """The file's bytes, in chunks; raises S3Error if it cannot be read, or if it was described and
    is another one now.
    """
    hashed = md5(usedforsecurity=False)
    try:
        for chunk in _chunks(file):
            hashed.update(chunk)
            yield chunk
    except OSError as error:
        raise S3Error(f"{file.uri} cannot be read: {error.strerror}") from error
    if file.etag and hashed.hexdigest() != file.etag:
        raise S3Error(f"{file.uri} was changed while it was read: try again")


def _chunks(file: LocalFile) -> Iterator[bytes]:
    with Path(file.key).open("rb") as opened:
        while chunk := opened.read(READ_BYTES):
            yield chunk
