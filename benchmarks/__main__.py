"""How fast is it? Uploads and loads beside their yardsticks, measured in the same run.

make bench                            everything: about eight minutes
make bench BENCH=--small              the same with less data: about a minute
make bench BENCH="--small --compare"  fail if a ratio is 30% worse than the committed one
make bench BENCH=--write              write docs/performance.md and the ratios anew
make bench BENCH=--soak               hold a load on the whole stack: three quarters of an hour
make bench BENCH="--soak --minutes 2 --engine current"   the same, shorter
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial

from benchmarks import cases, report, rounds, soak, uploads
from benchmarks.rounds import FILE, TOLERANCE, Result
from benchmarks.setting import FULL, SMALL, Sizes, prepared


def main() -> int:
    """Measure, show the table, and do what the options say; the exit code."""
    about, examples = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=about,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="less data, in about a minute")
    parser.add_argument(
        "--compare", action="store_true", help=f"exit code 1 if a ratio of {FILE.name} is worse"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write the page and {FILE.name}; on a quiet machine"
    )
    parser.add_argument(
        "--soak", action="store_true", help="hold a load instead; --write writes docs/scaling.md"
    )
    parser.add_argument(
        "--minutes", type=float, default=15, help="how long the load is held (%(default)s)"
    )
    parser.add_argument("--engine", choices=soak.ENGINES, help="of the soak (one after the other)")
    options = parser.parse_args()
    if options.soak:
        engines = [options.engine] if options.engine else soak.ENGINES
        return soak.main(engines, options.minutes, to_page=options.write)
    if options.compare and not options.small:
        parser.error(f"--compare needs --small: {FILE.name} has the ratios of a small run")
    if options.write and options.small:
        parser.error("--write measures everything: leave out --small")
    before = rounds.committed() if options.compare else {}
    sizes = SMALL if options.small else FULL
    found = uploads.measured(*sizes.uploads)
    results = run(sizes, before)
    print(report.uploads(found), report.table(results), sep="\n")
    if options.write:
        report.write(report.PERFORMANCE, report.performance(found, results), report.COMMAND)
        rounds.commit(run(SMALL, {}))
    return compared(results, before) if options.compare else 0


def run(sizes: Sizes, before: Mapping[str, float]) -> list[Result]:
    """Measure every group; what seems slower than `before` is measured again."""
    results: list[Result] = []
    with prepared(sizes) as place:
        for make in cases.groups(place):
            with make(place) as group:
                print(f"measuring {group.name}", file=sys.stderr)
                found = rounds.measured(group)
                results += rounds.confirmed(found, partial(rounds.measured, group), before)
    return results


def compared(results: list[Result], before: Mapping[str, float]) -> int:
    """Print each ratio beside the committed one; 1 if any is worse."""
    worse = rounds.slower(results, before)
    for key, ratio in rounds.ratios(results).items():
        was = f"{before[key]:.3g}" if key in before else "not measured"
        verdict = f"more than {TOLERANCE} times as much" if key in worse else ""
        print(f"{key:24}{ratio:>8.3g}  committed: {was:>8}  {verdict}".rstrip())
    if worse:
        print(
            f"slower than before: {', '.join(worse)}. Make it faster or, if that is the price of"
            " something better, run make bench BENCH=--write",
            file=sys.stderr,
        )
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
