"""Expressions of SQLite's that mean the same in PostgreSQL, after a translation; all others raise.

sqlglot knows the grammar of both; what it does not know is where the same words mean different
things: LIKE minds case in PostgreSQL, casts round, ``lower()`` folds more than ASCII, booleans are
no numbers, a NOCASE column compares without regard to case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from ferry.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

# Functions (and what sqlglot counts as such) that mean the same on both sides.
_SAME_MEANING = (
    exp.Abs,
    exp.And,
    exp.Case,
    exp.Cast,
    exp.Coalesce,
    exp.Collate,
    exp.If,
    exp.Length,
    exp.Lower,
    exp.Nullif,
    exp.Or,
    exp.Substring,
    exp.Trim,
    exp.Upper,
)
_AGGREGATES = (exp.Avg, exp.Count, exp.Exists, exp.Max, exp.Min, exp.Sum)
_INTEGERS = (Kind.INTEGER, Kind.BIGINT)
_NUMBERS = (*_INTEGERS, Kind.DOUBLE)
_ORDERED = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.Ordered, exp.Group, exp.Max, exp.Min)


class UntranslatableError(Exception):
    """An expression has no equivalent in PostgreSQL."""


class Meanings:
    """Translates the nodes of a tree whose columns bear PostgreSQL's names already."""

    def __init__(
        self,
        kind_of: Callable[[str], Kind | None],
        is_nocase: Callable[[str], bool],
        *,
        aggregates: bool = False,
        ascii_case: bool = True,
    ) -> None:
        """Take what is known about columns by name: kind (None: nothing) and collation.

        SQLite's lower() and upper() know the 26 ASCII letters only; with ``ascii_case`` so do ours.
        """
        self._kind_of = kind_of
        self._is_nocase = is_nocase
        self._functions = (*_SAME_MEANING, *(_AGGREGATES if aggregates else ()))
        self._ascii_case = ascii_case

    def apply(self, tree: exp.Expression) -> exp.Expression:
        """Return the tree with PostgreSQL's meanings; raises UntranslatableError."""
        self._refuse_folded_order(tree)
        whole = exp.Paren(this=tree.copy())
        # From the leaves up, so that what is put around a node is not looked at again.
        for node in reversed(list(whole.this.bfs())):
            new = self._node(node)
            if new is not node:
                node.replace(new)
        return whole.this

    def _node(self, node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Glob):
            raise UntranslatableError("PostgreSQL has no GLOB")
        if isinstance(node, (exp.Func, exp.Anonymous)) and not isinstance(node, self._functions):
            raise UntranslatableError(f"PostgreSQL has no equivalent of {node.sql('sqlite')}")
        if isinstance(node, exp.Collate):
            if node.expression.name.upper() != "BINARY":
                raise UntranslatableError(f"PostgreSQL has no equivalent of {node.sql('sqlite')}")
            return node.this
        if isinstance(node, exp.Like):
            return _like(node)
        if isinstance(node, (exp.EQ, exp.NEQ, exp.Is)):
            self._compare(node)
        elif isinstance(node, exp.In):
            self._compare_with_several(node)
        elif isinstance(node, exp.Cast):
            return self._cast(node)
        elif isinstance(node, exp.Substring):
            _check_substring(node)
        elif isinstance(node, exp.Mod):
            return _without_zero(node)
        elif isinstance(node, (exp.Lower, exp.Upper)) and self._ascii_case:
            node.set("this", _bytewise(node.this))
        return node

    def _folds(self, node: exp.Expression | None) -> bool:
        return isinstance(node, exp.Column) and self._is_nocase(node.name)

    def _is_boolean(self, node: exp.Expression | None) -> bool:
        return isinstance(node, exp.Column) and self._kind_of(node.name) == Kind.BOOLEAN

    def _refuse_folded_order(self, tree: exp.Expression) -> None:
        """Refuse what depends on how a NOCASE column sorts or groups."""
        for column in tree.find_all(exp.Column):
            if not self._folds(column):
                continue
            grouped = any(
                select.args.get("distinct")
                for select in (column.find_ancestor(exp.Select), column.find_ancestor(exp.Union))
                if select is not None
            )
            if isinstance(column.parent, _ORDERED) or grouped:
                raise UntranslatableError(f"{column.name} is compared as NOCASE says")

    def _compare(self, node: exp.EQ | exp.NEQ | exp.Is) -> None:
        left, right = node.this, node.expression
        if self._is_boolean(left):
            node.set("expression", _as_boolean(right))
        elif self._is_boolean(right):
            node.set("this", _as_boolean(left))
        elif self._folds(left if isinstance(left, exp.Column) else right) and not isinstance(
            right, exp.Null
        ):  # the left column's collation counts, and the right one's beside a constant
            node.set("this", _folded(left))
            node.set("expression", _folded(right))

    def _compare_with_several(self, node: exp.In) -> None:
        if self._is_boolean(node.this):
            node.set("expressions", [_as_boolean(item) for item in node.expressions])
        elif self._folds(node.this):
            if not node.expressions:
                raise UntranslatableError(f"{node.this.name} is compared as NOCASE says")
            node.set("expressions", [_folded(item) for item in node.expressions])
            node.set("this", _folded(node.this))

    def _cast(self, node: exp.Cast) -> exp.Expression:
        """Return a cast that neither rounds nor writes numbers in another way."""
        kind, to = self._kind(node.this), node.to.this
        if to in exp.DataType.INTEGER_TYPES and kind in _NUMBERS:
            value = node.this
            if kind == Kind.DOUBLE:  # PostgreSQL would round
                value = exp.Anonymous(this="trunc", expressions=[value])
            return exp.Cast(this=value, to=exp.DataType.build("bigint"))
        if to in exp.DataType.TEXT_TYPES and kind in (*_INTEGERS, Kind.TEXT):
            return node
        if to in (exp.DataType.Type.FLOAT, exp.DataType.Type.DOUBLE) and kind in _NUMBERS:
            return exp.Cast(this=node.this, to=exp.DataType.build("double"))
        raise UntranslatableError(f"{node.sql('sqlite')} would not be the same value")

    def _kind(self, node: exp.Expression) -> Kind | None:
        """Return what kind an expression's values are of, as far as that is plain to see."""
        if isinstance(node, exp.Column):
            return self._kind_of(node.name)
        if isinstance(node, exp.Literal):
            if node.is_string:
                return Kind.TEXT
            return Kind.INTEGER if node.this.isdigit() else Kind.DOUBLE
        if isinstance(node, (exp.Paren, exp.Neg, exp.Abs)):
            return self._kind(node.this)
        if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div)):
            kinds = {self._kind(node.this), self._kind(node.expression)}
            if kinds <= {*_INTEGERS}:
                return Kind.BIGINT
            return Kind.DOUBLE if kinds <= {*_NUMBERS} else None
        return Kind.BIGINT if isinstance(node, (exp.Length, exp.Count)) else None


def _bytewise(node: exp.Expression) -> exp.Expression:
    """Return a text under the collation "C", which knows ASCII only."""
    if isinstance(node, exp.Collate):
        return node
    return exp.Collate(this=node, expression=exp.to_identifier("C", quoted=True))


def _folded(node: exp.Expression) -> exp.Expression:
    return exp.Lower(this=_bytewise(node))


def _as_boolean(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Literal) and not node.is_string and node.this in ("0", "1"):
        return exp.Boolean(this=node.this == "1")
    return node


def _like(node: exp.Like) -> exp.Expression:
    """Return an ILIKE over ASCII letters; a backslash is nothing special in SQLite."""
    pattern = node.expression
    like = exp.ILike(this=_bytewise(node.this), expression=pattern)
    plain = isinstance(pattern, exp.Literal) and "\\" not in pattern.this
    if plain or isinstance(node.parent, exp.Escape):
        return like
    return exp.Escape(this=like, expression=exp.Literal.string(""))


def _check_substring(node: exp.Substring) -> None:
    """Refuse positions that count from the end, or cannot be told to be no such."""
    start, length = node.args.get("start"), node.args.get("length")
    whole = all(
        isinstance(number, exp.Literal) and number.this.isdigit()
        for number in (start, length)
        if number is not None
    )
    if start is None or not whole or int(start.this) < 1:
        raise UntranslatableError(f"{node.sql('sqlite')} may count from the end")


def _without_zero(node: exp.Mod) -> exp.Expression:
    """Let the remainder of a division by zero be NULL, as in SQLite."""
    if isinstance(node.expression, (exp.Nullif, exp.Literal)):
        return node
    divisor = exp.Nullif(this=node.expression, expression=exp.Literal.number(0))
    return exp.Mod(this=node.this, expression=divisor)
