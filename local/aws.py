"""S3, and whatever else of AWS a run needs, on loopback: moto's server, spoken to over HTTP.

python -m local.aws [PORT]    serve S3 on port 5000, or another, until Ctrl-C
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

PORT = 5000
REGION = "us-east-1"


def environment(port: int) -> dict[str, str]:
    """What makes boto3 and the aws CLI speak to the server on this port, and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        # No profile of the user's own may lead elsewhere.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def loader_environment(port: int, s3: dict[str, str], bucket: str) -> dict[str, str]:
    """What the loader is told of a ClickHouse on this port and an S3 with this environment."""
    return {
        **s3,
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(port),
        "S3_XAPI_BUCKET_NAME": bucket,
        "ENVIRONMENT": "local",
        "LOG_LEVEL": "CRITICAL",
        "POWERTOOLS_METRICS_DISABLED": "true",
    }


@contextmanager
def serving(port: int = 0) -> Iterator[dict[str, str]]:
    """Serve in a thread of this process; gives the environment to use it with."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        _, found = server.get_host_and_port()
        yield environment(found)
    finally:
        server.stop()


def main() -> int:
    """Serve, until Ctrl-C; what is printed can be given to a shell."""
    parser = argparse.ArgumentParser(
        prog="python -m local.aws", description="S3 on loopback (moto)"
    )
    parser.add_argument(
        "port", type=int, nargs="?", default=PORT, help="0: a free one (%(default)s)"
    )
    options = parser.parse_args()
    with socket.socket() as probe:
        if options.port and probe.connect_ex(("127.0.0.1", options.port)) == 0:
            print(f"aws: port {options.port} is in use: name another", file=sys.stderr)
            return 1
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    with serving(options.port) as variables:
        print(f"# S3 (moto) on {variables['AWS_ENDPOINT_URL']}", flush=True)
        print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
