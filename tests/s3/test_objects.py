"""What the name of an S3 object says: its section, its timestamp, and whether it is a bundle."""

import pytest

from xapi_etl_processor.s3.objects import S3Object

# 2024-01-01T12:00:00Z is 19,723 days and twelve hours after 1970.
NOON = (19_723 * 24 + 12) * 3_600_000


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("section/2001/video/2024-01-01T12-00-00.123456Z_5f0c.jsonl", 2001),
        ("archive/2023/section/7/page_viewed/x.jsonl", 7),
        ("section/0/video/x.jsonl", 0),
        ("section/007/video/x.jsonl", 7),
        ("section/1/section/2/x.jsonl", 1),
        ("section/18446744073709551615/x.jsonl", 18_446_744_073_709_551_615),
        ("section/18446744073709551616/x.jsonl", "18446744073709551616"),
        ("section/BIO101/video/x.jsonl", "BIO101"),
        ("section/Médecine 1/video/x.jsonl", "Médecine 1"),
        ("section/20x1/video/x.jsonl", "20x1"),
        ("section/-1/video/x.jsonl", "-1"),
        ("section/٢٠٠١/video/x.jsonl", "٢٠٠١"),
        ("section//video/x.jsonl", None),
        ("section/2001.jsonl", None),
        ("subsection/2001/video/x.jsonl", None),
        ("Lernplattform/vidéo +1.jsonl", None),
        ("x.jsonl", None),
    ],
)
def test_the_section_is_the_number_or_the_text_in_the_key(
    key: str, section: int | str | None
) -> None:
    assert S3Object("b", key).section_id == section


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2024-01-01T12-00-00.123456Z_5f0c1b.jsonl", NOON + 123),
        ("2024-01-01T12-00-00.123Z_5f0c1b.jsonl", NOON + 123),
        ("2024-01-01T12-00-00.5Z_5f0c1b.jsonl", NOON + 500),
        ("2024-01-01T12-00-00.999999999Z_5f0c1b.jsonl", NOON + 999),
        ("2024-01-01T12-00-00Z_5f0c1b.jsonl", NOON),
        ("2024-01-01T12:00:00.123456Z_5f0c1b.jsonl", NOON + 123),
        ("2024-01-01T12:00:00Z_5f0c1b.jsonl.gz", NOON),
        ("2024-01-01T12-00-00Z.jsonl", NOON),
        ("2024-01-01T12-00-00_5f0c1b.jsonl", NOON),
        ("1969-12-31T23-59-59Z_5f0c1b.jsonl", -1000),
        ("x.jsonl", None),
        ("", None),
        ("2024-01-01T12-00-00Z_a/x.jsonl", None),
        ("bundle_2024-01-01T12-00-00Z.jsonl", None),
        ("2024-01-01_5f0c.jsonl", None),
        ("2024-13-01T12-00-00Z_5f0c.jsonl", None),
        ("2023-02-29T12-00-00Z_5f0c.jsonl", None),
        ("2024-01-01T25-00-00Z_5f0c.jsonl", None),
        ("2024-01-01T12-00-00Zulu_5f0c.jsonl", None),
        ("٢٠٢٤-01-01T12-00-00Z_5f0c.jsonl", None),
        # Out of DateTime64's range.
        ("1800-01-01T12-00-00Z_5f0c.jsonl", None),
    ],
)
def test_the_timestamp_is_at_the_start_of_the_file_name(name: str, expected: int | None) -> None:
    for key in (f"section/2001/video/{name}", name):
        assert S3Object("b", key).key_timestamp_ms == expected


def test_a_bundle_is_recognized_by_its_extension() -> None:
    bundles = ["a.jsonl", "a.jsonl.gz", "a b+c é.jsonl", "A.JSONL"]
    others = ["a.json", "a.gz", "a.jsonl.bak", "a.jsonl/", "jsonl", "a.jsonl.gz.tmp"]
    assert [key for key in bundles + others if S3Object("b", key).is_bundle] == bundles
