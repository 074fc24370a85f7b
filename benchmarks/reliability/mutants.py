"""Mutants of a file: cosmic-ray's operators at the places where a change can matter, and the changed source."""

import ast
import difflib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """The place number `occurrence` where an operator can change a file."""

    operator: str
    occurrence: int
    line: int

    @property
    def name(self) -> str:
        """Of an operator of cosmic-ray's core, and the occurrence."""
        return f"{self.operator.removeprefix('core/')}:{self.occurrence}"

    def source(self, source: str) -> str | None:
        """The changed file, `None` where it is no Python (`*` among parameters is no product)."""
        changed = mutate_code(source, get_operator(self.operator)(), self.occurrence)
        try:
            with warnings.catch_warnings(action="ignore"):
                compile(changed, "mutant", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return None
        return changed


def mutants_of(source: str) -> list[Mutant]:
    """
    All mutants of a file but those of annotations, `__all__`, words of errors and of the log, and what only type
    checkers read.

    Args:
        source (`str`): Of the file.

    Returns:
        `list[Mutant]`: In the order of lines.
    """
    skipped, tree, found = list(_skipped(ast.parse(source))), get_ast(source), []
    nodes = list(ast_nodes(tree))
    for name in operator_names():
        operator = get_operator(name)
        # Those with arguments, names of variables, are for who gives them.
        if operator.arguments():
            continue
        positions = ((node, begin) for node in nodes for begin, _ in operator().mutation_positions(node))
        for occurrence, (node, begin) in enumerate(positions):
            # The star before arguments that have names is no product.
            is_mark = (
                node.parent is not None and node.parent.type in ("parameters", "param") and node.type == "operator"
            )
            if not is_mark and not any(first <= begin < last for first, last in skipped):
                found.append(Mutant(name, occurrence, begin[0]))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.name))


def change(source: str, changed: str) -> str:
    """The lines that differ, those before the arrow and those after."""
    lines = list(difflib.ndiff(source.splitlines(), changed.splitlines()))
    old, new = (" ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return f"{old} -> {new or 'nothing'}"


def _skipped(tree: ast.Module) -> Iterator[tuple[Position, Position]]:
    """Begins and ends of what is not changed."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield _span(annotation)
            case ast.FunctionDef(returns=ast.expr() as returns):
                yield _span(returns)
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                yield _span(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield _span(node)
            case ast.Raise() | ast.Call(func=ast.Attribute(value=ast.Name(id="logger" | "warnings"))):
                yield from (_span(words) for words in ast.walk(node) if isinstance(words, ast.JoinedStr))


def _span(node: ast.stmt | ast.expr) -> tuple[Position, Position]:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def module_name(path: Path, root: Path) -> str:
    """
    What a file is imported as: its packages and itself.

    Args:
        path (`Path`): Of the file.
        root (`Path`): The checkout, whose `modeling/` and `conversion/` are imported below `mmm4rec_hf`.
    """
    path, parts = path.resolve(), [path.stem]
    while (path.parent / "__init__.py").exists():
        path = path.parent
        parts.insert(0, path.name)
    inside = path.parent == root.resolve() and path.name in ("modeling", "conversion")
    return ".".join(["mmm4rec_hf", *parts] if inside else parts)
