"""deploy.sh explains its usage and what is missing; notifications are merged, never replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from deployment.notifications import Overlap, connected, disconnected
from tests.support.account import ROOT, deploy_sh

QUEUE = "arn:aws:sqs:us-east-1:123456789012:dev-xapi-etl-processor"


def rule(name: str, value: str) -> dict[str, str]:
    return {"Name": name, "Value": value}


def notification(
    name: str, *rules: dict[str, str], event: str = "s3:ObjectCreated:*"
) -> dict[str, Any]:
    """Another project's notification."""
    item = {"Id": name, "TopicArn": "arn:aws:sns:us-east-1:1:t", "Events": [event]}
    return item | ({"Filter": {"Key": {"FilterRules": list(rules)}}} if rules else {})


def queue_notification(name: str, queue: str, prefix: str) -> dict[str, Any]:
    """A notification to a queue about new objects in a folder."""
    item = notification(name, rule("prefix", prefix))
    del item["TopicArn"]
    return item | {"QueueArn": queue}


@pytest.mark.slow
def test_the_usage_is_shown_by_help_and_below_wrong_arguments() -> None:
    done = deploy_sh("--help")
    for option in ("--test", "--deploy NAME", "--rollback NAME", "--connect BUCKET STACK"):
        assert option in done.stdout
    for arguments, message in {
        "--deploi x": "unknown argument: --deploi",
        "--deploy": "--deploy needs the function's NAME",
        "--rollback": "--rollback needs the function's NAME",
        "--connect bucket": "--connect needs BUCKET and STACK",
        "--disconnect bucket": "--disconnect needs BUCKET and STACK",
        "--deploy a --zip": "--zip needs a value",
        "--arch": "--arch needs a value",
        "--arch mips": "--arch must be x86_64 or arm64, not mips",
        "--python 3.10": "--python must be 3.11, 3.12, 3.13 or 3.14, not 3.10",
        "--python 3.15": "--python must be 3.11, 3.12, 3.13 or 3.14, not 3.15",
        "--deploy a --rollback b": "use --deploy or --rollback, not both",
        f"--zip {ROOT / 'README.md'}": "--zip only works with --deploy",
        "--rollback a --auto-rollback": "--auto-rollback only works with --deploy",
    }.items():
        done = deploy_sh(*arguments.split(), code=2)
        assert done.stderr.startswith(f"deploy.sh: {message}\nusage: ./deploy.sh"), arguments
        assert done.stdout == "", arguments
    done = deploy_sh("--deploy", "name", "--zip", "/nowhere/p.zip", code=1)
    assert done.stderr == "deploy.sh: no package at /nowhere/p.zip: ./deploy.sh builds one\n"


def test_a_link_to_it_and_an_exported_cdpath_change_nothing(tmp_path: Path) -> None:
    """It runs from its own folder: from any other, its Python would not be found."""
    clone = tmp_path / "clone"
    (clone / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "deploy.sh", clone)
    script(clone / ".venv/bin/python", '#!/bin/sh\necho "$PWD"\n')
    (tmp_path / "elsewhere/clone").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/middle").symlink_to("../clone/deploy.sh")
    (tmp_path / "link").symlink_to("bin/middle")
    for started in ("./link", "./bin/middle", "clone/deploy.sh"):
        done = subprocess.run(
            [started],
            cwd=tmp_path,
            env={**os.environ, "CDPATH": str(tmp_path / "elsewhere")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert set(done.stdout.splitlines()) == {str(clone)}, started


@pytest.mark.slow
def test_without_credentials_it_says_so(tmp_path: Path) -> None:
    no_credentials = {
        **{name: "" for name in os.environ if name.startswith("AWS_")},
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "TMPDIR": str(tmp_path),
    }
    done = deploy_sh("--rollback", "f", env=no_credentials, code=1)
    assert list(tmp_path.iterdir()) == []  # it leaves no files of its own behind
    message = "the aws command has no access to an account: log in, or set AWS_PROFILE"
    assert done.stderr.startswith(f"deploy.sh: {message}")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with everything that deploy.sh needs, but no python3 and no aws."""
    (folder := tmp_path / "tools").mkdir()
    for name in ("bash", "git", "awk", "dirname", "basename", "mktemp", "rm", "cat", "env"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def in_a_clone(
    tools: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a copy of deploy.sh, which has no .venv beside it, with only these tools."""
    shutil.copy(ROOT / "deploy.sh", tools.parent)
    return subprocess.run(
        [str(tools.parent / "deploy.sh"), *arguments],
        env={"PATH": str(tools), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_missing_command_and_a_python_that_cannot_build_the_package_are_named(
    tools: Path,
) -> None:
    needed = "Python 3.11 or later is needed"
    # It runs deploy.sh's own check, as if its version were 3.10.
    old = f"""exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 12); $2" """
    script(tools / "python310", old)
    script(tools / "no-pip", 'test "$2" != "import pip"')
    for arguments, python, message in (
        (("--deploy", "f"), "", needed),
        ((), "python310", f"{needed}: set PYTHON to one, such as PYTHON=python3.13"),
        ((), "no-pip", "no-pip has no pip: install it"),
        (("--deploy", "f"), sys.executable, "the aws command is missing"),
    ):
        done = in_a_clone(tools, *arguments, **({"PYTHON": python} if python else {}))
        assert done.returncode == 1, message
        assert done.stderr.startswith(f"deploy.sh: {message}")


def script(path: Path, text: str) -> Path:
    """A command of that name."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.slow
def test_the_package_is_built_as_asked_and_tested_and_uncommitted_changes_are_named(
    tools: Path, tmp_path: Path
) -> None:
    (tools / "python3").symlink_to(sys.executable)
    script(tools / "make", 'echo "make $* with $XAPI_PACKAGE"')
    (tmp_path / "deployment").mkdir()
    (tmp_path / "deployment" / "package.py").write_text("import sys; print(*sys.argv[1:])")
    done = in_a_clone(tools)
    output = "--output xapi-etl-processor.zip\n"
    assert (done.returncode, done.stdout) == (0, f"--python 3.13 --arch x86_64 {output}")

    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    done = in_a_clone(tools, "--test", "--python", "3.12", "--arch", "arm64")
    assert (done.returncode, done.stdout) == (
        0,
        f"--python 3.12 --arch arm64 {output}  includes uncommitted changes\n"
        f"make --no-print-directory test test-ci with {tmp_path}/xapi-etl-processor.zip\n",
    )


def test_connecting_adds_two_notifications_and_nothing_else() -> None:
    added = connected({}, "prod", QUEUE, "section/")
    assert list(added) == ["QueueConfigurations"]
    assert len({one["Id"] for one in added["QueueConfigurations"]}) == 2  # S3 demands it
    endings = [".jsonl", ".jsonl.gz"]
    for notification, ending in zip(added["QueueConfigurations"], endings, strict=True):
        assert notification["QueueArn"] == QUEUE
        assert notification["Events"] == ["s3:ObjectCreated:*"]
        rules = notification["Filter"]["Key"]["FilterRules"]
        assert rules == [rule("prefix", "section/"), rule("suffix", ending)]


def test_other_notifications_stay_and_disconnecting_undoes_connecting() -> None:
    before: dict[str, Any] = {
        "TopicConfigurations": [notification("removed", event="s3:ObjectRemoved:*")],
        "LambdaFunctionConfigurations": [notification("pictures", rule("Suffix", ".png"))],
        "QueueConfigurations": [queue_notification("others", f"{QUEUE}-of-others", "other/")],
        "EventBridgeConfiguration": {},
    }
    original = deepcopy(before)
    once = connected(before, "prod", QUEUE, "section/")
    assert before == original
    assert {name: once[name] for name in once if name != "QueueConfigurations"} == {
        name: original[name] for name in original if name != "QueueConfigurations"
    }
    assert once["QueueConfigurations"][0] == original["QueueConfigurations"][0]
    assert connected(once, "prod", QUEUE, "section/") == once
    assert disconnected(once, "prod") == original
    assert disconnected(original, "prod") == original
    # Each stack has its own, and a moved prefix replaces the old one.
    both = connected(connected({}, "a", QUEUE, "a/"), "b", QUEUE, "b/")
    assert len(both["QueueConfigurations"]) == 4
    assert disconnected(both, "a") == connected({}, "b", QUEUE, "b/")
    moved = connected(connected({}, "a", QUEUE, "old/"), "a", QUEUE, "new/")
    assert moved == connected({}, "a", QUEUE, "new/")


def test_a_notification_that_names_the_stacks_queue_already_is_replaced() -> None:
    others = {
        "QueueConfigurations": [queue_notification("pictures", QUEUE, "pictures/")],
        "TopicConfigurations": [notification("removed", event="s3:ObjectRemoved:*")],
    }
    # About the same objects, the folder, and the whole bucket.
    same = [rule("Prefix", "section/"), rule("Suffix", ".jsonl")]
    for rules in (same, [rule("prefix", "section/")], []):
        by_hand = queue_notification("made by hand", QUEUE, "")
        by_hand["Events"] = ["s3:ObjectCreated:Put"]
        by_hand["Filter"]["Key"]["FilterRules"] = rules
        before = deepcopy(others)
        before["QueueConfigurations"].append(by_hand)
        replaced = connected(before, "prod", QUEUE, "section/")
        assert replaced == connected(others, "prod", QUEUE, "section/"), rules


def test_a_notification_that_somebody_else_made_stays_and_is_named_if_it_overlaps() -> None:
    by_hand = {"QueueConfigurations": [queue_notification("made by hand", QUEUE, "section/")]}
    assert disconnected(by_hand, "prod") == by_hand
    overlapping = [
        notification("x"),
        notification("x", rule("prefix", "")),
        notification("x", rule("prefix", "sec")),
        notification("x", rule("Prefix", "section/7/")),
        notification("x", rule("suffix", ".gz")),
        notification("x", rule("suffix", "l"), event="s3:ObjectCreated:Put"),
        queue_notification("x", QUEUE.replace("dev-", "prod-"), "section/"),
    ]
    for other in overlapping:
        kind = "QueueConfigurations" if "QueueArn" in other else "TopicConfigurations"
        with pytest.raises(Overlap, match="'x' covers the same objects"):
            connected({kind: [other]}, "prod", QUEUE, "section/")
    for other in (
        notification("x", rule("prefix", "archive/")),
        notification("x", rule("suffix", ".json")),
        notification("x", event="s3:ObjectRemoved:Delete"),
        notification("x", rule("prefix", "section/"), rule("suffix", ".csv")),
    ):
        connected({"TopicConfigurations": [other]}, "prod", QUEUE, "section/")


def merged(reading: Path, text: str, *arguments: str) -> str:
    """What deployment.notifications prints, run as deploy.sh does: with two readings."""
    reading.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "deployment.notifications", reading, reading, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_nothing_is_printed_where_nothing_changes(tmp_path: Path) -> None:
    reading, connect = tmp_path / "reading", ("connect", "prod", QUEUE, "section/")
    assert merged(reading, "", "disconnect", "prod") == ""
    once = merged(reading, "", *connect)
    # S3 returns rule names capitalized, and lists in an order of its own.
    returned = json.loads(once.replace('"prefix"', '"Prefix"').replace('"suffix"', '"Suffix"'))
    returned["QueueConfigurations"].reverse()
    assert merged(reading, json.dumps(returned), *connect) == ""


def test_a_download_and_a_health_check_end_in_time_and_not_before() -> None:
    """An invocation may take Lambda's 900 seconds; a download that is silent for a minute ends."""
    script = (ROOT / "deploy.sh").read_text()
    assert re.findall(r"urlopen\(.*", script) == re.findall(r"urlopen\(.*timeout=60\).*", script)
    (limit,) = re.findall(r"--cli-read-timeout (\d+)", script)
    assert int(limit) >= 900
