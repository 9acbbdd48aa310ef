"""The bill of materials: every crate in the binaries, as CycloneDX 1.6 in JSON."""

from __future__ import annotations

import json
import sys
import urllib.parse
import uuid
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

from . import tools
from .crates import Crate
from .failure import Failure
from .source import BINARIES, HOMEPAGE, Release

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MAIN = "hookline"


def text(crates: List[Crate], release: Release, rust: str, zig: Optional[str]) -> str:
    """`zig` is the version whose C++ library is in the binaries, if they were built with it."""
    references = {crate.key: f"pkg:cargo/{crate.name}@{_quoted(crate.version)}" for crate in crates}
    linked = [_toolchain("rust-std", rust, f"pkg:generic/rust@{rust}", "MIT OR Apache-2.0")]
    if zig:
        licence = "Apache-2.0 WITH LLVM-exception"
        linked.append(_toolchain("zig-libcxx", zig, f"pkg:pypi/ziglang@{zig}", licence))
    dependencies = [{"ref": MAIN, "dependsOn": [references[crate.key] for crate in crates if crate.name in BINARIES]}]
    for crate in crates:
        below = [references[key] for key in crate.needs]
        below += [part["bom-ref"] for part in linked] if crate.name in BINARIES else []
        dependencies.append({"ref": references[crate.key], "dependsOn": sorted(set(below))})
    dependencies += [{"ref": part["bom-ref"]} for part in linked]
    bill: Dict[str, Any] = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(release.time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "make-dist", "version": release.version}]},
            "component": {
                "type": "application",
                "bom-ref": MAIN,
                "name": MAIN,
                "version": release.version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "externalReferences": [{"type": "vcs", "url": HOMEPAGE}],
                "properties": [{"name": "hookline:commit", "value": release.commit}],
            },
        },
        "components": [_component(crate, references[crate.key]) for crate in crates] + linked,
        "dependencies": dependencies,
    }
    # The same content has the same number.
    digest = uuid.uuid5(uuid.NAMESPACE_URL, HOMEPAGE + json.dumps(bill, sort_keys=True))
    bill["serialNumber"] = f"urn:uuid:{digest}"
    return json.dumps(bill, indent=1, ensure_ascii=False) + "\n"


def _component(crate: Crate, reference: str) -> Dict[str, Any]:
    component: Dict[str, Any] = {
        "type": "application" if crate.name in BINARIES else "library",
        "bom-ref": reference,
        "name": crate.name,
        "version": crate.version,
    }
    if crate.description:
        component["description"] = " ".join(crate.description.split())
    if crate.checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
    if crate.licence:
        component["licenses"] = [{"expression": crate.licence}]
    component["purl"] = reference
    if crate.repository:
        component["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
    return component


def _toolchain(name: str, version: str, purl: str, licence: str) -> Dict[str, Any]:
    """What the compilers link into the binaries."""
    reference = {"type": "library", "bom-ref": purl, "name": name, "version": version}
    return {**reference, "licenses": [{"expression": licence}], "purl": purl}


def _quoted(version: str) -> str:
    return urllib.parse.quote(version, safe="")


def faults(text_of_bill: str) -> List[str]:
    """What is wrong with a bill: by the official schema, and references to what it does not list."""
    bill = json.loads(text_of_bill)
    found = _schema_faults(bill)
    listed = {component["bom-ref"] for component in bill.get("components", [])} | {MAIN}
    listed_twice = len(bill.get("components", [])) + 1 - len(listed)
    if listed_twice:
        found.append(f"{listed_twice} components are there twice")
    for dependency in bill.get("dependencies", []):
        for reference in [dependency["ref"], *dependency.get("dependsOn", [])]:
            if reference not in listed:
                found.append(f"{reference} is a dependency, but not listed")
    return found


def _schema_faults(bill: Dict[str, Any]) -> List[str]:
    """CycloneDX' own schema, which its Python library has."""
    packages = {"cyclonedx-python-lib": "CYCLONEDX", "fastjsonschema": "FASTJSONSCHEMA"}
    folder = tools.fetch("sbom-check", packages, "check the bill with another tool for CycloneDX")
    sys.path.insert(0, str(folder))
    import fastjsonschema  # type: ignore[import-not-found]  # Not at the top: it is fetched.

    schemas = folder / "cyclonedx" / "schema" / "_res"
    snapshot = {"bom-1.6.schema.json": "bom-1.6.SNAPSHOT.schema.json"}

    def schema(uri: str) -> Any:
        name = uri.rpartition("/")[2]
        return json.loads((schemas / snapshot.get(name, name)).read_text(encoding="utf-8"))

    if bill.get("$schema") != SCHEMA:
        raise Failure(f"the bill is not of {SCHEMA}")
    try:
        fastjsonschema.validate(schema(SCHEMA), bill, handlers={"http": schema})
    except fastjsonschema.JsonSchemaException as error:
        return [str(error)]
    return []
