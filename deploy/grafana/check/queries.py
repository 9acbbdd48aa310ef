"""Rules of a query."""

from __future__ import annotations

import re
from typing import FrozenSet, Iterator, List, NamedTuple, Optional, Tuple

from metrics import Metrics, Series
from promql import COMPARISONS, Aggregate, Binary, Call, Node, Selector, Unreadable, parse, walk

# Of Prometheus itself: these have neither job nor instance of ours.
OTHERS = {"ALERTS": frozenset(("alertname", "alertstate", "severity"))}
TARGET_MATCHERS = (("job", "=~", "$job"), ("instance", "=~", "$instance"))
WINDOWS = {"rate": ("$__rate_interval",), "increase": ("$__rate_interval", "$__range")}
COUNTING = ("rate", "increase")

UNITS = {
    "seconds": ("s", "dtdurations"),
    "bytes": ("bytes",),
    "ratio": ("percentunit",),
    "mean": ("short",),
    "cores": ("short",),
    "rate": ("ops", "eps", "mps", "reqps", "wps", "cps"),
    "count": ("short",),
}


class Query(NamedTuple):
    expr: str
    legend: str
    unit: str
    format: str  # time_series, table or heatmap
    instant: bool


def faults(query: Query, metrics: Metrics) -> Iterator[str]:
    try:
        tree = parse(query.expr)
    except Unreadable as error:
        yield f"the query cannot be parsed: {error}"
        return
    wrong = list(_selectors(tree, query, metrics))
    wrong += _divisions(tree)
    if not wrong:
        wrong += _legend(tree, query, metrics)
        wrong += _unit(tree, query, metrics)
    yield from wrong


def variable_faults(text: str, metrics: Metrics) -> Iterator[str]:
    """Of the query of a template variable."""
    match = re.match(r"label_values\((.+), (\w+)\)$", text)
    if not match:
        yield f"{text!r} is not label_values(selector, label)"
        return
    try:
        selector = parse(match.group(1))
    except Unreadable as error:
        yield f"the query cannot be parsed: {error}"
        return
    series = metrics.series(selector.metric) if isinstance(selector, Selector) else None
    if not series:
        yield f"{match.group(1)!r} is not a series of docs/metrics.md"
    elif match.group(2) not in series.labels:
        yield f"{series.metric.name} has no label {match.group(2)}"


def used(expr: str) -> List[str]:
    try:
        return [node.metric for node, _ in walk(parse(expr)) if isinstance(node, Selector)]
    except Unreadable:
        return []


def _selectors(tree: Node, query: Query, metrics: Metrics) -> Iterator[str]:
    for node, above in walk(tree):
        if isinstance(node, Aggregate) and node.by is None:
            yield f"{node.operator} without (...): say `by`, so that the labels are known"
        if not isinstance(node, Selector):
            continue
        name = node.metric
        if name in OTHERS:
            yield from _labels_known(name, node, OTHERS[name], None)
            continue
        series = metrics.series(name)
        if not series:
            yield f"{name} is not a series of docs/metrics.md"
            continue
        for matcher in TARGET_MATCHERS:
            if matcher not in node.matchers:
                yield f'{name} is not selected by {matcher[0]}=~"{matcher[2]}"'
        yield from _labels_known(name, node, series.labels, series)
        yield from _counted(name, node, above, series, query)
        yield from _grouped(name, above, series)
        if series.suffix == "_bucket":
            yield from _buckets(name, node, above, query)
        if series.metric.shared:
            inner = next((one for one in reversed(above) if isinstance(one, Aggregate)), None)
            if inner is None or inner.operator != "max":
                yield f"{name} is the same from each process: read it with max"


def _labels_known(name: str, node: Selector, labels: FrozenSet[str], series: Optional[Series]) -> Iterator[str]:
    for label, operator, value in node.matchers:
        if label not in labels:
            yield f"{name} has no label {label}"
            continue
        values = series.metric.labels.get(label) if series else None
        if not values or value.startswith("$"):
            continue
        if operator in ("=", "!="):
            if value not in values:
                yield f"{name} has no {label}={value!r}"
        elif not any(re.fullmatch(value, one) for one in values):
            yield f"{name} has no {label} that matches {value!r}"


def _counted(name: str, node: Selector, above: Tuple[Node, ...], series: Series, query: Query) -> Iterator[str]:
    function = above[-1].function if above and isinstance(above[-1], Call) else ""
    if not series.counts:
        if node.range or function in COUNTING:
            yield f"{name} is a gauge: a {function or 'range'} of it means nothing"
        return
    if function not in COUNTING:
        yield f"{name} only counts up: use rate or increase"
        return
    if node.range not in WINDOWS[function]:
        yield f"{function} of {name} over [{node.range}]: use [{'] or ['.join(WINDOWS[function])}]"
    if node.range == "$__range" and not query.instant:
        yield f"{name} over [$__range] needs `instant`: one value for the time shown"


def _grouped(name: str, above: Tuple[Node, ...], series: Series) -> Iterator[str]:
    """Labels by which the selector is grouped."""
    for node in above:
        labels = node.by or () if isinstance(node, Aggregate) else ()
        for label in labels:
            # The selector may be the right side of `and`, which gives no labels.
            if label not in series.labels and not any(isinstance(one, Binary) for one in above):
                yield f"{name} has no label {label} to group by"


def _buckets(name: str, node: Selector, above: Tuple[Node, ...], query: Query) -> Iterator[str]:
    if any(label == "le" for label, _, _ in node.matchers):
        return
    if not any(isinstance(one, Aggregate) and "le" in (one.by or ()) for one in above):
        yield f"{name} without `by (le)`"
    elif query.format != "heatmap" and not any(
        isinstance(one, Call) and one.function == "histogram_quantile" for one in above
    ):
        yield f"{name} outside of histogram_quantile"


def _divisions(tree: Node) -> Iterator[str]:
    """A ratio of rates is NaN without traffic, unless its divisor is filtered."""
    for node, _ in walk(tree):
        if isinstance(node, Binary) and node.operator == "/":
            right = node.right
            rates = any(isinstance(one, Call) and one.function in COUNTING for one, _ in walk(right))
            if rates and not (isinstance(right, Binary) and right.operator == ">"):
                yield "a division by a rate: write `/ (... > 0)`, or it is NaN without traffic"


def _legend(tree: Node, query: Query, metrics: Metrics) -> Iterator[str]:
    if query.format == "table":
        return
    labels = _labels(tree, metrics)
    shown = set(re.findall(r"{{(\w+)}}", query.legend))
    if not query.legend or query.legend == "__auto":
        yield "no legendFormat"
    for label in sorted(shown - labels):
        yield f"the legend shows {label}, which the result has not"
    for label in sorted(labels - shown - {"job"}):
        yield f"the legend lacks {label}: series look alike"


def _labels(node: Node, metrics: Metrics) -> FrozenSet[str]:
    """Of the result."""
    if isinstance(node, Selector):
        series = metrics.series(node.metric)
        return series.labels if series else OTHERS.get(node.metric, frozenset())
    if isinstance(node, Aggregate):
        return frozenset(node.by or ())
    if isinstance(node, Call):
        inner = frozenset().union(*(_labels(one, metrics) for one in node.arguments))
        return inner - {"le"} if node.function == "histogram_quantile" else inner
    if isinstance(node, Binary):
        left, right = _labels(node.left, metrics), _labels(node.right, metrics)
        if node.operator in ("and", "unless", "or"):
            return left
        return frozenset(node.on) if node.on is not None else left | right
    return frozenset()


def _unit(tree: Node, query: Query, metrics: Metrics) -> Iterator[str]:
    if query.format != "time_series":
        return
    dimension = _dimension(tree, metrics)
    fitting = UNITS.get(dimension or "")
    if fitting and query.unit not in fitting:
        yield f"the unit {query.unit} does not fit {dimension}: use {' or '.join(fitting)}"


def _dimension(node: Node, metrics: Metrics) -> Optional[str]:
    """What a value is, or None if it is not known, as of a number."""
    if isinstance(node, Selector):
        series = metrics.series(node.metric)
        if not series or series.suffix == "_count":
            return "count"
        name = series.metric.name
        if name.endswith("_seconds_total"):
            return "seconds"
        return "seconds" if name.endswith("_seconds") else "bytes" if name.endswith("_bytes") else "count"
    if isinstance(node, Aggregate):
        return "count" if node.operator == "count" else _dimension(node.arguments[-1], metrics)
    if isinstance(node, Call):
        of = 0 if node.function.startswith("clamp") else -1
        inner = _dimension(node.arguments[of], metrics) if node.arguments else None
        if node.function == "rate":
            buckets = any(isinstance(one, Selector) and one.metric.endswith("_bucket") for one in node.arguments)
            sums = any(isinstance(one, Selector) and one.metric.endswith("_sum") for one in node.arguments)
            if buckets:
                return "rate of " + str(inner)
            return "cores" if inner == "seconds" else "sums" if sums else "rate"
        if node.function == "histogram_quantile":
            return str(inner).replace("rate of ", "")
        return "seconds" if node.function == "time" else None if node.function == "vector" else inner
    if isinstance(node, Binary):
        left, right = _dimension(node.left, metrics), _dimension(node.right, metrics)
        if node.operator in COMPARISONS:
            return left
        if node.operator != "/":
            return left or right
        if left and left.startswith("rate of") or right and right.startswith("rate of"):
            return "ratio"
        if left == "cores" and right == "rate":
            return "seconds"
        return "mean" if left == "sums" else "ratio" if left == right else None
    return None
