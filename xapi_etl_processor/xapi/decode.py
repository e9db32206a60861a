"""One line to one statement: a fast typed decode, and a slower one that forgives wrong shapes."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

import msgspec
from msgspec.structs import replace

from xapi_etl_processor.xapi.identity import BLANKS
from xapi_etl_processor.xapi.loose_json import any_json, with_dots, without_lone_surrogates
from xapi_etl_processor.xapi.paths import Activities, Activity, Member, Members, Path, Titles
from xapi_etl_processor.xapi.structs import STRUCTS
from xapi_etl_processor.xapi.values import text

MAX_DEPTH = 128
"""How deeply objects and arrays may be nested; a statement has about six levels. Our limit: without
it, what can be read would depend on the Python version."""

_WRAPPERS = ("event", "statement")
"""Under these, event buses and exports put a statement into a record of their own."""
# A string that is not closed runs to the end of the line, so that no quote is looked at twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

_NO_ACCOUNT = STRUCTS.nodes["actor", "account"].empty
_decode_typed = msgspec.json.Decoder(STRUCTS.statement).decode


class Rejected(Exception):
    """The line is no statement. The text is one of a few reasons and holds nothing of the line."""


def decode(line: bytes) -> Any:
    """The statement of one trimmed line, without fields of the wrong shape. Raises Rejected."""
    statement = _decoded(with_dots(line))
    verb_id = statement.verb.id
    if not verb_id or verb_id[0] in BLANKS or verb_id[-1] in BLANKS:
        if not (verb_id := verb_id.strip(BLANKS)):
            raise Rejected("statement has no usable verb.id")
        statement = replace(statement, verb=replace(statement.verb, id=verb_id))
    actor = statement.actor
    # Without an account that names nobody, another identifier counts, with its own home page.
    if actor.account.homePage is not None and text(actor.account.name) is None:
        statement = replace(statement, actor=replace(actor, account=_NO_ACCOUNT))
    return statement


def _decoded(line: bytes) -> Any:
    # Msgspec does not check the text of fields that no column reads.
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            raise Rejected("not UTF-8") from None
    # Taking brackets away costs half of counting them, which looks at each byte.
    others = line.replace(b"{", b"", MAX_DEPTH + 1).replace(b"[", b"", MAX_DEPTH + 1)
    if len(line) - len(others) > MAX_DEPTH:
        _check_depth(line)
    try:
        return _decode_typed(line)
    except msgspec.ValidationError:
        return _decode_forgiving(line)
    except msgspec.DecodeError as error:
        mended = without_lone_surrogates(line)
        if mended != line:
            return _decoded(mended)
        raise Rejected(_not_json(error)) from None


def _check_depth(line: bytes) -> None:
    """Raises Rejected if the line is nested deeper than MAX_DEPTH."""
    # Each round removes the innermost level: megabytes of brackets take no more time than others.
    brackets = _STRING.sub(b"", line).translate(_ONE_KIND_OF_BRACKET, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        outer = brackets.replace(b"[]", b"")
        if len(outer) == len(brackets):
            break
        brackets = outer
    if brackets.count(b"[") > MAX_DEPTH or b"[]" in brackets:
        raise Rejected(f"nested more than {MAX_DEPTH} deep")


def _not_json(error: msgspec.DecodeError) -> str:
    """The decoder's words without the position, so that equal faults have equal reasons."""
    return "not JSON: " + str(error).removeprefix("JSON is malformed: ").partition(" (byte")[0]


def _decode_forgiving(line: bytes) -> Any:
    try:
        found = any_json(line)
    except msgspec.DecodeError as error:
        raise Rejected(_not_json(error)) from None
    except ValueError:
        raise Rejected("not JSON") from None
    _check_single(found)
    return _fitted(found, STRUCTS.statement, ())


def _check_single(found: Any) -> None:
    """Raises Rejected if it is no object, or one that holds statements instead of being one."""
    if isinstance(found, list) and any(isinstance(element, dict) for element in found):
        raise Rejected("an array of statements: write each on a line of its own")
    if not isinstance(found, dict):
        raise Rejected("not a JSON object")
    if isinstance(found.get("statements"), list) and "actor" not in found:
        raise Rejected('{"statements": [...]}: write each on a line of its own')
    for wrapper in _WRAPPERS:
        inner = found.get(wrapper)
        if isinstance(inner, dict) and "actor" in inner and "actor" not in found:
            raise Rejected(f'{{"{wrapper}": {{...}}}}: write the statement itself on the line')


def _fitted(found: dict[str, Any], struct: type[msgspec.Struct], path: Path) -> Any:
    """The struct made of the parts that fit; raises Rejected if a required part does not."""
    kept: dict[str, Any] = {}
    for item in msgspec.structs.fields(struct):
        here = (*path, item.encode_name)
        value = found.get(item.encode_name)
        if isinstance(item.type, type) and issubclass(item.type, msgspec.Struct):
            if isinstance(value, dict):
                kept[item.name] = _fitted(value, item.type, here)
        elif (fitting := _fitted_leaf(value, item.type)) is not None:
            kept[item.name] = fitting
        if item.required and item.name not in kept:
            raise Rejected(f"statement has no usable {'.'.join(here)}")
    return struct(**kept)


def _fitted_leaf(value: Any, wanted: Any) -> Any:
    if wanted == Activities:
        return _fitted_elements(value, Activity)
    if wanted == Members:
        return _fitted_elements(value, Member)
    if wanted == Titles and isinstance(value, dict):
        return {tag: text for tag, text in value.items() if isinstance(text, str)}
    if isinstance(value, float) and not isfinite(value):
        return None
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return None


def _fitted_elements(value: Any, struct: type[msgspec.Struct]) -> tuple[Any, ...]:
    # xAPI 0.9 allowed a single activity without the list.
    elements = value if isinstance(value, list) else [value]
    return tuple(_fitted(one, struct, ()) for one in elements if isinstance(one, dict))
