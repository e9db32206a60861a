"""How fast is it? Every case beside its yardstick, measured in the same run.

make bench                            everything: about six minutes
make bench BENCH=--small              the same with less data: less than a minute
make bench BENCH="--small --compare"  fail if a ratio is 30% worse than the committed one
make bench BENCH=--write              write docs/performance.md, its chart and the ratios anew
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from benchmarks import cases, ratios, report
from benchmarks.rounds import Result, measured
from benchmarks.setting import FULL, SMALL, Sizes, prepared
from benchmarks.static_s3 import NginxFailed
from deployment.package import PackageError
from local.lambda_runtime import RuntimeFailed

_errors = Console(stderr=True)


def main() -> int:
    """Measure, show the table, and do what the options say; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.split("\n\n")[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="less data, in less than a minute")
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"compare the ratios with {ratios.FILE.name}: exit code 1 if one is worse",
    )
    parser.add_argument(
        "--others", action="store_true", help="also Ralph and dlt, if make has installed them"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write {report.PAGE.name}, its chart and {ratios.FILE.name}; on a quiet machine",
    )
    options = parser.parse_args()
    if options.compare and not options.small:
        parser.error(f"--compare needs --small: {ratios.FILE.name} has the ratios of a small run")
    if options.write and options.small:
        parser.error("--write measures everything: leave out --small")
    before = ratios.committed() if options.compare else {}
    try:
        extra = [cases.others] if options.others or options.write else []
        results = run(SMALL if options.small else FULL, before, extra)
        console = Console(width=None if sys.stdout.isatty() else 180)
        console.print(report.table(results))
        if options.write:
            from benchmarks import chart

            report.write(results)
            chart.write({found.row.key: found for found in results})
            ratios.write(run(SMALL, {}))
    except NginxFailed as error:
        print(error, file=sys.stderr)
        return 1
    if options.compare:
        ratios.show(results, before, console)
        if worse := ratios.slower(results, before):
            print(
                f"slower than before: {', '.join(worse)}. Make it faster or, if that is the price"
                " of something better, run make bench BENCH=--write",
                file=sys.stderr,
            )
            return 1
    return 0


def run(sizes: Sizes, before: dict[str, float], extra: Sequence[cases.Case] = ()) -> list[Result]:
    """Measure every group; what seems slower than `before` is measured again."""
    results: list[Result] = []
    with _errors.status("preparing objects") as status, prepared(sizes) as place:
        for make in (*cases.groups(place), *extra):
            try:
                with make(place) as group:
                    status.update(f"measuring {group.name}")
                    found = measured(group)
                    results += ratios.confirmed(found, partial(measured, group), before)
            except (PackageError, RuntimeFailed) as error:
                print(f"the package's cold start is left out: {error}", file=sys.stderr)
    return results


if __name__ == "__main__":
    sys.exit(main())
