import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import check, fault
from tests.samples import notification
from xapi_etl_processor.errors import UnknownPayload
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.payloads import Delivery, parse_payload

EVENTS = Path(__file__).parent / "events"
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


# What each sample names, and whether its messages fail one by one; poison has tests of its own.
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


@fault(6, 7, caught_by="reading of payloads")
@pytest.mark.parametrize("name", NAMED)
def test_a_payload_names_these_objects(name: str) -> None:
    objects, from_sqs = NAMED[name]
    delivery = parse_payload(sample(name))
    assert delivery.objects == objects
    assert delivery.from_sqs is from_sqs
    assert [message.error for message in delivery.messages if message.error] == []


def test_every_sample_is_used() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == {*NAMED, *REFUSED, "poison_in_sqs"}


def test_only_a_bucket_and_key_given_by_hand_are_direct() -> None:
    assert [name for name in NAMED if parse_payload(sample(name)).direct] == ["direct"]


@fault(7, caught_by="400, or its own message fails")
@pytest.mark.parametrize("name", REFUSED)
def test_an_event_of_another_service_is_refused(name: str) -> None:
    with pytest.raises(UnknownPayload):
        parse_payload(sample(name))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        5,
        [],
        [{"bucket": "b", "key": "k"}],
        {},
        {"Records": []},
        {"Records": None},
        {"Records": {}},
        {"Records": ["text"]},
        {"Records": [None]},
        {"Records": [{}]},
        {"Records": [{"s3": {}}]},
        {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {}}}]},
        {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]},
        {"Records": [{"s3": {"bucket": {}, "object": {"key": "k"}}}]},
        {"Records": [{"s3": {"bucket": "b", "object": "k"}}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {}}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "not JSON"}}]},
        {"bucket": "b"},
        {"key": "k"},
        {"bucket": "b", "key": ""},
        {"bucket": "", "key": "k"},
        {"bucket": "b", "key": None},
        {"bucket": "b", "key": ["k"]},
        {"bucket": {"name": "b"}, "key": "k"},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {}},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": None},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": 1, "object": 2}},
        {"Type": "Notification", "Message": "not JSON"},
    ],
)
def test_what_names_no_object_is_refused(payload: Any) -> None:
    with pytest.raises(UnknownPayload):
        parse_payload(payload)


def test_each_message_of_a_batch_has_its_own_objects() -> None:
    delivery = parse_payload(sample("s3_in_sqs"))
    assert [(message.id, message.objects) for message in delivery.messages] == [
        (message_id(1), (FIRST,)),
        (message_id(2), (named("a b+c.jsonl"), named(SECOND_KEY))),
    ]


@fault(6, caught_by="reading of payloads")
def test_a_test_event_in_a_batch_is_a_message_without_objects() -> None:
    delivery = parse_payload(sample("s3_test_event_in_sqs"))
    assert [(message.id, message.objects) for message in delivery.messages] == [
        (message_id(1), ()),
        (message_id(2), ()),
    ]


@fault(7, caught_by="its own message fails")
def test_a_bad_message_is_its_own_error_and_not_that_of_its_batch() -> None:
    payload = sample("poison_in_sqs")
    first, *poison = parse_payload(payload).messages
    assert (first.id, first.objects, first.error) == (message_id(1), (FIRST,), "")
    assert [message.id for message in poison] == [
        message_id(number) for number in range(2, len(payload["Records"]) + 1)
    ]
    assert [message.id for message in poison if not message.error or message.objects] == []


@fault(7, caught_by="its own message fails")
@pytest.mark.parametrize("body", [None, 5, {"bucket": "b", "key": "k"}, "[" * 100_000, "\ud800"])
def test_no_message_body_breaks_its_batch(body: Any) -> None:
    payload = sample("s3_in_sqs")
    payload["Records"][0]["body"] = body
    first, second = parse_payload(payload).messages
    assert (first.id, first.objects, bool(first.error)) == (message_id(1), (), True)
    assert second.objects == (named("a b+c.jsonl"), named(SECOND_KEY))


def test_a_message_without_body_is_that_message_s_error() -> None:
    payload = sample("s3_in_sqs")
    del payload["Records"][1]["body"]
    first, second = parse_payload(payload).messages
    assert first.objects == (FIRST,)
    assert (second.id, bool(second.error)) == (message_id(2), True)


def test_direct_payloads_inside_a_message_are_read_as_they_are() -> None:
    payload = sample("s3_in_sqs")
    payload["Records"][0]["body"] = json.dumps({"bucket": "b", "key": "a+b%2B.jsonl"})
    delivery = parse_payload(payload)
    assert delivery.messages[0].objects == (S3Object("b", "a+b%2B.jsonl"),)
    assert not delivery.direct


def test_envelopes_in_envelopes_end_somewhere() -> None:
    payload = sample("s3_put")
    for _ in range(8):  # each one doubles the backslashes, so not many more fit into a message
        payload = {"Type": "Notification", "Message": json.dumps(payload)}
    with pytest.raises(UnknownPayload):
        parse_payload(payload)


def test_what_is_named_twice_is_one_object_in_the_order_of_first_mention() -> None:
    payload = sample("s3_several_records")
    payload["Records"] += payload["Records"][:2]
    assert parse_payload(payload).objects == NAMED["s3_several_records"][0]


def test_another_version_of_an_object_is_another_object() -> None:
    payload = sample("s3_put")
    again = sample("s3_put")["Records"][0]
    again["s3"]["object"]["eTag"] = "other"
    payload["Records"].append(again)
    assert [obj.etag for obj in parse_payload(payload).objects] == [ETAG, "other"]


def test_quotes_around_an_etag_are_no_part_of_it() -> None:
    payload = sample("s3_put")
    payload["Records"][0]["s3"]["object"]["eTag"] = f'"{ETAG}"'
    assert parse_payload(payload).objects == [FIRST]


@pytest.mark.parametrize("size", ["18234", None, True])
def test_a_size_of_the_wrong_shape_is_not_told(size: Any) -> None:
    payload = sample("s3_put")
    payload["Records"][0]["s3"]["object"]["size"] = size
    assert [obj.size for obj in parse_payload(payload).objects] == [None]


def test_a_payload_is_not_changed_by_reading_it() -> None:
    for name in NAMED:
        payload = sample(name)
        assert isinstance(parse_payload(payload), Delivery)
        assert payload == sample(name)


def created(**more: Any) -> dict[str, Any]:
    """A notification of S3 with one record, changed by hand; what is None is left out."""
    record = notification("b", "section/1/k.jsonl")["Records"][0] | more
    return {"Records": [{name: value for name, value in record.items() if value is not None}]}


def bridged(kind: Any) -> dict[str, Any]:
    """An EventBridge event about an upload, of another detail-type."""
    detail = {"bucket": {"name": "b"}, "object": {"key": "section/1/k.jsonl"}}
    return {"source": "aws.s3", "detail": detail} | ({} if kind is None else {"detail-type": kind})


@fault(7, caught_by="what is not said to be something else was created")
@pytest.mark.parametrize(
    "payload",
    [
        created(eventName=None),
        {"Records": [created()["Records"][0] | {"eventName": None}]},
        created(eventName=""),
        created(eventName="s3:ObjectCreated:Put"),
        {"Event": "s3:TestEvent", **created()},
        bridged(None),
        bridged(""),
    ],
)
def test_an_event_that_does_not_say_its_kind_is_not_passed_over(payload: Any) -> None:
    assert [o.uri for o in parse_payload(payload).objects] == ["s3://b/section/1/k.jsonl"]


@fault(7, caught_by="only what S3 is known to send is passed over")
@pytest.mark.parametrize(
    "payload",
    [*map(bridged, ("Object", 5, {"a": 1})), created(eventName="Put"), created(eventName=5)],
)
def test_an_event_of_no_known_kind_is_an_error(payload: Any) -> None:
    with pytest.raises(UnknownPayload, match="eventName|detail-type"):
        parse_payload(payload)


@fault(7, caught_by="reading of payloads")
@pytest.mark.parametrize(
    "payload",
    [
        created(eventName="ObjectRemoved:DeleteMarkerCreated"),
        created(eventName="s3:LifecycleExpiration:Delete"),
        created(eventName="ObjectTagging:Put"),
        bridged("Object Tags Added"),
        bridged("Object Restore Completed"),
    ],
)
def test_what_s3_tells_beside_uploads_names_nothing(payload: Any) -> None:
    assert parse_payload(payload).objects == []


@check("S13")
def test_a_name_that_s3_cannot_know_is_refused_and_not_repeated() -> None:
    longest = "section/" + "é" * 508  # Of two bytes each: 1,024 with the folder.
    assert parse_payload({"bucket": "b", "key": longest}).objects[0].key == longest
    for payload in ({"bucket": "b", "key": longest + "x"}, {"bucket": "b" * 256, "key": "k"}):
        with pytest.raises(UnknownPayload, match="longer than S3 allows"):
            parse_payload(payload)


@fault(16, caught_by="caps on what is said of a message")
@check("S13")
def test_of_a_message_with_many_bad_records_some_are_told_and_all_are_counted() -> None:
    good = created()["Records"]
    (message,) = parse_payload({"Records": good + [{}] * 100_000}).messages
    assert len(message.objects) == 1
    assert message.error.endswith("; and 99995 more")
    assert len(message.error) < 1000
