"""The aws command, loaded once: its start takes longer than most of what tests ask of it.

A server that has loaded the command's modules forks a process for each call. The script `aws` in
the PATH hands it the arguments, the environment and the open files, and ends as that process does.
"""

from __future__ import annotations

import atexit
import functools
import io
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

import botocore.session

SCRIPT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    status = server.recv(1)
sys.exit(status[0] if status else "the aws command ended without a status")
"""
COMMON_CALLS = (
    *("sts get-caller-identity", "lambda list-functions"),
    *("cloudformation list-stacks", "s3api list-buckets"),
)


@functools.cache
def folder() -> Path:
    """The folder of the script `aws`, for the PATH; its server runs until this process ends."""
    made = Path(tempfile.mkdtemp())
    address = str(made / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.preloaded_aws", address],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    assert server.stdout.readline() == b"ready\n", "the preloaded aws command does not start"

    def end() -> None:
        # The server ends with its standard input, and so even if this process is killed.
        server.communicate()
        shutil.rmtree(made)

    atexit.register(end)
    script = made / "bin" / "aws"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(python=sys.executable, address=address))
    script.chmod(0o755)
    return script.parent


def _serve(address: str) -> None:
    # Calls that reach nobody load what later calls need: nine tenths of a call's time is to read
    # the models of its service and of all endpoints.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    nobody = ("--endpoint-url", "http://127.0.0.1:1", "--region", "us-east-1", "--no-sign-request")
    os.environ["AWS_MAX_ATTEMPTS"] = "1"
    with redirect_stderr(io.StringIO()):
        for call in COMMON_CALLS:
            sys.argv = ["aws", *call.split(), *nobody]
            _main()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as waiting:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in waiting.select()):
            caller, _ = listener.accept()
            with caller:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _take_over(caller)
                    caller.sendall(bytes([_main()]))
                    os._exit(0)


def _main() -> int:
    """The status with which the real command ends, after its output."""
    from awscli.clidriver import main

    try:
        status = main()
    except SystemExit as ended:
        status = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status or 0)


def _take_over(caller: socket.socket) -> None:
    """Become the process that called: its arguments, folder, environment and open files."""
    length, files, _, _ = socket.recv_fds(caller, 4, 3)
    call = caller.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    arguments, here, environment = json.loads(call)
    sys.argv = ["aws", *arguments]
    os.chdir(here)
    # The command finds its own data by a variable that it sets when it is imported.
    data = os.environ["AWS_DATA_PATH"]
    os.environ.clear()
    os.environ.update({"AWS_DATA_PATH": data, **environment})
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    _serve(sys.argv[1])
