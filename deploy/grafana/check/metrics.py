"""What docs/metrics.md says of each metric."""

from __future__ import annotations

import pathlib
import re
from typing import Dict, FrozenSet, NamedTuple, Optional

TARGET = frozenset(("job", "instance"))
SUFFIXES = ("_bucket", "_sum", "_count")
# In the meaning of what is read with max.
SAME = re.compile(r"the same (?:from each process|on each worker)")
# The same too, or nearly so, or what each process knows of one thing: a sum would mean nothing.
ALSO_SHARED = (
    "hookline_bucket_last_sequence",
    "hookline_circuits_open",
    "hookline_hook_circuit_open",
    "hookline_hook_info",
    "hookline_hook_last_success_timestamp_seconds",
    "hookline_index_revision",
    "hookline_view_sequence",
    "hookline_workers",
)


class Metric(NamedTuple):
    name: str
    kind: str  # counter, gauge, histogram
    labels: Dict[str, FrozenSet[str]]  # with their values; empty: any
    shared: bool


class Series(NamedTuple):
    """What a selector names."""

    metric: Metric
    suffix: str  # of a histogram's series
    labels: FrozenSet[str]

    @property
    def counts(self) -> bool:
        return self.metric.kind != "gauge"


class Metrics:
    def __init__(self, path: pathlib.Path) -> None:
        self.all: Dict[str, Metric] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 5 and cells[0].startswith("`"):
                name, _, kind, labels, meaning = cells
                name = name.strip("`")
                shared = bool(SAME.search(meaning)) or name in ALSO_SHARED
                self.all[name] = Metric(name, kind, _labels(labels), shared)
        if not self.all:
            raise ValueError(f"{path} has no table of metrics")
        missing = [name for name in ALSO_SHARED if name not in self.all]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}")

    def series(self, name: str) -> Optional[Series]:
        metric = self.all.get(name)
        if metric:
            # A histogram has no series of its name.
            return Series(metric, "", TARGET | frozenset(metric.labels)) if metric.kind != "histogram" else None
        for suffix in SUFFIXES:
            metric = self.all.get(name[: -len(suffix)]) if name.endswith(suffix) else None
            if metric and metric.kind == "histogram":
                labels = TARGET | frozenset(metric.labels)
                return Series(metric, suffix, labels | {"le"} if suffix == "_bucket" else labels)
        return None


def _labels(cell: str) -> Dict[str, FrozenSet[str]]:
    labels = {}
    for part in filter(None, cell.split(";")):
        match = re.match(r"\s*`(\w+)`(?::\s*(.*))?$", part)
        if not match:
            raise ValueError(f"cannot read the labels {cell!r}")
        values = (match.group(2) or "").split(",")
        labels[match.group(1)] = frozenset(value.strip() for value in values if value.strip())
    return labels
