"""The commands forget, access and pseudonymize: what docs/privacy.md describes."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.bulk.selection import scope_of
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, agreed, print_json, say
from xapi_etl_processor.privacy.access import held, objects_with
from xapi_etl_processor.privacy.forget import count, forget, sweep
from xapi_etl_processor.privacy.learner import Learner, by_mail, read_file
from xapi_etl_processor.privacy.pseudonymize import pseudonymize
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import listing

_FORGET = """\
Remove all that is stored about learners, and keep hashes of them, so that no load brings them
back. docs/privacy.md says which rights it needs, and what remains.

Example: python -m xapi_etl_processor forget --user learner-17 --home-page https://lms.example.org
"""
_ACCESS = """\
Print all that is stored of learners as JSON, for a request of access.

Example: python -m xapi_etl_processor access --user learner-17 > learner-17.json
"""
_PSEUDONYMIZE = """\
Replace user ids that were stored before LEARNER_IDS was pseudonyms, and drop the text of rejected
lines. This cannot be undone.

Example:
  export LEARNER_IDS=pseudonyms LEARNER_KEY_SECRET_ARN=arn:...
  python -m xapi_etl_processor pseudonymize --dry-run
"""

_NOTHING = "nothing is stored of this learner"


def add_to(commands: Any) -> None:
    """Add the commands to the parser."""
    erase = add_command(commands, "forget", _forget, "remove a learner for good", _FORGET)
    who = _add_who(erase)
    flag = partial(erase.add_argument, action="store_true")
    who.add_argument(
        "--sweep",
        action="store_true",
        help="everybody who was forgotten before: after a backup was restored",
    )
    flag("--dry-run", help="only count what would be removed")
    flag("--yes", help="do not ask; scripts need it")
    flag(
        "--list-objects",
        help="print the objects in S3 that hold statements of the learners, and remove nothing;"
        " reads every bundle",
    )
    erase.add_argument(
        "--section", metavar="ID", help="with --list-objects: read only this section's bundles"
    )
    _add_who(add_command(commands, "access", _access, "print all stored of a learner", _ACCESS))
    rewriting = add_command(
        *(commands, "pseudonymize", _pseudonymize, "replace stored user ids by pseudonyms"),
        _PSEUDONYMIZE,
    )
    rewriting.add_argument("--dry-run", action="store_true", help="only count")


def _add_who(parser: argparse.ArgumentParser) -> Any:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="the user id, as column user_id has it")
    who.add_argument("--mbox", metavar="ADDRESS", help="a mail address, also where it was hashed")
    who.add_argument(
        "--file", type=Path, metavar="CSV", help="many: columns user or mbox, and home_page"
    )
    parser.add_argument(
        "--home-page", metavar="URL", help="with --user: only the account on this home page"
    )
    return who


def _learners(options: argparse.Namespace) -> list[Learner]:
    if options.home_page is not None and options.user is None:
        raise BadRequest("--home-page needs --user: an mbox has no home page")
    if options.file:
        return read_file(options.file)
    if not (options.user or options.mbox):
        raise BadRequest("an empty user id is no learner: name one")
    return by_mail(options.mbox) if options.mbox else [Learner(options.user, options.home_page)]


def _forget(options: argparse.Namespace) -> int:
    if options.sweep and options.list_objects:
        raise BadRequest(
            "--list-objects needs a learner: who was forgotten is known as hashes only"
        )
    if options.section and not options.list_objects:
        raise BadRequest("--section only narrows --list-objects: a learner is forgotten everywhere")
    run = run_here("forget")
    clickhouse = run.connections.clickhouse
    if options.sweep:
        print_json(sweep(clickhouse, dry_run=options.dry_run))
        return OK
    learners = _learners(options)
    if options.list_objects:
        return _list_objects(learners, run, options.section)
    if options.dry_run:
        found = count(learners, clickhouse)
        print_json(found)
        if not (found["rows_removed"] or found["rejected_lines_removed"]):
            say(_NOTHING)
    elif options.yes or agreed(count(learners, clickhouse), "this cannot be undone; forget them?"):
        print_json(forget(learners, clickhouse))
    else:
        say("nothing was removed")
        return FAILED
    return OK


def _list_objects(learners: list[Learner], run: Run, section: str | None) -> int:
    request = read_request({"section_id": section}, run.settings)
    client = run.connections.s3
    bundles = filter(request.covers, listing.listing(client, scope_of(request)))
    code = searched = found = 0
    for obj, holds, error in objects_with(learners, bundles, client):
        searched += 1
        found += holds
        if error:
            say(f"not read: {error}")
            code = FAILED
        elif holds:
            print(obj.uri)
    where = f"s3://{request.bucket}/{request.prefix}"
    say(f"{found:,} of {counted(searched, 'bundle')} under {where} hold their statements")
    return code


def _access(options: argparse.Namespace) -> int:
    learners = _learners(options)
    found = held(learners, run_here("access").connections.clickhouse)
    print_json(found)
    if not any(found["stored"].values()):
        say(_NOTHING)
    return OK


def _pseudonymize(options: argparse.Namespace) -> int:
    clickhouse = run_here("pseudonymize").connections.clickhouse
    print_json(pseudonymize(clickhouse, dry_run=options.dry_run))
    return OK
