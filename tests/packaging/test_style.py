"""Sizes that no linter here counts: modules stay under 400 lines, functions under 60, and half of them under 15."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("podium", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]


def function_sizes() -> Iterator[tuple[str, int]]:
    """Yield every function of the packages with its number of lines, decorators left out."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_modules_are_short() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert len(lines) > 50
    assert {name: size for name, size in lines.items() if size > 400} == {}


def test_functions_are_short() -> None:
    sizes = dict(function_sizes())
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert statistics.median(sizes.values()) <= 15
