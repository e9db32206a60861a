"""S3 and other AWS services on loopback: moto's server, which clients reach over HTTP.

python -m local.aws [PORT]    serve S3 on port 5000, or another, until Ctrl-C
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from local.lifetime import StopRequest

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

PORT = 5000
REGION = "us-east-1"

_PREFIXES = ("AWS_", "CLICKHOUSE_", "S3_XAPI_", "SQS_", "POWERTOOLS_")
_LOOPBACK = "127.0.0.1,localhost"


def environment(port: int) -> dict[str, str]:
    """Variables that point boto3 and the aws CLI at the server on this port, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        # A profile in the user's own files could point elsewhere.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def loader_environment(port: int, s3: dict[str, str], bucket: str) -> dict[str, str]:
    """The loader's variables for the ClickHouse on this port and the S3 with this environment."""
    return {
        **s3,
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(port),
        "S3_XAPI_BUCKET_NAME": bucket,
        "ENVIRONMENT": "local",
        "LOG_LEVEL": "CRITICAL",
        "POWERTOOLS_METRICS_DISABLED": "true",
    }


def without_real_services(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what names real services or holds credentials for them.

    A proxy stays, but not for loopback: it could not reach the local services.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(_PREFIXES)}
    direct = kept.get("no_proxy") or kept.get("NO_PROXY")
    kept["no_proxy"] = kept["NO_PROXY"] = f"{direct},{_LOOPBACK}" if direct else _LOOPBACK
    return kept


@contextmanager
def serving(port: int = 0) -> Iterator[dict[str, str]]:
    """Serve in a thread of this process; gives the environment to use it with."""
    server = _started(port)
    try:
        yield environment(_port_of(server))
    finally:
        server.stop()


def _started(port: int) -> ThreadedMotoServer:
    # Most who import this module only need the environment, and moto takes half a second.
    from moto import backends
    from moto.server import ThreadedMotoServer

    # moto lists its own folder for each request, which takes as long as the answer.
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


def _port_of(server: ThreadedMotoServer) -> int:
    return int(server.get_host_and_port()[1])


def main() -> int:
    """Serve until Ctrl-C, and print the environment as commands for a shell."""
    parser = argparse.ArgumentParser(
        prog="python -m local.aws", description="S3 on loopback (moto)"
    )
    parser.add_argument(
        "port", type=int, nargs="?", default=PORT, help="0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--stop-with-parent", action="store_true", help="stop when standard input ends"
    )
    options = parser.parse_args()
    stop = StopRequest(with_parent=options.stop_with_parent)
    with socket.socket() as probe:
        if options.port and probe.connect_ex(("127.0.0.1", options.port)) == 0:
            print(f"aws: port {options.port} is in use: name another", file=sys.stderr)
            return 1
    # Never stopped: that takes up to half a second, and its thread ends with the process.
    variables = environment(_port_of(_started(options.port)))
    print(f"# S3 (moto) on {variables['AWS_ENDPOINT_URL']}", flush=True)
    print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
