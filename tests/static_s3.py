"""S3 as fast as a disk: nginx serves a folder's objects and their listing, as S3 answers for them.

moto takes milliseconds for a request, which would hide what a loader costs.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

from tests.support.real_server import free_port

PAGE_KEYS = 1000
"""Keys in one page of a listing, as in S3."""

PREFIX = "section/"
"""The folder that can be listed. Other prefixes are answered with an error."""

_START_SECONDS = 10
_NO_SUCH_KEY = "<Error><Code>NoSuchKey</Code><Message>There is no such key.</Message></Error>"
_NOT_LISTED = (
    "<Error><Code>NotImplemented</Code>"
    f"<Message>Only the prefix {PREFIX} can be listed.</Message></Error>"
)
_CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {state}/nginx.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000000;
    open_file_cache max=10000 inactive=600s;
    open_file_cache_valid 600s;
    default_type binary/octet-stream;
    add_header x-amz-request-id $request_id;

    map $args $page {{
        default first;
        "~(?:^|&)continuation-token=(?<token>[0-9]+)" $token;
    }}
    map $args $listed {{
        default "";
        "~(?:^|&)list-type=2(?:&|$)" other;
    }}
    map $listed:$arg_prefix $listing {{
        default "";
        "~*^other:section(?:%2F|/)$" $page;
        "~^other:" other;
    }}
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        error_page 404 {errors}/no-such-key.xml;
        location ~ "^/([^/]+)/?$" {{
            set $bucket $1;
            if ($listing) {{ rewrite ^ /.listings/$bucket/$listing.xml last; }}
            default_type application/xml;
            return 200 "";
        }}
        location /.listings/ {{
            root {state};
            default_type application/xml;
            error_page 404 =501 {errors}/not-listed.xml;
        }}
        location {errors}/ {{
            internal;
            root {state};
            default_type application/xml;
        }}
    }}
}}
"""


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve the folder's buckets; gives the port on 127.0.0.1. Ends the process without nginx.

    Objects may not change meanwhile. Their ETag is nginx's: time of modification and size.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not nginx:
        raise SystemExit("nginx is needed to serve the objects: apt-get install nginx")
    with TemporaryDirectory() as name:
        state = Path(name)
        # Its worker must get through, whoever it runs as.
        state.chmod(0o755)
        port = free_port()
        _write_pages(folder, state)
        config = state / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                user="user root;" if os.geteuid() == 0 else "",
                state=state,
                port=port,
                folder=folder.absolute(),
                errors="/.errors",
            )
        )
        with subprocess.Popen([nginx, "-p", name, "-c", str(config), "-e", "stderr"]) as process:
            try:
                _wait_until_it_answers(process, port)
                yield port
            finally:
                process.send_signal(signal.SIGTERM)


def etag(path: Path) -> str:
    """The ETag that nginx gives a file, without its quotes."""
    found = path.stat()
    return f"{int(found.st_mtime):x}-{found.st_size:x}"


def _write_pages(folder: Path, state: Path) -> None:
    (state / ".errors").mkdir()
    (state / ".errors/no-such-key.xml").write_text(_NO_SUCH_KEY)
    (state / ".errors/not-listed.xml").write_text(_NOT_LISTED)
    for bucket in folder.iterdir():
        pages = state / ".listings" / bucket.name
        pages.mkdir(parents=True)
        objects = {
            path.relative_to(bucket).as_posix(): path
            for path in bucket.glob(f"{PREFIX}**/*")
            if path.is_file()
        }
        # S3 lists keys by their bytes in UTF-8.
        keys = sorted(objects, key=str.encode)
        starts = range(0, max(len(keys), 1), PAGE_KEYS)
        for number, start in enumerate(starts):
            shown = {key: objects[key] for key in keys[start : start + PAGE_KEYS]}
            following = number + 1 if number + 1 < len(starts) else None
            # Tokens are numbers, and the first page has none.
            (pages / f"{number or 'first'}.xml").write_text(_page(bucket.name, shown, following))


def _page(bucket: str, objects: Mapping[str, Path], following: int | None) -> str:
    more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{PREFIX}</Prefix><MaxKeys>{PAGE_KEYS}</MaxKeys>"
        f"<KeyCount>{len(objects)}</KeyCount>"
        f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>{more}"
        f"{''.join(_contents(key, path) for key, path in objects.items())}"
        "</ListBucketResult>"
    )


def _contents(key: str, path: Path) -> str:
    found = path.stat()
    modified = datetime.fromtimestamp(int(found.st_mtime), UTC)
    return (
        f"<Contents><Key>{escape(key)}</Key>"
        f"<LastModified>{modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
        f"<ETag>&quot;{etag(path)}&quot;</ETag><Size>{found.st_size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("HEAD", "/bucket")
            connection.getresponse()
        except OSError:
            time.sleep(0.02)
        else:
            connection.close()
            return
    raise SystemExit("nginx did not start: see its message above")
