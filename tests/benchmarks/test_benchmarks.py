"""What `make bench` makes of its measurements. The measurements themselves are in no test."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from benchmarks import report, rounds
from benchmarks.rounds import Group, Result, Row, measured
from tests.faults.tcp_proxy import tcp_proxy


def row(**more: object) -> Row:
    figures = {"ours": "ours.cpu", "yardstick": "theirs.cpu"}
    return Row(**{"key": "a", "about": "a", "unit": "ms", **figures, **more})  # type: ignore[arg-type]


def found(ratio: float, key: str = "a") -> Result:
    return Result(row(key=key), ratio, 1.0, ratio)


def series(*seconds: float) -> Callable[[], dict[str, float]]:
    left = iter(seconds)
    return lambda: {"cpu": next(left)}


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_the_first_round_does_not_count() -> None:
    """The machine is twice as slow in the third round, which the ratio does not see."""
    trials = {"ours": series(90, 1, 2, 3), "theirs": series(1, 2, 4, 3)}
    [result] = measured(Group("group", trials, (row(most_ratio=0.5),), 3))
    assert (result.ours, result.yardstick, result.ratio) == (2000, 3000, 0.5)
    assert result.meets_its_aim is True


def test_figures_are_shown_for_one_of_many_in_the_unit_of_the_row() -> None:
    trials = {"ours": series(2), "theirs": series(4)}
    rows = (row(), row(unit="µs of processor a statement"), row(yardstick=""))
    found = measured(Group("group", trials, rows, 1, per=1000, warm_up=0))
    assert [(one.ours, one.yardstick) for one in found] == [(2, 4), (2000, 4000), (2, None)]


def test_an_aim_is_missed_if_the_figure_or_the_ratio_is_above_it() -> None:
    assert Result(row(), 5, 10, 0.5).meets_its_aim is None
    assert Result(row(most=5, most_ratio=0.5), 5, 10, 0.5).meets_its_aim is True
    assert Result(row(most=4), 5, 10, 0.5).meets_its_aim is False
    assert Result(row(most=5, most_ratio=0.4), 5, 10, 0.5).meets_its_aim is False


def test_a_ratio_that_is_a_third_worse_is_slower_and_one_that_is_a_quarter_worse_is_not() -> None:
    assert rounds.slower([found(1.34)], {"a": 1.0}) == ["a"]
    assert rounds.slower([found(1.25)], {"a": 1.0}) == []
    assert rounds.slower([found(9.0, key="new")], {"a": 1.0}) == []


def test_what_seems_slower_is_measured_again_up_to_twice() -> None:
    tries = iter([[found(2.0), found(9.0, "b")], [found(1.1), found(9.0, "b")]])
    before = {"a": 1.0, "b": 1.0}
    results = rounds.confirmed([found(3.0), found(1.0, "b")], lambda: next(tries), before)
    assert [result.ratio for result in results] == [1.1, 1.0]
    tries = iter([[found(2.0)], [found(2.5)]])
    [result] = rounds.confirmed([found(3.0)], lambda: next(tries), before)
    assert result.ratio == 2.0


def test_uploads_are_shown_beside_the_least_that_they_wait_for_round_trips() -> None:
    """The reader looks late at the last of them."""
    taken = [
        {"row": row, "row, least": least, "answer": 2 * row, "answer, least": 0.5}
        for row, least in ((0.25, 0.22), (0.28, 0.22), (0.31, 0.3))
    ]
    shown = report.uploads({"warm": taken}).splitlines()[2]
    assert shown == "| warm | 3 | 220 ms | 280 ms | 310 ms | 500 ms | 560 ms | 620 ms |"


def test_pieces_through_a_slow_network_are_on_their_way_together_and_stay_in_order() -> None:
    """Connecting takes 200 ms, and each piece 100 ms more: the last of five, sent after 40 ms,
    arrives after 340 ms, and its answer after 440 ms.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        tcp_proxy(server.getsockname()[1]) as proxy,
    ):
        proxy.delay = 0.2
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            for number in range(5):
                client.sendall(b"%d" % number)
                time.sleep(0.01)
            upstream, received = server.accept()[0], b""
            while len(received) < 5:
                received += upstream.recv(5)
            arrived = time.monotonic() - started
            upstream.sendall(b"answer")
            upstream.close()
            assert (received, client.recv(6)) == (b"01234", b"answer")
            answered = time.monotonic() - started
            assert client.recv(1) == b""
    assert 0.3 <= arrived < 0.7
    assert arrived + 0.1 <= answered < arrived + 0.4
    assert (proxy.turn, proxy.connections) == (1, 1)
