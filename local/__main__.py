"""Start S3 and ClickHouse on this machine, and a shell or one command that uses them.

    python -m local [--data DIR]                  a shell
    python -m local [--data DIR] -- COMMAND ...   one command; its exit code is passed on

Both services listen on free ports of the loopback interface. S3 is in memory: its bundles are gone
afterwards. ClickHouse's data stays in DIR. If anything fails to start, nothing runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.request import Request, urlopen

from clickhouse_driver import errors
from clickhouse_migrations.exceptions import MigrationException

from local import DATA, PORT_VARIABLE, process
from local.aws import loader_environment, without_real_services
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.migrations.migrate import migrate

BUCKET = "my-bundles"

_ROOT = Path(__file__).parents[1]
_STATEMENT = (
    '{"actor": {"mbox": "mailto:me@example.org"},'
    ' "verb": {"id": "https://w3id.org/xapi/video/verbs/played"},'
    ' "object": {"id": "https://example.org/video"}}'
)
_GREETING = """
S3 and ClickHouse are running, for this shell only. It has none of your own credentials.

  S3           {s3}, bucket {bucket}: in memory, gone when you leave
  ClickHouse   {clickhouse}, database {database}: stays in {data}

Upload a bundle (the aws command, if you have it, can do this too), check the connections, load the
bundle, look at it:

  echo '{statement}' |
    curl -T - {s3}/{bucket}/section/2001/video/2024-01-01T12-00-00Z_1.jsonl
  python -m xapi_etl_processor health
  python -m xapi_etl_processor bulk
  make query SQL="SELECT * FROM {database}.video_statements"

Leave with: exit
"""

# Startup files could set AWS_PROFILE again, or put another python first on PATH.
_SHELLS = {
    "bash": ["--noprofile", "--norc"],
    "zsh": ["-f"],
    "fish": ["--no-config"],
    "sh": [],
    "dash": [],
    "ksh": [],
}
_STARTUP_FILES = ("ENV", "BASH_ENV", "ZDOTDIR")
_OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MAKEFILES")
_END_SECONDS = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shell or command: its exit code, 1 if a service failed, 127 without such a command.

    A shell at a terminal always counts as a success: its code is that of the last thing typed.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    # A script's background jobs ignore SIGINT, and so would the shell or command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = options.command or _shell(os.environ.get("SHELL", ""))
    print("Starting S3 and ClickHouse ...", file=sys.stderr, flush=True)
    try:
        with process.clickhouse(options.data) as port, process.s3() as s3:
            environment = _environment(port, s3)
            settings = _prepare(environment)
            if not options.command and sys.stdin.isatty():
                print(_greeting(settings, s3, options.data), flush=True)
                _run(command, environment)
                return 0
            return _run(command, environment)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (
        process.ServiceFailed,
        XapiEtlError,
        MigrationException,
        errors.Error,
        EOFError,
        OSError,
    ) as error:
        reason = str(error).partition("Stack trace")[0].strip()
        print(f"local: {reason}; nothing was run", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="ClickHouse's data (%(default)s)"
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")
    return parser


def _exit_on_signal(number: int, _: object) -> None:
    sys.exit(128 + number)


def _shell(preferred: str) -> list[str]:
    """The user's shell without its startup files; /bin/sh where we cannot switch those off."""
    options = _SHELLS.get(Path(preferred).name)
    if options is None or not os.access(preferred, os.X_OK):
        return ["/bin/sh"]
    return [preferred, *options]


def _environment(port: int, s3: dict[str, str]) -> dict[str, str]:
    """The caller's environment, cut off from real services and pointed at the local ones."""
    environment = without_real_services(os.environ) | loader_environment(port, s3, BUCKET)
    for name in (*_STARTUP_FILES, *_OF_MAKE):
        environment.pop(name, None)
    python = Path(sys.executable).parent
    return environment | {
        "LOG_LEVEL": "WARNING",
        PORT_VARIABLE: str(port),
        "PATH": os.pathsep.join((str(python), environment.get("PATH", os.defpath))),
        # The commands work in every folder, not only in this one.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), environment.get("PYTHONPATH")))),
        "PS1": "(make local) $ ",
    }


def _prepare(environment: dict[str, str]) -> Settings:
    """Make the bucket and the tables, which also shows that both services answer."""
    os.environ.clear()
    os.environ.update(environment)
    # Not with boto3, whose import and first client take 0.3 s.
    url = f"{environment['AWS_ENDPOINT_URL']}/{BUCKET}"
    with urlopen(Request(url, method="PUT")):  # noqa: S310  # our own S3
        pass
    settings = Settings.from_env(environment)
    migrate(settings)
    return settings


def _greeting(settings: Settings, s3: dict[str, str], data: Path) -> str:
    return _GREETING.format(
        s3=s3["AWS_ENDPOINT_URL"],
        bucket=BUCKET,
        clickhouse=f"{settings.clickhouse_host}:{settings.clickhouse_port}",
        database=settings.clickhouse_database,
        data=os.path.relpath(data),
        statement=_STATEMENT,
    )


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end and give its exit code; end it early if we are told to end."""
    # A terminal sends Ctrl-C to the command too, and the command decides what it means: a shell
    # carries on. Without a terminal the command gets its own process group, so that we can signal
    # all of it.
    at_terminal = sys.stdin.isatty()
    try:
        child = subprocess.Popen(  # noqa: S603  # the caller's own command
            command, env=environment, process_group=None if at_terminal else 0
        )
    except OSError as error:
        print(f"local: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def send(number: int) -> None:
        if child.poll() is None:
            if at_terminal:
                child.send_signal(number)
            else:
                os.killpg(child.pid, number)

    try:
        signal.signal(signal.SIGINT, lambda *_: None if at_terminal else send(signal.SIGINT))
        code = child.wait()
    finally:
        # Interactive shells ignore SIGTERM, but not SIGHUP.
        send(signal.SIGHUP if at_terminal else signal.SIGTERM)
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL)
            child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
