"""A continuation token carries the whole request that it continues."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.bulk.request import read_request

SETTINGS = Settings("ch.example.org", bucket="bundles", other_buckets=("older",))
EVERYTHING: dict[str, Any] = {
    "section_id": 7,
    "start_date": "2024-01-01",
    "end_date": "2024-01-31",
    "s3_bucket": "older",
    "s3_prefix": "section/7/video",
    "dry_run": True,
    "force_reprocess": True,
}
KEY = "section/7/video/2024-01-02T00-00-00Z_ÿ??>>.jsonl"


@pytest.mark.parametrize(
    "request_",
    [{"mode": "bulk"}, EVERYTHING, *({name: value} for name, value in EVERYTHING.items())]
    + [{"section_id": "BIO 101"}],
    ids=["nothing", "everything", *EVERYTHING, "a section of text"],
)
def test_a_token_alone_continues_the_same_request_after_its_key(request_: dict[str, Any]) -> None:
    asked = read_request(request_, SETTINGS)
    key = KEY.replace("/7/", f"/{request_.get('section_id', 7)}/")
    token = asked.token_after(key)
    # It needs no escaping, neither in JSON nor in a shell nor in a URL's path.
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", token)
    continued = read_request({"continuation_token": token}, SETTINGS)
    assert continued == replace(asked, after=key)
    assert read_request({**request_, "continuation_token": token}, SETTINGS) == continued


def test_a_token_that_carries_what_a_request_may_not_is_refused() -> None:
    """Whoever may invoke the function may also make tokens."""
    wrong = {"section_id": "x/y", "dry_run": "true", "start_date": "May", "s3_prefix": 5}
    for name, value in wrong.items():
        text = json.dumps({name: value, "after": ""})
        token = base64.urlsafe_b64encode(text.encode()).decode()
        with pytest.raises(BadRequest, match=name):
            read_request({"continuation_token": token}, SETTINGS)


def test_all_sections_beside_a_token_of_one_is_another_request() -> None:
    token = read_request({"section_id": 5}, SETTINGS).token_after("section/5/a.jsonl")
    with pytest.raises(BadRequest, match="section_id differs"):
        read_request({"continuation_token": token, "section_id": "all"}, SETTINGS)
    token = read_request({"section_id": "all"}, SETTINGS).token_after("section/5/a.jsonl")
    assert read_request({"continuation_token": token, "section_id": "all"}, SETTINGS).sections == ()


def test_a_default_that_is_spelled_out_beside_a_token_is_the_same_request() -> None:
    token = read_request({"section_id": 5}, SETTINGS).token_after("section/5/a.jsonl")
    off = ("repair", "allow_empty", "dry_run", "force_reprocess")
    defaults = {"s3_bucket": "bundles", "engine": "function", **dict.fromkeys(off, False)}
    for name, value in defaults.items():
        asked = {"continuation_token": token, "section_id": 5, name: value}
        assert read_request(asked, SETTINGS).after == "section/5/a.jsonl", name
