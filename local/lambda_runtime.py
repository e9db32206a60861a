"""Lambda's runtime on this machine: runs the deployment package under AWS's own runtime client.

The client (awslambdaric) gets events from an HTTP API and posts answers to it; this is that API.
The package runs in its own process. As in Lambda, it can import only itself and what the runtime
has, and it can write files only in a scratch folder.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from deployment.package import PYTHONS
from local.lifetime import POLL_SECONDS

_CLIENT = "awslambdaric"
_SDK = ("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3")
"""What Lambda's Python runtime includes; the package must include everything else. The SDK is the
same for every Python."""

_ROOT = Path(__file__).parent.parent

# The audit hook imitates Lambda's read-only file system and its errno, 30. It sees what Python
# opens, but not what a C library opens.
_BOOTSTRAP = """
import os, sys
task, runtime, scratch, handler = sys.argv[1:]
sys.argv = ["bootstrap", handler]
sys.path[:0] = [task, runtime]
def read_only(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        paths = [path] if writes else []
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.truncate", "os.symlink"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if isinstance(path, (str, bytes)):
            name = os.path.abspath(os.fsdecode(path))
            if not name.startswith((scratch, "/dev/")):
                raise OSError(30, "Read-only file system", name)
sys.addaudithook(read_only)
from awslambdaric.__main__ import main
main(sys.argv)
"""


class Answer(NamedTuple):
    """What the function answered; `failed` if it raised, timed out or exited instead."""

    payload: Any
    failed: bool


class RuntimeFailed(Exception):
    """The runtime could not be installed, or the package failed to start."""


def interpreters() -> dict[str, str]:
    """Interpreters by Python version, for the versions that both Lambda and this machine have."""
    found = {}
    for version in PYTHONS:
        pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
        names = [
            *([sys.executable] if sys.version.startswith(f"{version}.") else []),
            shutil.which(f"python{version}"),
            *map(str, sorted(pyenv.glob(f"{version}.*/bin/python"))),
        ]
        for name in filter(None, names):
            asked = subprocess.run(  # noqa: S603  # an interpreter of this machine
                [name, "--version"], capture_output=True, text=True, check=False
            )
            if asked.stdout.startswith(f"Python {version}."):
                found[version] = str(name)
                break
    return found


def install_runtime(folder: Path, python: str) -> None:
    """Put what Lambda's runtime includes into a folder, for that Python on this machine.

    The SDK is linked from this environment. Raises RuntimeFailed if pip fails.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", "--only-binary", ":all:", "--no-warn-conflicts"]
    command += ["--python-version", python, "--constraint", str(_ROOT / "requirements-dev.txt")]
    command += ["--target", str(folder), _CLIENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # pip
    if done.returncode:
        raise RuntimeFailed(
            f"Lambda's runtime for Python {python} cannot be installed: {done.stderr}"
        )
    for name in _SDK:
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(Path(str(package.locate_file(top))).absolute())


def unpack(package: Path, folder: Path, compile_with: str | None = None) -> None:
    """Unpack the package as Lambda does: everyone may read it, nobody may write.

    With an interpreter to compile with, its bytecode is there too: it then starts sooner than in
    Lambda.
    """
    with zipfile.ZipFile(package) as file:
        file.extractall(folder)
    if compile_with:
        command = [compile_with, "-m", "compileall", "-qq", str(folder)]
        subprocess.run(command, check=False)  # noqa: S603  # an interpreter of this machine
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


class _Api(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: a function that was killed leaves its connection open."""


class LambdaRuntime:
    """One execution environment, which handles one event after another, as a warm Lambda does.

    task and runtime are folders, made by `unpack` and `install_runtime`; scratch takes the place of
    /tmp. The function sees no environment variables but these and Lambda's own. What it prints goes
    to `output`.
    """

    def __init__(
        self,
        task: Path,
        runtime: Path,
        scratch: Path,
        environment: Mapping[str, str],
        *,
        interpreter: str = sys.executable,
        handler: str = "index.handler",
        function: str = "xapi-etl-processor",
        timeout_seconds: float = 60,
    ) -> None:
        self.output = scratch / "output.log"
        self._function = function
        self._timeout = timeout_seconds
        self._events: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._answers: queue.Queue[tuple[str, Answer]] = queue.Queue()
        self._api = _Api(("127.0.0.1", 0), self._request_handler())
        threading.Thread(target=self._api.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # an interpreter of this machine
                [
                    interpreter,
                    "-I",
                    "-S",
                    "-c",
                    _BOOTSTRAP,
                    *map(str, (task, runtime, scratch)),
                    handler,
                ],
                cwd=task,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **environment,
                    "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                    "AWS_LAMBDA_FUNCTION_NAME": function,
                    "LAMBDA_TASK_ROOT": str(task),
                    "TMPDIR": str(scratch),
                    "TZ": ":UTC",
                },
            )

    def __enter__(self) -> LambdaRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def invoke(self, event: Any) -> Answer:
        """Send an event as JSON and wait for its answer.

        As in Lambda, a function that times out or exits has failed; the environment is then
        closed. Raises RuntimeFailed if the package does not start.
        """
        name = str(uuid4())
        self._events.put((name, json.dumps(event).encode()))
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            try:
                answered, answer = self._answers.get(timeout=0.05)
            except queue.Empty:
                if self._process.poll() is not None and self._answers.empty():
                    self.close()
                    error = {
                        "errorType": "Runtime.ExitError",
                        "errorMessage": self._end_of_output(),
                    }
                    return Answer(error, failed=True)
                continue
            if answered == "init":
                self.close()
                raise RuntimeFailed(f"{answer.payload}\n{self._end_of_output()}")
            if answered == name:
                return answer
        self.close()
        text = f"Task timed out after {self._timeout:.2f} seconds"
        return Answer({"errorType": "Sandbox.Timedout", "errorMessage": text}, failed=True)

    def close(self) -> None:
        """Kill the function's process."""
        self._process.kill()
        self._process.wait()
        self._events.put(None)
        self._api.shutdown()
        self._api.server_close()

    def _end_of_output(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        environment = self

        class Handler(BaseHTTPRequestHandler):
            """The four requests of Lambda's runtime API that the client makes."""

            protocol_version = "HTTP/1.1"
            # Else an event waits 40 ms for the acknowledgement of its headers.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                """invocation/next: wait for an event."""
                event = environment._events.get()
                if event is None:
                    self.close_connection = True
                    return
                name, body = event
                deadline = int((time.time() + environment._timeout) * 1000)
                arn = f"arn:aws:lambda:us-east-1:123456789012:function:{environment._function}"
                self._send(
                    200,
                    body,
                    {
                        "Lambda-Runtime-Aws-Request-Id": name,
                        "Lambda-Runtime-Deadline-Ms": str(deadline),
                        "Lambda-Runtime-Invoked-Function-Arn": arn,
                    },
                )

            def do_POST(self) -> None:
                """invocation/ID/response, invocation/ID/error, init/error."""
                text = self.rfile.read(int(self.headers["Content-Length"]))
                *_, name, what = self.path.split("/")
                answer = Answer(json.loads(text), failed=what == "error")
                environment._answers.put((name, answer))
                self._send(202, b'{"status": "OK"}', {})

            def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for header, value in headers.items():
                    self.send_header(header, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing: only the function's own output matters."""

        return Handler
