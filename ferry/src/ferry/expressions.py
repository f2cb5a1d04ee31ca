"""Expressions of SQLite's that mean the same in PostgreSQL, after a translation; all others raise.

sqlglot knows the grammar of both; what it does not know is where the same words mean different
things: LIKE minds case in PostgreSQL, casts round, ``lower()`` folds more than ASCII, booleans are
no numbers, a NOCASE column compares without regard to case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from ferry.schema import ICU
from ferry.types import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
_TEXTS = (exp.Lower, exp.Upper, exp.Trim, exp.Substring, exp.DPipe)
_COMPARISONS = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between)
_EQUALITIES = (exp.EQ, exp.NEQ, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ)
# Where SQLite goes by a column's collation, beside the equalities.
_ORDERED = (*_COMPARISONS, exp.Ordered, exp.Group, exp.Max, exp.Min, exp.Distinct, exp.Case)
_SET_OPERATIONS = (exp.Union, exp.Intersect, exp.Except)


class UntranslatableError(Exception):
    """An expression has no equivalent in PostgreSQL."""


class Meanings:
    """Translates the nodes of a tree whose columns bear PostgreSQL's names already."""

    def __init__(
        self,
        kind_of: Callable[[str], Kind | None],
        collation_of: Callable[[str], str],
        *,
        aggregates: bool = False,
        exact: bool = True,
        json: bool = False,
    ) -> None:
        """Take what is known about columns by name: kind (None: nothing) and collation.

        With ``exact`` texts are compared bytewise and integers have 64 bits, as in SQLite; without,
        an expression looks as a program would write it, so that an index fits its queries. With
        ``json`` parts of JSON may be taken out.
        """
        self._kind_of = kind_of
        self._collation_of = collation_of
        self._functions = (*_SAME_MEANING, *(_AGGREGATES if aggregates else ()))
        self._exact = exact
        self._json = json

    def apply(self, tree: exp.Expression) -> exp.Expression:
        """Return the tree with PostgreSQL's meanings; raises UntranslatableError."""
        tree = tree.copy()
        self._look_behind_aliases(tree)
        self._refuse_folded_order(tree)
        whole = exp.Paren(this=tree)
        # From the leaves up, so that what is put around a node is not looked at again.
        for node in reversed(list(whole.this.bfs())):
            new = self._node(node)
            if new is not node:
                node.replace(new)
        return whole.this

    def _node(self, node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Glob):
            raise UntranslatableError("PostgreSQL has no GLOB")
        if self._json and isinstance(node, exp.JSONExtractScalar):
            return _json_part(node, exact=self._exact)
        if isinstance(node, (exp.Func, exp.Anonymous)) and not isinstance(node, self._functions):
            raise UntranslatableError(f"PostgreSQL has no equivalent of {node.sql('sqlite')}")
        if isinstance(node, exp.Collate):
            if node.expression.name.upper() != "BINARY":
                raise UntranslatableError(f"PostgreSQL has no equivalent of {node.sql('sqlite')}")
            return node.this
        if isinstance(node, exp.Like):
            return _like(node)
        if isinstance(node, _EQUALITIES):
            self._compare(node)
        elif isinstance(node, exp.In):
            self._compare_with_several(node)
        elif isinstance(node, exp.Cast):
            return self._cast(node)
        elif isinstance(node, exp.Substring):
            _check_substring(node)
        elif isinstance(node, (exp.Coalesce, exp.Case)):
            self._refuse_mixture(node)
        elif isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)):
            return self._calculate(node)
        elif isinstance(node, (exp.Sum, exp.Avg)):
            return self._sum_up(node)
        elif isinstance(node, exp.DPipe):
            self._join(node)
        elif isinstance(node, (exp.BitwiseLeftShift, exp.BitwiseRightShift)):
            node.set("this", exp.Cast(this=node.this, to=exp.DataType.build("bigint")))
        elif isinstance(node, (exp.Lower, exp.Upper)) and self._exact:
            node.set("this", _bytewise(node.this))
        if isinstance(node, (*_COMPARISONS, exp.Ordered, exp.Max, exp.Min)):
            self._order(node)
        return node

    def _folds(self, node: exp.Expression | None) -> bool:
        """Tell whether PostgreSQL's column lacks the collation that SQLite's has."""
        if not isinstance(node, exp.Column):
            return False
        collation = self._collation_of(node.name)
        return collation != "BINARY" and not collation.startswith(ICU)

    def _is_boolean(self, node: exp.Expression | None) -> bool:
        return isinstance(node, exp.Column) and self._kind_of(node.name) == Kind.BOOLEAN

    def _look_behind_aliases(self, tree: exp.Expression) -> None:
        """Put what is sorted by number or by alias in full, so that its meaning is seen."""
        for ordered in list(tree.find_all(exp.Ordered)):
            select = ordered.find_ancestor(exp.Select)
            order = ordered.parent
            if select is None or order is None or order.parent is not select:
                continue
            key = ordered.this
            behind = None
            if isinstance(key, exp.Literal) and key.name.isdigit():
                place = int(key.name) - 1
                if place < len(select.expressions):
                    behind = select.expressions[place].unalias()
            elif isinstance(key, exp.Column) and not key.table:
                behind = next(
                    (
                        item.this
                        for item in select.expressions
                        if isinstance(item, exp.Alias) and item.alias.lower() == key.name.lower()
                    ),
                    None,
                )
            if behind is not None and self._is_text(behind):
                ordered.set("this", behind.copy())

    def _is_text(self, node: exp.Expression) -> bool:
        return self._folds(node) or self._kind(node) == Kind.TEXT

    def _refuse_folded_order(self, tree: exp.Expression) -> None:
        """Refuse what depends on how a column with a collation of its own sorts or groups."""
        folded = {
            column.name.lower() for column in tree.find_all(exp.Column) if self._folds(column)
        }
        # What such a column is called in a sub-query has its collation as well.
        grown = True
        while grown:
            grown = False
            for alias in tree.find_all(exp.Alias):
                behind = alias.this
                if (
                    isinstance(behind, exp.Column)
                    and behind.name.lower() in folded
                    and alias.alias.lower() not in folded
                ):
                    folded.add(alias.alias.lower())
                    grown = True
        for column in tree.find_all(exp.Column):
            if column.name.lower() not in folded:
                continue
            select = column.find_ancestor(exp.Select)
            grouped = select is not None and (
                select.args.get("distinct")
                or isinstance(column.find_ancestor(exp.Window), exp.Window)
                or (select.args.get("group") and _by_number(select.args["group"]))
                or (select.args.get("order") and _by_number(select.args["order"]))
            )
            united = any(
                not isinstance(item, exp.Union) or item.args.get("distinct") is not False
                for item in _ancestors(column, _SET_OPERATIONS)
            )
            if isinstance(column.parent, _ORDERED) or grouped or united:
                raise UntranslatableError(f"{column.name} is compared by its own collation")
        for join in tree.find_all(exp.Join):
            if join.args.get("using") or str(join.args.get("method") or "").upper() == "NATURAL":
                names = [item.name for item in join.args.get("using") or ()]
                if not names or any(self._folds(exp.column(name)) for name in names):
                    raise UntranslatableError("tables are joined by what their collations say")

    def _compare(self, node: exp.Binary) -> None:
        left, right = node.this, node.expression
        if self._is_boolean(left):
            node.set("expression", _as_boolean(right))
        elif self._is_boolean(right):
            node.set("this", _as_boolean(left))
        elif self._folds(left if isinstance(left, exp.Column) else right) and not isinstance(
            right, exp.Null
        ):  # the left column's collation counts, and the right one's beside a constant
            column = left if isinstance(left, exp.Column) else right
            if self._collation_of(column.name) not in ("NOCASE", "RTRIM"):
                raise UntranslatableError(f"{column.name} is compared by its own collation")
            folded = self._folded(column.name)
            node.set("this", folded(left))
            node.set("expression", folded(right))
        elif not isinstance(node, exp.Is):
            self._check_time(node, left, right)
            self._check_number(left, right)
            self._check_number(right, left)

    def _check_number(self, column: exp.Expression, other: exp.Expression) -> None:
        """Refuse comparisons of numbers with texts that are none: PostgreSQL makes them numbers."""
        numeric = self._kind(column) in (*_NUMBERS, Kind.NUMERIC)
        if numeric and isinstance(other, exp.Literal) and other.is_string:
            try:
                float(other.name)
            except ValueError:
                raise UntranslatableError(
                    f"{column.sql('sqlite')} is a number, and {other.name!r} is none"
                ) from None

    def _folded(self, name: str) -> Callable[[exp.Expression], exp.Expression]:
        if self._collation_of(name) == "RTRIM":
            return lambda node: exp.Trim(this=node, position="TRAILING", expression=_blank())
        return _folded

    def _check_time(
        self, node: exp.Expression, left: exp.Expression, right: exp.Expression
    ) -> None:
        """Refuse comparisons of a moment with a text that is longer or shorter than it.

        SQLite compares letters: a day without a time comes before every moment of that day.
        """
        if isinstance(left, exp.Literal):
            turned = {exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE}
            left, right, sign = right, left, turned.get(type(node), type(node))
        else:
            sign = type(node)
        if not (isinstance(left, exp.Column) and self._kind_of(left.name) == Kind.TIMESTAMP):
            return
        if not isinstance(right, exp.Literal) or not right.is_string:
            return
        day_alone = len(right.name) == len("2024-01-01") and sign in (exp.GTE, exp.LT)
        if not day_alone and len(right.name) != len("2024-01-01 00:00:00"):
            raise UntranslatableError(
                f"{left.name} is compared with {right.name!r} letter by letter"
            )

    def _order(self, node: exp.Expression) -> None:
        """Let a comparison of texts go by their bytes, one of booleans by 0 and 1."""
        parts = {
            key: node.args[key]
            for key in ("this", "expression", "low", "high")
            if node.args.get(key)
        }
        if any(map(self._is_boolean, parts.values())):
            for key, part in parts.items():
                if self._is_boolean(part):
                    node.set(key, _as_number(part))
            return
        if isinstance(node, exp.Between):
            for sign, key in ((exp.GTE, "low"), (exp.LTE, "high")):
                self._check_time(sign(), node.this, node.args[key])
        elif isinstance(node, _COMPARISONS):
            self._check_time(node, node.this, node.expression)
        kinds = [self._kind(part) for part in parts.values()]
        first = node.this
        by_icu = any(
            isinstance(part, exp.Column) and self._collation_of(part.name).startswith(ICU)
            for part in parts.values()
        )
        decisive = kinds[1:] if isinstance(first, exp.Literal) else kinds[:1]
        if self._exact and Kind.TEXT in decisive and not by_icu:
            node.set("this", _bytewise(first))

    def _calculate(self, node: exp.Binary) -> exp.Expression:
        """Let numbers be calculated with as in SQLite; refuse what is no number here."""
        for key in ("this", "expression"):
            part = node.args[key]
            kind = self._kind(part)
            if self._is_boolean(part):
                node.set(key, _as_number(part))
            elif kind == Kind.NUMERIC and isinstance(node, (exp.Div, exp.Mod)):
                raise UntranslatableError(f"{node.sql('sqlite')} may divide integers")
            elif kind is not None and kind not in (*_NUMBERS, Kind.NUMERIC):
                raise UntranslatableError(f"{node.sql('sqlite')} calculates with a {kind}")
            elif kind == Kind.INTEGER and isinstance(part, exp.Column) and self._exact:
                node.set(key, exp.Cast(this=part, to=exp.DataType.build("bigint")))
        if isinstance(node, exp.Div) and self._kind(node) is None:
            raise UntranslatableError(f"{node.sql('sqlite')} may divide integers")
        return _without_zero(node) if isinstance(node, exp.Mod) else node

    def _sum_up(self, node: exp.Sum | exp.Avg) -> exp.Expression:
        """Return a sum or an average of the type that it has in SQLite."""
        part = node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this
        kind = self._kind(part)
        if self._is_boolean(part):
            part.replace(_as_number(part))
            kind = Kind.INTEGER
        if kind is not None and kind not in (*_NUMBERS, Kind.NUMERIC):
            raise UntranslatableError(f"{node.sql('sqlite')} sums up a {kind}")
        if isinstance(node, exp.Avg):
            return exp.Cast(this=node.copy(), to=exp.DataType.build("double"))
        if kind in _INTEGERS:
            return exp.Cast(this=node.copy(), to=exp.DataType.build("bigint"))
        return node

    def _refuse_mixture(self, node: exp.Coalesce | exp.Case) -> None:
        """Refuse what is a number in one row and a text in another; a column has one type."""
        if isinstance(node, exp.Coalesce):
            parts = [node.this, *node.expressions]
        else:
            parts = [case.args["true"] for case in node.args["ifs"]]
            parts += [node.args["default"]] if node.args.get("default") is not None else []
        kinds = {self._kind(part) for part in parts} - {None}
        if Kind.TEXT in kinds and kinds - {Kind.TEXT}:
            names = sorted(map(str, kinds))
            raise UntranslatableError(f"{node.sql('sqlite')} gives {' or '.join(names)}")

    def _join(self, node: exp.DPipe) -> None:
        """Let numbers be joined with texts as SQLite writes them."""
        for key in ("this", "expression"):
            kind = self._kind(node.args[key])
            if kind in _INTEGERS:
                text = exp.Cast(this=node.args[key], to=exp.DataType.build("text"))
                node.set(key, text)
            elif kind not in (Kind.TEXT, None):
                raise UntranslatableError(f"{node.sql('sqlite')} writes a {kind} in another way")

    def _compare_with_several(self, node: exp.In) -> None:
        if self._is_boolean(node.this):
            node.set("expressions", [_as_boolean(item) for item in node.expressions])
        elif self._folds(node.this):
            known = self._collation_of(node.this.name) in ("NOCASE", "RTRIM")
            if not node.expressions or not known:
                raise UntranslatableError(f"{node.this.name} is compared by its own collation")
            folded = self._folded(node.this.name)
            node.set("expressions", [folded(item) for item in node.expressions])
            node.set("this", folded(node.this))
        else:
            for item in node.expressions:
                self._check_time(node, node.this, item)

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
        if isinstance(node, exp.Cast):
            return _kind_of_type(node.to.this)
        if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)):
            kinds = {self._kind(node.this), self._kind(node.expression)}
            if kinds <= {*_INTEGERS}:
                return Kind.BIGINT
            if Kind.DOUBLE in kinds:  # whatever the other one is, it is no integer division
                return Kind.DOUBLE
            return Kind.NUMERIC if kinds <= {*_NUMBERS, Kind.NUMERIC} else None
        if isinstance(node, _TEXTS):
            return Kind.TEXT
        if isinstance(node, exp.Collate):
            return self._kind(node.this)
        if isinstance(node, (exp.Max, exp.Min, exp.Sum)):
            kind = self._kind(node.this)
            return Kind.BIGINT if kind in _INTEGERS else kind
        if isinstance(node, exp.Coalesce):
            kinds = {self._kind(part) for part in (node.this, *node.expressions)}
            if kinds <= {*_INTEGERS}:
                return Kind.BIGINT
            return next(iter(kinds)) if len(kinds) == 1 else None
        if isinstance(node, exp.Avg):
            return Kind.DOUBLE
        return Kind.BIGINT if isinstance(node, (exp.Length, exp.Count)) else None


def _kind_of_type(to: exp.DataType.Type) -> Kind | None:
    if to in exp.DataType.INTEGER_TYPES:
        return Kind.BIGINT
    if to in exp.DataType.TEXT_TYPES:
        return Kind.TEXT
    return Kind.DOUBLE if to in (exp.DataType.Type.FLOAT, exp.DataType.Type.DOUBLE) else None


def _ancestors(node: exp.Expression, kinds: tuple[type, ...]) -> Iterator[exp.Expression]:
    """Yield the ancestors of these kinds."""
    while (found := node.find_ancestor(*kinds)) is not None:
        yield found
        node = found


def _by_number(clause: exp.Expression) -> bool:
    """Tell whether columns are named by their numbers, as in ORDER BY 1."""
    keys = (key.this if isinstance(key, exp.Ordered) else key for key in clause.expressions)
    return any(isinstance(key, exp.Literal) for key in keys)


def _blank() -> exp.Expression:
    return exp.Literal.string(" ")


def _as_number(node: exp.Expression) -> exp.Expression:
    """Return a boolean as 0 or 1."""
    return exp.Cast(this=node.copy(), to=exp.DataType.build("int"))


def _json_part(node: exp.JSONExtractScalar, *, exact: bool) -> exp.Expression:
    """Return what json_extract() takes out of a text, as text; if exact, booleans as 1 and 0."""
    steps = []
    path = node.expression
    for step in path.expressions if isinstance(path, exp.JSONPath) else ():
        if isinstance(step, exp.JSONPathKey) and isinstance(step.this, str):
            steps.append(step.this)
        elif isinstance(step, exp.JSONPathSubscript) and str(step.this).isdigit():
            steps.append(str(step.this))
        elif not isinstance(step, exp.JSONPathRoot):
            raise UntranslatableError(f"the path of {node.sql('sqlite')}")
    if not steps or node.expressions:
        raise UntranslatableError(f"the path of {node.sql('sqlite')}")
    quoted = ('"' + step.replace("\\", "\\\\").replace('"', '\\"') + '"' for step in steps)
    place = exp.Literal.string("{" + ",".join(quoted) + "}")
    document = exp.Cast(this=node.this.copy(), to=exp.DataType.build("jsonb"))
    text = exp.Paren(this=exp.JSONBExtractScalar(this=document, expression=place))
    if not exact:
        return text
    part = exp.Paren(this=exp.JSONBExtract(this=document.copy(), expression=place.copy()))
    truth = exp.Case(
        this=text.copy(),
        ifs=[exp.If(this=exp.Literal.string("true"), true=exp.Literal.string("1"))],
        default=exp.Literal.string("0"),
    )
    return exp.Case(
        this=exp.Anonymous(this="jsonb_typeof", expressions=[part]),
        ifs=[exp.If(this=exp.Literal.string("boolean"), true=truth)],
        default=text,
    )


def _bytewise(node: exp.Expression) -> exp.Expression:
    """Return a text under the collation "C", which compares bytes and knows ASCII only."""
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
