"""A TCP proxy that adds latency: each request reaches its server some milliseconds later.

    python -m benchmarks.slow_network PORT MILLISECONDS

prints the address to use instead, and runs until standard input ends. It delays what clients send,
chunk by chunk, and any number of connections at the same time. Answers pass at once.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress

_CHUNK_BYTES = 256 * 1024


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            if delay:
                await asyncio.sleep(delay)
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _serve(server_port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that is open at the end is cancelled, which asyncio would report.
        with suppress(asyncio.CancelledError):
            answers, requests = await asyncio.open_connection("127.0.0.1", server_port)
            await asyncio.gather(_forward(reader, requests, delay), _forward(answers, writer, 0))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slow_network",
        description=__doc__.split("\n\n")[0],
        epilog="example: python -m benchmarks.slow_network 9090 30",
    )
    parser.add_argument("port", type=int, help="the server's port on 127.0.0.1")
    parser.add_argument("milliseconds", type=float, help="what each request waits")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.milliseconds / 1000))


if __name__ == "__main__":
    main()
