"""Which S3 objects a payload names, and what is an error of one message or of the whole payload."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.samples import notification
from xapi_etl_processor.base.errors import UnknownPayload
from xapi_etl_processor.queues.payloads import Receipt, parse_payload
from xapi_etl_processor.s3.objects import S3Object

EVENTS = Path(__file__).parents[1] / "events"
ETAG = "d41d8cd98f00b204e9800998ecf8427e"
FIRST = S3Object(
    "xapi-prod", "section/2001/video/2024-01-01T12-00-00.123456Z_5f0c2d1a.jsonl", ETAG, 18234
)
SECOND_KEY = "section/2002/video/2024-01-01T12-00-05Z_77aa01bc.jsonl"


def sample(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def named(key: str) -> S3Object:
    return S3Object("xapi-prod", key, ETAG, 18234)


def message_id(number: int) -> str:
    return f"059f36b4-87a3-44ab-83d2-66197{number:07d}"


# What each sample names, and whether its messages fail one by one; poison_in_sqs is tested below.
NAMED: dict[str, tuple[list[S3Object], bool]] = {
    "direct": ([S3Object("xapi-prod", "archive/a b+c%2Bd é.jsonl")], False),
    "s3_put": ([FIRST], False),
    "s3_several_records": (
        [
            FIRST,
            S3Object("xapi-prod", SECOND_KEY, "0cc175b9c0f1b6a831c399e269772661-3", 5_368_709_120),
            S3Object("xapi-archive", "copied.jsonl", ETAG, 18234),
        ],
        False,
    ),
    "s3_encoded_key": ([named("archive/two words+plus café 100%25.jsonl")], False),
    "s3_removed": ([], False),
    "s3_test_event": ([], False),
    "s3_in_sqs": ([FIRST, named("a b+c.jsonl"), named(SECOND_KEY)], True),
    "s3_in_sns": ([named("a b+c.jsonl")], False),
    "s3_in_sns_in_sqs": ([named("a b+c.jsonl")], True),
    "eventbridge": ([named("archive/two words+plus café 100%25.jsonl")], False),
    "eventbridge_in_sqs": ([named("a+b%2Bc d.jsonl")], True),
    "eventbridge_deleted": ([], False),
    "s3_test_event_in_sqs": ([], True),
    "s3_removed_in_sqs": ([], True),
}
REFUSED = ["dynamodb", "eventbridge_schedule"]


@pytest.mark.fault(6, 7, caught_by="payload parsing")
@pytest.mark.parametrize("name", NAMED)
def test_each_sample_payload_names_its_objects(name: str) -> None:
    objects, from_sqs = NAMED[name]
    delivery = parse_payload(sample(name))
    assert delivery.objects == objects
    assert delivery.from_sqs is from_sqs
    assert delivery.direct is (name == "direct")
    assert [message.error for message in delivery.messages if message.error] == []


def test_a_message_of_sqs_has_the_receipt_of_its_delivery() -> None:
    records = sample("s3_in_sqs")["Records"]
    records[0]["attributes"] |= {
        "ApproximateReceiveCount": "12",
        "ApproximateFirstReceiveTimestamp": "1704110400123",
    }
    del records[1]["attributes"]["ApproximateFirstReceiveTimestamp"]
    first, second = parse_payload({"Records": records}).messages
    queue, handle = "arn:aws:sqs:us-east-1:123456789012:xapi-bundles", records[0]["receiptHandle"]
    assert first.receipt == Receipt(queue, handle, 12, records[0]["body"], 1704110400123)
    assert second.receipt == Receipt(queue, handle, 1, records[1]["body"], 0)
    assert parse_payload(sample("s3_put")).messages[0].receipt is None


def test_a_record_that_sqs_cannot_have_sent_has_no_receipt() -> None:
    counts: list[Any] = ["", "0", "-1", "1e3", "9" * 20, []]
    none: list[Any] = [None, [], {}]
    odd: list[dict[str, Any]] = [
        *({"attributes": attributes} for attributes in none),
        *({"attributes": {"ApproximateReceiveCount": count}} for count in counts),
        *({name: none} for name in ("receiptHandle", "eventSourceARN") for none in (None, "")),
    ]
    for changed in odd:
        record = sample("s3_in_sqs")["Records"][0] | changed
        (message,) = parse_payload({"Records": [record]}).messages
        assert (message.objects, message.receipt) == ((FIRST,), None), changed


def test_every_sample_is_used() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == {*NAMED, *REFUSED, "poison_in_sqs"}


@pytest.mark.fault(7, caught_by="answer 400; partial batch response")
@pytest.mark.parametrize(
    "payload",
    [
        *map(sample, REFUSED),
        None,
        [],
        [{"bucket": "b", "key": "k"}],
        {},
        {"Records": []},
        {"Records": ["text"]},
        {"Records": [{}]},
        {"Records": [{"s3": {}}]},
        {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {}}}]},
        {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]},
        {"Records": [{"s3": {"bucket": {}, "object": {"key": "k"}}}]},
        {"Records": [{"s3": {"bucket": "b", "object": "k"}}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "not JSON"}}]},
        {"key": "k"},
        {"bucket": "b", "key": ""},
        {"bucket": "", "key": "k"},
        {"bucket": "b", "key": None},
        {"bucket": {"name": "b"}, "key": "k"},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {}},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": 1, "object": 2}},
        {"Type": "Notification", "Message": "not JSON"},
    ],
)
def test_a_payload_that_names_no_object_is_refused(payload: Any) -> None:
    with pytest.raises(UnknownPayload):
        parse_payload(payload)


@pytest.mark.fault(7, caught_by="partial batch response")
def test_a_bad_message_fails_alone_and_not_its_batch() -> None:
    payload = sample("poison_in_sqs")
    first, *poison = parse_payload(payload).messages
    assert (first.id, first.objects, first.error) == (message_id(1), (FIRST,), "")
    assert [message.id for message in poison] == [
        message_id(number) for number in range(2, len(payload["Records"]) + 1)
    ]
    assert [message.id for message in poison if not message.error or message.objects] == []
    bodies: list[Any] = [None, 5, {"bucket": "b", "key": "k"}, "[" * 100_000, "\ud800"]
    payload = sample("s3_in_sqs")
    for body in bodies:
        payload["Records"][0]["body"] = body
        first, second = parse_payload(payload).messages
        assert (first.id, first.objects, bool(first.error)) == (message_id(1), (), True)
        assert second.id == message_id(2)
        assert second.objects == (named("a b+c.jsonl"), named(SECOND_KEY))


def test_a_direct_payload_inside_a_message_is_read_without_decoding_its_key() -> None:
    payload = sample("s3_in_sqs")
    payload["Records"][0]["body"] = json.dumps({"bucket": "b", "key": "a+b%2B.jsonl"})
    delivery = parse_payload(payload)
    assert delivery.messages[0].objects == (S3Object("b", "a+b%2B.jsonl"),)
    assert not delivery.direct


def test_nested_envelopes_have_a_depth_limit() -> None:
    def by_queue(text: str) -> Any:
        return {"Type": "Notification", "Message": text}

    def by_lambda(text: str) -> Any:
        return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": text}}]}

    for envelope in (by_queue, by_lambda):
        payload = sample("s3_put")
        for _ in range(4):
            payload = envelope(json.dumps(payload))
        assert parse_payload(payload).objects == [FIRST]
        with pytest.raises(UnknownPayload):
            parse_payload(envelope(json.dumps(payload)))


def test_an_sqs_record_among_those_of_s3_does_not_hold_them_back() -> None:
    payload = sample("s3_put")
    payload["Records"].append(sample("s3_in_sqs")["Records"][0])
    delivery = parse_payload(payload)
    assert (delivery.objects, delivery.from_sqs) == ([FIRST], False)
    (message,) = delivery.messages
    assert message.error == "a record is not from S3 but from aws:sqs"


def test_each_version_of_an_object_is_given_once_and_a_size_of_the_wrong_type_is_ignored() -> None:
    payload = sample("s3_several_records")
    again = sample("s3_put")["Records"][0]
    again["s3"]["object"]["eTag"] = "other"
    quoted = sample("s3_put")["Records"][0]
    quoted["s3"]["object"]["eTag"] = f'"{ETAG}"'
    payload["Records"] += [*payload["Records"][:2], again, quoted]
    expected = NAMED["s3_several_records"][0]
    assert parse_payload(payload).objects == [*expected, replace(FIRST, etag="other")]
    for size in ("18234", None, True):
        payload = sample("s3_put")
        payload["Records"][0]["s3"]["object"]["size"] = size
        assert [obj.size for obj in parse_payload(payload).objects] == [None]


def created(**more: Any) -> dict[str, Any]:
    """An S3 notification of one record with some fields changed, or left out if they are None."""
    record = notification("b", "section/1/k.jsonl")["Records"][0] | more
    return {"Records": [{name: value for name, value in record.items() if value is not None}]}


def bridged(kind: Any) -> dict[str, Any]:
    """An EventBridge event about an object, with this detail-type, or without one if it is None."""
    detail = {"bucket": {"name": "b"}, "object": {"key": "section/1/k.jsonl"}}
    return {"source": "aws.s3", "detail": detail} | ({} if kind is None else {"detail-type": kind})


# From Amazon S3's user guide: "Supported event types for SQS, SNS, and Lambda" and "EventBridge
# event mapping", without the uploads: one of each kind.
OTHER_EVENTS = (
    *("ObjectRemoved:Delete", "ObjectRestore:Post", "ReducedRedundancyLostObject"),
    *("Replication:OperationNotTracked", "s3:LifecycleExpiration:Delete", "LifecycleTransition"),
    *("IntelligentTiering", "ObjectTagging:Put", "ObjectAcl:Put"),
)
OTHER_DETAIL_TYPES = (
    *("Object Deleted", "Object Restore Initiated", "Object Restore Completed"),
    *("Object Restore Expired", "Object Storage Class Changed", "Object Access Tier Changed"),
    *("Object ACL Updated", "Object Tags Added", "Object Tags Deleted"),
)


@pytest.mark.fault(7, caught_by="payload parsing")
def test_an_event_that_may_be_an_upload_counts_as_one_and_one_of_unknown_kind_is_an_error() -> None:
    for payload in (
        *(created(eventName=name) for name in (None, "", "s3:ObjectCreated:Put")),
        {"Records": [created()["Records"][0] | {"eventName": None}]},
        {"Event": "s3:TestEvent", **created()},
        *map(bridged, (None, "")),
    ):
        uris = [found.uri for found in parse_payload(payload).objects]
        assert uris == ["s3://b/section/1/k.jsonl"], payload
    unknown = map(bridged, ("Object", 5, {"a": 1}))
    for payload in (*unknown, created(eventName="Put"), created(eventName=5)):
        with pytest.raises(UnknownPayload, match="eventName|detail-type"):
            parse_payload(payload)


@pytest.mark.fault(7, caught_by="payload parsing")
def test_s3_events_other_than_uploads_name_no_objects() -> None:
    events = (created(eventName=name) for name in OTHER_EVENTS)
    for payload in (*events, *map(bridged, OTHER_DETAIL_TYPES)):
        assert parse_payload(payload).objects == [], payload


@pytest.mark.check("S13")
def test_a_name_longer_than_s3_allows_is_refused() -> None:
    longest = "section/" + "é" * 508  # Two bytes each: 1,024 with the folder.
    for bucket in ("b", "b" * 255):
        assert parse_payload({"bucket": bucket, "key": longest}).objects[0].key == longest
    for payload in ({"bucket": "b", "key": longest + "x"}, {"bucket": "b" * 256, "key": "k"}):
        with pytest.raises(UnknownPayload, match="longer than S3 allows"):
            parse_payload(payload)


@pytest.mark.slow
@pytest.mark.fault(16, caught_by="limits of an answer")
@pytest.mark.check("S13")
def test_many_bad_records_in_a_message_are_counted_and_only_some_are_described() -> None:
    good = created()["Records"]
    (message,) = parse_payload({"Records": good + [{}] * 100_000}).messages
    assert len(message.objects) == 1
    assert message.error.endswith("; and 99995 more")
    assert len(message.error) < 1000
