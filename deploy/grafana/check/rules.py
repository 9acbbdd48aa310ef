"""Rules of a dashboard: those of Grafana's dashboard-linter, and our own."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Dict, Iterator, List, Set

import queries
from metrics import Metrics

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Stable since Grafana 9 at the latest.
PANELS = ("timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "text", "row")
COLUMNS = 24
# Of Grafana 11 to 13.
SCHEMA_VERSIONS = range(39, 43)
FORBIDDEN = ("__inputs", "__requires", "__elements", "id", "iteration", "gnetId", "version")
SETTINGS = {"refresh": "30s", "graphTooltip": 1, "time": {"from": "now-1h", "to": "now"}, "tags": ["hookline"]}
# Shorter ones say no more than the title.
DESCRIPTION = 25


def faults(path: pathlib.Path, metrics: Metrics) -> Iterator[str]:
    """Of one dashboard. Each text begins with what it is about."""
    text = path.read_text(encoding="utf-8")
    dashboard = json.loads(text)
    if text != json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n":
        yield "file: not formatted: indent by two spaces, as `python3 -m json.tool --indent 2 --no-ensure-ascii` does"
    yield from _dashboard(path, dashboard)
    yield from _variables(dashboard, metrics)
    yield from _annotations(dashboard, metrics)
    yield from _panels(dashboard, metrics)


def shared_faults(dashboards: Dict[str, Dict[str, Any]]) -> Iterator[str]:
    """Of all dashboards together, by their files' names."""
    for key in ("uid", "title"):
        seen: Dict[str, str] = {}
        for name, dashboard in dashboards.items():
            value = dashboard.get(key, "")
            if value in seen:
                yield f"{name}: the {key} {value!r} is {seen[value]}'s too"
            seen[value] = name


def expressions(dashboard: Dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["expr"]


def _dashboard(path: pathlib.Path, dashboard: Dict[str, Any]) -> Iterator[str]:
    if dashboard.get("uid") != path.stem:
        yield f"uid: {dashboard.get('uid')!r} is not the file's name"
    for key in FORBIDDEN:
        if key in dashboard:
            yield f"{key}: belongs to one Grafana or to an export; remove it"
    if dashboard.get("schemaVersion") not in SCHEMA_VERSIONS:
        yield f"schemaVersion: {dashboard.get('schemaVersion')!r} is not of Grafana 11 to 13"
    for key, value in SETTINGS.items():
        if dashboard.get(key) != value:
            yield f"{key}: {dashboard.get(key)!r} is not {value!r}"
    for key in ("title", "description"):
        if not dashboard.get(key):
            yield f"{key}: missing"
    links = dashboard.get("links", [])
    if not any(link.get("type") == "dashboards" and link.get("tags") == ["hookline"] for link in links):
        yield "links: none to the other dashboards"


def _variables(dashboard: Dict[str, Any], metrics: Metrics) -> Iterator[str]:
    variables = {one.get("name"): one for one in dashboard.get("templating", {}).get("list", [])}
    first = variables.get("datasource", {})
    if (first.get("type"), first.get("query"), first.get("label")) != ("datasource", "prometheus", "Data source"):
        yield "templating: no variable `datasource` of type datasource for prometheus, labelled `Data source`"
    for name in ("job", "instance"):
        one = variables.get(name, {})
        if (one.get("label"), one.get("multi"), one.get("includeAll"), one.get("allValue")) != (
            name.title(),
            True,
            True,
            ".+",
        ):
            yield f"templating: `{name}` must be labelled {name.title()}, have many values and All, which is `.+`"
        if one.get("current", {}).get("value") != ["$__all"]:
            yield f"templating: `{name}` is not All at first"
        if not one.get("definition", "").startswith("label_values(hookline_build_info"):
            yield f"templating: `{name}` does not come from hookline_build_info"
    for name, one in variables.items():
        if one.get("type") != "query":
            continue
        if one.get("datasource") != DATASOURCE:
            yield f"templating: `{name}` does not use ${{datasource}}"
        if one.get("refresh") != 2:
            yield f"templating: `{name}` is not read again when the time changes (refresh 2)"
        query = one.get("query", {}).get("query", "")
        if query != one.get("definition"):
            yield f"templating: definition and query of `{name}` differ"
        for fault in queries.variable_faults(query, metrics):
            yield f"templating: `{name}`: {fault}"


def _annotations(dashboard: Dict[str, Any], metrics: Metrics) -> Iterator[str]:
    for one in dashboard.get("annotations", {}).get("list", []):
        if one.get("builtIn"):
            continue
        about = f"annotation {one.get('name')!r}"
        if one.get("datasource") != DATASOURCE:
            yield f"{about}: does not use ${{datasource}}"
        legend = " ".join(one.get(key, "") for key in ("titleFormat", "textFormat"))
        query = queries.Query(one.get("expr", ""), legend, "short", "time_series", False)
        for fault in queries.faults(query, metrics):
            yield f"{about}: {fault}"


def _panels(dashboard: Dict[str, Any], metrics: Metrics) -> Iterator[str]:
    ids: Set[int] = set()
    titles: Set[str] = set()
    taken: Dict[Any, str] = {}
    for panel in dashboard.get("panels", []):
        kind, title = panel.get("type"), panel.get("title", "")
        about = f"panel {panel.get('id')} {title!r}"
        if kind not in PANELS:
            yield f"{about}: the type {kind} is not one of {', '.join(PANELS)}"
        if panel.get("id") in ids:
            yield f"{about}: the id is another panel's too"
        ids.add(panel.get("id"))
        if not title:
            yield f"{about}: no title"
        elif kind != "row":
            if title in titles:
                yield f"{about}: the title is another panel's too"
            titles.add(title)
        yield from (f"{about}: {fault}" for fault in _place(panel, taken))
        if kind == "row":
            if panel.get("panels"):
                yield f"{about}: panels inside of a row are not checked; put them beside it"
            continue
        description = panel.get("description", "")
        if len(description) < DESCRIPTION or not description.endswith("."):
            yield f"{about}: no description, in full sentences, of what it shows and what to do when it looks bad"
        if kind != "text":
            yield from (f"{about}: {fault}" for fault in _queries(panel, metrics))


def _place(panel: Dict[str, Any], taken: Dict[Any, str]) -> Iterator[str]:
    at = panel.get("gridPos", {})
    x, y, w, h = (at.get(key, -1) for key in "xywh")
    if min(x, y) < 0 or min(w, h) < 1 or x + w > COLUMNS:
        yield f"gridPos {at} is not within {COLUMNS} columns"
        return
    others = {taken[cell] for cell in ((i, j) for i in range(x, x + w) for j in range(y, y + h)) if cell in taken}
    for other in sorted(others):
        yield f"it lies over {other}"
    for i in range(x, x + w):
        for j in range(y, y + h):
            taken[i, j] = repr(panel.get("title"))


def _queries(panel: Dict[str, Any], metrics: Metrics) -> Iterator[str]:
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    if not unit:
        yield "no unit"
    if panel.get("datasource") != DATASOURCE:
        yield "it does not use ${datasource}"
    targets: List[Dict[str, Any]] = panel.get("targets", [])
    if not targets:
        yield "no query"
    references = [target.get("refId") for target in targets]
    if len(set(references)) < len(references):
        yield "two queries have the same refId"
    for target in targets:
        about = f"query {target.get('refId')}"
        if target.get("datasource") != DATASOURCE:
            yield f"{about}: it does not use ${{datasource}}"
        shape = target.get("format", "time_series")
        query = queries.Query(
            target.get("expr", ""), target.get("legendFormat", ""), unit, shape, bool(target.get("instant"))
        )
        if (panel.get("type") == "table") != (shape == "table" and query.instant):
            yield f"{about}: a table needs format `table` and `instant`, others do not"
        if (panel.get("type") == "heatmap") != (shape == "heatmap"):
            yield f"{about}: a heat map needs format `heatmap`, others do not"
        for fault in queries.faults(query, metrics):
            yield f"{about}: {fault}"
    for name in re.findall(r"\$\{?(\w+)", json.dumps(panel.get("targets", []))):
        if name not in ("job", "instance", "hook", "datasource", "__rate_interval", "__range"):
            yield f"the variable ${name} is not known"
