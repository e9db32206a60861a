"""Makes a sample of faults with cosmic-ray, as JSON lines: one for each place in the code.

    .venv/mutants/bin/python -m tests.mutants.generate --count 200 --seed 1 --only storage/

Runs in the environment of the tool, without the project's own libraries.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from parso.python.tree import PythonNode
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).parent.parent.parent


class LeaveOutStatement(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """Replaces a statement by `pass`. The tool's own operators leave nothing out."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[tuple[Any, Any]]:
        """The place of a statement that does something."""
        kept = ("import_name", "import_from", "string", "strings")
        if node.type == "simple_stmt" and node.children[0].type not in kept:
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """The statement left out."""
        first, *_ = node.children
        return get_ast(f"{first.get_first_leaf().prefix}pass\n").children[0]

    @classmethod
    def examples(cls) -> tuple[()]:
        """None."""
        return ()


class LeaveOutArgument(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """Leaves one of several arguments of a call out."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[tuple[Any, Any]]:
        """The places of the arguments."""
        if node.type == "arglist":
            for argument in node.children[::2]:
                yield argument.start_pos, argument.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """The list of arguments without one, and without its comma."""
        children = list(node.children)
        del children[2 * index : 2 * index + 2]
        return PythonNode("arglist", children)

    @classmethod
    def examples(cls) -> tuple[()]:
        """None."""
        return ()


class Place(NamedTuple):
    """Where an operator changes a file; `occurrence` counts the places of the operator."""

    file: str
    line: int
    column: int
    operator: Any
    occurrence: int


def operators() -> list[Any]:
    """The tool's operators whose faults are like people's, and ours."""
    kinds = [cosmic_ray.plugins.get_operator(name) for name in cosmic_ray.plugins.operator_names()]
    usual = [kind() for kind in kinds if not kind.arguments() and _is_usual(kind.__name__)]
    return sorted((*usual, LeaveOutStatement(), LeaveOutArgument()), key=lambda o: type(o).__name__)


def _is_usual(operator: str) -> bool:
    """Whether its faults do not fail at once, such as 1 & [2], and change something."""
    kind, _, change = operator.partition("Operator_")
    old, _, new = change.partition("_")
    if kind == "ReplaceComparison":
        return ("Is" in old) == ("Is" in new)
    return new not in {"Pow", "LShift", "RShift"} and not new.startswith("Bit")


def places(file: str, kinds: list[Any]) -> Iterator[Place]:
    """Every place of a file that an operator can change."""
    tree = get_ast((ROOT / file).read_text())
    for kind in kinds:
        positions = (p for node in ast_nodes(tree) for p in kind.mutation_positions(node))
        for occurrence, (start, _) in enumerate(positions):
            yield Place(file, start[0], start[1], kind, occurrence)


def meaning(code: str) -> str:
    """The code as far as it matters when it runs: no annotations, docstrings or comments."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("annotation")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.dump(tree)


def changed(place: Place) -> str | None:
    """The file with the change; None if it cannot run, or runs as before."""
    original = (ROOT / place.file).read_text()
    code = mutate_code(original, place.operator, place.occurrence)
    try:
        return code if code and meaning(code) != meaning(original) else None
    except SyntaxError:
        return None


def main() -> int:
    """Print the sample."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.generate", description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", default="", help="only files whose name contains this")
    options = parser.parse_args()
    files = sorted((ROOT / "xapi_etl_processor").rglob("*.py"))
    names = [name for path in files if options.only in (name := str(path.relative_to(ROOT)))]
    found = [place for name in names for place in places(name, operators())]
    # One operator can change a comparison in ten ways: each place counts once.
    random.Random(options.seed).shuffle(found)
    once = {(place.file, place.line, place.column): place for place in reversed(found)}
    left = options.count
    for place in found:
        if (
            left
            and once[place.file, place.line, place.column] is place
            and (code := changed(place))
        ):
            about = type(place.operator).__name__
            print(
                json.dumps({"file": place.file, "line": place.line, "about": about, "code": code})
            )
            left -= 1
    print(f"{options.count - left} of {len(once)} places, seed {options.seed}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
