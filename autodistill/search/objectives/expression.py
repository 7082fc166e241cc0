"""Small safe expressions over a trial's columns: ``latency_ms <= 5 and params <= 2e6``. Never evaluated as Python.

``teacher`` is the teacher's value of the column that it is compared with: ``accuracy >= teacher - 0.05``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.search.objectives.within_teacher import less

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_HELP = "Use comparisons of columns with numbers or 'text', joined by and / or / not, e.g. 'latency_ms <= 5'."
_MAX_LENGTH = 500
TEACHER = "teacher"
_SUMS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: less,
    ast.Mult: operator.mul,
}


def matches(expression: str, columns: Mapping[str, Any]) -> bool:
    """Return whether ``columns`` satisfy ``expression``.

    Args:
        expression: comparisons, joined by ``and``, ``or``, ``not``.
        columns: values by name; those of the teacher are called ``teacher.accuracy`` and so on.

    Raises:
        UsageError: the expression is too long or invalid, or contains anything but comparisons of columns, numbers
            and texts, sums, and boolean operators.
    """
    if len(expression) > _MAX_LENGTH:
        raise UsageError(f"the expression has {len(expression)} characters; at most {_MAX_LENGTH} are read. {_HELP}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"cannot read the expression {expression!r}. {_HELP}") from None
    return bool(_truth(tree.body, columns, expression))


def _truth(node: ast.expr, columns: Mapping[str, Any], source: str) -> bool:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, columns, source) for value in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _truth(node.operand, columns, source)
    if isinstance(node, ast.Compare):
        items = (node.left, *node.comparators)
        named = [ast.unparse(item) for item in items if ast.unparse(item) in columns]
        if named and (known := columns.get(f"{TEACHER}.{named[0]}")) is not None:
            columns = {**columns, TEACHER: known}  # the teacher's value of this column
        values = [_value(item, columns, source) for item in items]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return all(_compare(op, left, right, source) for op, left, right in pairs)
    raise UsageError(f"{ast.unparse(node)!r} in {source!r} is not a comparison. {_HELP}")


def _compare(op: ast.cmpop, left: Any, right: Any, source: str) -> bool:
    if type(op) not in _COMPARE:
        raise UsageError(f"an operator in {source!r} is not allowed. {_HELP}")
    if left is None or right is None:  # a comparison with a setting that this trial does not have is false
        return False
    try:
        return _COMPARE[type(op)](left, right)
    except TypeError:
        raise UsageError(f"cannot compare {left!r} with {right!r} in {source!r}. {_HELP}") from None


def _value(node: ast.expr, columns: Mapping[str, Any], source: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        if isinstance(node.operand.value, (int, float)):
            return -node.operand.value
    elif isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        left, right = _value(node.left, columns, source), _value(node.right, columns, source)
        if left is None or right is None:
            return None
        if isinstance(left, str) or isinstance(right, str):
            raise UsageError(f"{ast.unparse(node)!r} in {source!r} calculates with text. {_HELP}")
        return _SUMS[type(node.op)](left, right)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        name = ast.unparse(node)
        if name in columns:
            return columns[name]
        if name.split(".", 1)[0] == TEACHER:
            raise UsageError(
                f"{name!r} in {source!r} is unknown: it means the teacher's value of the column it is compared with, "
                "e.g. 'accuracy >= teacher - 0.05', and needs a study with a teacher."
            )
        if name.split(".", 1)[0] in ("student", "distillation", "train"):
            return None
        raise UnknownNameError("column", name, tuple(columns), f"Found in {source!r}.")
    raise UsageError(f"{ast.unparse(node)!r} in {source!r} is not a column, a number or a text. {_HELP}")
