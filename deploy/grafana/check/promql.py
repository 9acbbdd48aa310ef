"""Parses PromQL, as much of it as dashboards need. It leaves types to promtool."""

from __future__ import annotations

import re
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

AGGREGATIONS = ("sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile")
LEVELS = (("or",), ("and", "unless"), ("==", "!=", "<=", "<", ">=", ">"), ("+", "-"), ("*", "/", "%"))
COMPARISONS = LEVELS[2]

TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<range>\[[^\]]*\])
      | (?P<duration>[0-9]+(?:ms|[smhdwy])|\$__\w+)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%<>=(){},])
    )""",
    re.VERBOSE,
)


class Unreadable(Exception):
    pass


class Number(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Selector(NamedTuple):
    metric: str
    matchers: Tuple[Tuple[str, str, str], ...]  # label, operator, value
    range: Optional[str]


class Call(NamedTuple):
    function: str
    arguments: Tuple["Node", ...]


class Aggregate(NamedTuple):
    operator: str
    by: Optional[Tuple[str, ...]]  # None: `without`
    arguments: Tuple["Node", ...]


class Binary(NamedTuple):
    operator: str
    left: "Node"
    right: "Node"
    on: Optional[Tuple[str, ...]]


Node = Union[Number, Text, Selector, Call, Aggregate, Binary]


def parse(text: str) -> Node:
    parser = _Parser(_tokens(text))
    node = parser.expression(0)
    if parser.peek()[0] != "end":
        raise Unreadable(f"unexpected {parser.peek()[1]!r}")
    return node


def children(node: Node) -> Tuple[Node, ...]:
    if isinstance(node, (Call, Aggregate)):
        return node.arguments
    return (node.left, node.right) if isinstance(node, Binary) else ()


def walk(node: Node, above: Tuple[Node, ...] = ()) -> Iterator[Tuple[Node, Tuple[Node, ...]]]:
    """All nodes, each with those above it, the outermost first."""
    yield node, above
    for child in children(node):
        yield from walk(child, above + (node,))


def _tokens(text: str) -> List[Tuple[str, str]]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise Unreadable(f"cannot read {text[at:at + 20]!r}")
        kind = str(match.lastgroup)
        tokens.append((kind, match.group(kind)))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: List[Tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> Tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end")

    def take(self, *wanted: str) -> str:
        kind, text = self.peek()
        if kind not in wanted and text not in wanted:
            raise Unreadable(f"expected {' or '.join(wanted)}, got {text!r}")
        self.at += 1
        return text

    def skip(self, text: str) -> bool:
        found = self.peek()[1] == text
        self.at += found
        return found

    def expression(self, level: int) -> Node:
        if level == len(LEVELS):
            return self.primary()
        left = self.expression(level + 1)
        while self.peek()[0] != "string" and self.peek()[1] in LEVELS[level]:
            operator = self.take("name", "sign")
            on: Optional[Tuple[str, ...]] = None
            if self.skip("on"):
                on = self.names()
            if self.skip("group_left") or self.skip("group_right"):
                self.names()
            left = Binary(operator, left, self.expression(level + 1), on)
        return left

    def primary(self) -> Node:
        kind, text = self.peek()
        if kind == "number":
            return Number(self.take("number"))
        if kind == "string":
            return Text(self.take("string")[1:-1])
        if self.skip("-"):
            return Binary("-", Number("0"), self.primary(), None)
        if self.skip("("):
            node = self.expression(0)
            self.take(")")
            return node
        name = self.take("name")
        if name in AGGREGATIONS:
            return self.aggregate(name)
        if self.skip("("):
            return Call(name, self.arguments())
        return self.selector(name)

    def aggregate(self, operator: str) -> Node:
        by: Optional[Tuple[str, ...]] = ()
        grouped = self.peek()[1] in ("by", "without")
        if grouped:
            by = self.grouping()
        self.take("(")
        arguments = self.arguments()
        if not grouped and self.peek()[1] in ("by", "without"):
            by = self.grouping()
        return Aggregate(operator, by, arguments)

    def grouping(self) -> Optional[Tuple[str, ...]]:
        word = self.take("by", "without")
        names = self.names()
        return names if word == "by" else None

    def names(self) -> Tuple[str, ...]:
        self.take("(")
        found = []
        while not self.skip(")"):
            found.append(self.take("name"))
            self.skip(",")
        return tuple(found)

    def arguments(self) -> Tuple[Node, ...]:
        found = []
        while not self.skip(")"):
            found.append(self.expression(0))
            self.skip(",")
        return tuple(found)

    def selector(self, metric: str) -> Node:
        matchers = []
        if self.skip("{"):
            while not self.skip("}"):
                label = self.take("name")
                operator = self.take("=", "!=", "=~", "!~")
                matchers.append((label, operator, self.take("string")[1:-1]))
                self.skip(",")
        window = self.take("range")[1:-1] if self.peek()[0] == "range" else None
        if self.skip("offset"):
            self.take("duration")
        return Selector(metric, tuple(matchers), window)
