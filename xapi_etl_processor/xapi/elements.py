"""The elements of lists in a statement, which no path leads into."""

from __future__ import annotations

import msgspec

Scalar = str | int | float | bool | None
"""What a path may lead to: anything in JSON but an object or an array."""


class Definition(msgspec.Struct, frozen=True, gc=False):
    """The part that is read of the definition of an activity in a list."""

    type: Scalar = None


class Activity(msgspec.Struct, frozen=True, gc=False):
    """An element of `contextActivities`."""

    id: Scalar = None
    definition: Definition = Definition()


class Account(msgspec.Struct, frozen=True, gc=False):
    """A member's account."""

    name: Scalar = None
    homePage: Scalar = None  # noqa: N815  # the JSON key


class Member(msgspec.Struct, frozen=True, gc=False):
    """An agent of a Group."""

    account: Account = Account()
    mbox: Scalar = None
    mbox_sha1sum: Scalar = None
    openid: Scalar = None


Activities = tuple[Activity, ...] | None
Members = tuple[Member, ...] | None
