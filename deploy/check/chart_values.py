"""The chart's values: their schema has each of them and no other, and README.md lists them as they are."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, Tuple

import yaml
from common import DEPLOY

CHART = DEPLOY / "helm" / "hookline"
README = CHART / "README.md"
# What Helm gives to charts within others.
GLOBAL = "global"


def faults() -> Iterator[str]:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    yield from _schema_faults(schema, schema, values, "")
    if README.read_text(encoding="utf-8") != with_table():
        yield "helm/hookline/README.md: its table is not that of values.yaml: run `.ci/manifests --write-readme`"
    for link in (CHART / "files").iterdir():
        if not link.is_symlink() or link.resolve().parent.parent != DEPLOY and link.resolve().parent != DEPLOY:
            yield f"helm/hookline/files/{link.name}: it is not a link to a folder of deploy/"


def _schema_faults(schema: Any, node: Any, values: Any, path: str) -> Iterator[str]:
    """An object that lists properties takes no others, and has a default for each."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    if "properties" not in node or not isinstance(values, dict):
        return
    if node.get("additionalProperties") is not False:
        yield f"values.schema.json: {path or 'the root'} takes unknown values"
    for name in sorted(set(node["properties"]) ^ set(values) - {GLOBAL}):
        # `claims` and the like are Kubernetes' own.
        if name not in node["properties"] or (not path.endswith("resources.") and name != GLOBAL):
            yield f"values.schema.json and values.yaml: only one of them has {path}{name}"
    for name, value in values.items():
        if name in node["properties"]:
            yield from _schema_faults(schema, node["properties"][name], value, f"{path}{name}.")


def with_table() -> str:
    head, _, _ = README.read_text(encoding="utf-8").partition("\n## Values\n")
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    for path, default, comment in table():
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        # Objects would be long; values.yaml shows them.
        short = "" if default in ("", [], {}) else f"`{shown}`" if len(shown) <= 60 else "see values.yaml"
        rows.append(f"| `{path}` | {short} | {comment} |")
    return head + "\n## Values\n\n" + "\n".join(rows) + "\n"


def table() -> List[Tuple[str, Any, str]]:
    """Each value that has no values within, with its default and the comment above it."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    comments = _comments(text)
    rows: List[Tuple[str, Any, str]] = []

    def walk(node: Dict[str, Any], path: str) -> None:
        for name, value in node.items():
            here = f"{path}{name}"
            # A block in values.yaml that is written as one has values of its own.
            if isinstance(value, dict) and value and any(known.startswith(f"{here}.") for known in comments):
                if comments[here]:
                    rows.append((here, "", comments[here]))
                walk(value, f"{here}.")
            else:
                rows.append((here, value, comments.get(here, "")))

    walk(values, "")
    return rows


def _comments(text: str) -> Dict[str, str]:
    """By path, for each key on a line of its own."""
    found: Dict[str, str] = {}
    pending: List[str] = []
    path: List[Tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"( *)([\w.]+):( |$)", line)
        if line.lstrip().startswith("#"):
            pending.append(line.strip(" #"))
        elif match:
            indent = len(match[1])
            path = [step for step in path if step[0] < indent] + [(indent, match[2])]
            found[".".join(name for _, name in path)] = " ".join(pending).replace("|", "\\|")
            pending = []
        elif not line.strip():
            # A comment above an empty line is of the file.
            pending = []
    return found
