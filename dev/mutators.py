"""Planted faults for `make mutants`: every small change of a module's source that a test should notice."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
_LISTS = (ast.Call, ast.List, ast.ListComp)
_MOST_OF_A_KIND = {"return None": 3, "constant": 8}
_MOST_IN_A_LINE = 2


@dataclass(frozen=True)
class Mutant:
    """One planted fault: the text from `start` to `end` (byte offsets) replaced by `now`."""

    kind: str
    line: int
    """Number of the line that the changed text starts in, from 1."""
    code: str
    """That line without the spaces around it. With `was` and `now` it names the mutant after lines have moved."""
    was: str
    now: str
    start: int = field(compare=False)
    end: int = field(compare=False)
    lines: tuple[int, int] | None = field(compare=False)
    """First and last line of the statement, if a function holds it. None: it runs when the module is imported."""

    def __str__(self) -> str:
        return f"[{self.kind}] `{_short(self.was)}  =>  {_short(self.now)}`"

    def applied(self, source: bytes) -> bytes:
        """Return the module's source with the fault in it."""
        return source[: self.start] + self.now.encode() + source[self.end :]


def mutants_of(source: bytes) -> list[Mutant]:
    """List every mutant of a module that still parses, in the order of the text."""
    found: dict[Mutant, None] = {}
    for mutant in _Finder(source).found:
        try:
            ast.parse(mutant.applied(source))
        except SyntaxError:
            continue
        found[mutant] = None
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.now))


def sample(mutants: list[Mutant], most: int, seed: str) -> list[Mutant]:
    """Draw up to `most` mutants: no more than two in a line, and few of the kinds that say least."""
    shuffled = list(mutants)
    random.Random(seed).shuffle(shuffled)
    kinds: dict[str, int] = {}
    lines: dict[int, int] = {}
    chosen: list[Mutant] = []
    for mutant in shuffled:
        full = kinds.get(mutant.kind, 0) >= _MOST_OF_A_KIND.get(mutant.kind, most)
        if full or lines.get(mutant.line, 0) >= _MOST_IN_A_LINE or len(chosen) == most:
            continue
        kinds[mutant.kind] = kinds.get(mutant.kind, 0) + 1
        lines[mutant.line] = lines.get(mutant.line, 0) + 1
        chosen.append(mutant)
    return sorted(chosen, key=lambda mutant: mutant.start)


class _Finder(ast.NodeVisitor):
    """Walks a module and collects its mutants."""

    def __init__(self, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._source = source
        self._rows = source.splitlines(keepends=True)
        self._starts = [0]
        for row in self._rows:
            self._starts.append(self._starts[-1] + len(row))
        self._statement: tuple[int, int] | None = None
        self._depth = 0
        self._assigned: list[set[str]] = [set()]
        self.visit(ast.parse(source))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Byte offsets of a node's text."""
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, kind: str, node: ast.expr | ast.stmt, now: str) -> None:
        code = self._rows[node.lineno - 1].decode().strip()
        start, end = self._span(node)
        lines = self._statement if self._depth else None
        self.found.append(Mutant(kind, node.lineno, code, self._text(node), now, start, end, lines))

    def _change(self, kind: str, node: ast.expr, changed: ast.expr) -> None:
        self._add(kind, node, f"({ast.unparse(changed)})")

    # What is not run, or says nothing about behavior.
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip f-strings: their parts have no places of their own."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visit the value, not the annotation."""
        self._enter(node)
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Skip a parameter's annotation."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit defaults and the body, not decorators and annotations."""
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._depth += 1
        self._assigned.append({arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)})
        for statement in node.body:
            self.visit(statement)
        self._assigned.pop()
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body, not bases and decorators."""
        for statement in node.body:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        """Negate the test; leave out the whole statement if it has no other branch."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._enter(node)
        self._change("negated if", node.test, ast.UnaryOp(ast.Not(), node.test))
        if not node.orelse and not self._text(node).startswith("elif"):
            self._statement = (node.lineno, node.end_lineno or node.lineno)
            self._add("deleted", node, "pass")
            self._enter(node)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the test."""
        self._change("negated if", node.test, ast.UnaryOp(ast.Not(), node.test))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Exchange each comparison for its neighbor and its opposite."""
        for place, operator in enumerate(node.ops):
            for other in _COMPARE.get(type(operator), ()):
                changed = copy.deepcopy(node)
                changed.ops[place] = other()
                self._change("comparison", node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Exchange and/or; leave out each operand."""
        self._change("and/or", node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
        for place in range(len(node.values)):
            rest = [value for number, value in enumerate(node.values) if number != place]
            self._change("dropped operand", node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Exchange the operator; leave out each operand of &, | and of lists that are joined."""
        text = any(
            isinstance(side, ast.JoinedStr | ast.Constant) and not _is_number(side) for side in (node.left, node.right)
        )
        if type(node.op) in _ARITHMETIC and not text:
            self._change("arithmetic", node, ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))
        lists = isinstance(node.op, ast.Add) and all(isinstance(side, _LISTS) for side in (node.left, node.right))
        if isinstance(node.op, ast.BitAnd | ast.BitOr) or lists:
            self._change("dropped operand", node, node.left)
            self._change("dropped operand", node, node.right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Leave out the sign, `not` or `~`."""
        self._change("unary", node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change numbers and booleans a little."""
        value = node.value
        if isinstance(value, bool):
            self._add("constant", node, str(not value))
        elif isinstance(value, int):
            self._add("constant", node, str(value + 1))
            self._add("constant", node, str(value - 1) if value else "(-1)")
        elif isinstance(value, float):
            self._add("constant", node, repr(value * 1.5 if value else 1.0))
            self._add("constant", node, repr(value * 0.5 if value else -1.0))

    def visit_Call(self, node: ast.Call) -> None:
        """Exchange min and max, any and all."""
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _OPPOSITE:
            changed = copy.deepcopy(node)
            if isinstance(changed.func, ast.Name):
                changed.func.id = _OPPOSITE[name]
            elif isinstance(changed.func, ast.Attribute):
                changed.func.attr = _OPPOSITE[name]
            self._change("min/max", node, changed)
        self.generic_visit(node)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for place, loop in enumerate(node.generators):
            for number in range(len(loop.ifs)):
                changed = copy.deepcopy(node)
                del changed.generators[place].ifs[number]
                self._change("dropped filter", node, changed)
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension  # noqa: N815

    def visit_Return(self, node: ast.Return) -> None:
        """Return None."""
        self._enter(node)
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add("return None", node, "return None")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        """Continue instead."""
        self._enter(node)
        self._add("break/continue", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Break instead."""
        self._enter(node)
        self._add("break/continue", node, "break")

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Leave it out; exchange its operator; assign the value alone."""
        self._enter(node)
        self._add("deleted", node, "pass")
        if type(node.op) in _ARITHMETIC:
            other = ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
            self._add("arithmetic", node, ast.unparse(other))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Leave out an assignment to what has a value already: leaving out others is a NameError."""
        self._enter(node)
        names = {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        stored = all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
        if self._depth and (not stored or names <= self._assigned[-1]):
            self._add("deleted", node, "pass")
        self._assigned[-1] |= names
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Leave out a call; skip docstrings."""
        self._enter(node)
        if isinstance(node.value, ast.Constant):
            return
        self._add("deleted", node, "pass" if not isinstance(node.value, ast.Yield | ast.YieldFrom) else "yield from ()")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Leave it out."""
        self._enter(node)
        self._add("deleted", node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave it out; skip the message."""
        self._enter(node)
        self._add("deleted", node, "pass")

    def generic_visit(self, node: ast.AST) -> None:
        """Keep track of the statement that an expression belongs to."""
        if isinstance(node, ast.stmt):
            self._enter(node)
        for child in _children(node):
            self.visit(child)

    def _enter(self, node: ast.stmt) -> None:
        """Note a simple statement's lines, or those of a compound one's head."""
        last = node.end_lineno or node.lineno
        body = getattr(node, "body", None)
        if isinstance(body, list) and body:
            last = max(node.lineno, body[0].lineno - 1)
        self._statement = (node.lineno, last)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Fields in the order of the text: a head's expressions before the statements of the body."""
    children = list(ast.iter_child_nodes(node))
    yield from (child for child in children if not isinstance(child, ast.stmt))
    yield from (child for child in children if isinstance(child, ast.stmt))


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 110 else flat[:107] + "..."
