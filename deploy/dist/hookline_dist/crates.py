"""The crates that the binaries are made of, by cargo. Crates of tests are left out."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
from typing import Any, Dict, List, NamedTuple, Optional

from .failure import Failure
from .source import BINARIES, ROOT

TARGET = "{}-unknown-linux-gnu"


class Crate(NamedTuple):
    key: str  # of cargo
    name: str
    version: str
    licence: Optional[str]  # an SPDX expression
    description: Optional[str]
    repository: Optional[str]
    folder: pathlib.Path
    checksum: Optional[str]  # SHA-256 of what the registry serves; none of our own
    needs: List[str]  # keys


def used(machine: str) -> List[Crate]:
    """All crates of the binaries, also those that only run while they are built."""
    target = TARGET.format(machine)
    metadata = json.loads(_cargo(["metadata", "--format-version=1", f"--filter-platform={target}"]))
    # The resolution of `metadata` counts features that only tests and load tests ask for; `tree` is exact.
    selected = [argument for binary in BINARIES for argument in ("-p", binary)]
    tree = _cargo(["tree", *selected, "--edges=normal,build", f"--target={target}", "--prefix=none", "--format={p}"])
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    checksums = _checksums()
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    kept = {one["id"] for one in metadata["packages"] if (one["name"], f"v{one['version']}") in wanted}
    crates = [
        Crate(
            one["id"],
            one["name"],
            one["version"],
            # An old way to write OR.
            one["license"].replace("/", " OR ") if one["license"] else None,
            one["description"],
            one["repository"],
            pathlib.Path(one["manifest_path"]).parent,
            checksums.get(f"{one['name']} {one['version']}") if one["source"] else None,
            sorted(needed["pkg"] for needed in nodes[one["id"]]["deps"] if needed["pkg"] in kept and _built(needed)),
        )
        for one in metadata["packages"]
        if one["id"] in kept
    ]
    if not set(BINARIES) <= {crate.name for crate in crates} or len(crates) != len(wanted):
        raise Failure(f"cargo tree and cargo metadata differ: {len(wanted)} and {len(crates)} crates")
    return sorted(crates, key=lambda crate: (crate.name, crate.version))


def rust_version() -> str:
    return _run(["rustc", "--version"]).split()[1]


def _built(needed: Dict[str, Any]) -> bool:
    return any(kind["kind"] != "dev" for kind in needed["dep_kinds"])


def _checksums() -> Dict[str, str]:
    text = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    entry = re.compile(r'^name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "([0-9a-f]{64})"$', re.MULTILINE)
    return {f"{name} {version}": checksum for name, version, checksum in entry.findall(text)}


def _cargo(arguments: List[str]) -> str:
    return _run(["cargo", *arguments, "--locked"])


def _run(command: List[str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "CARGO_TERM_COLOR": "never"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not on PATH; install Rust: https://rustup.rs") from None
    if done.returncode != 0:
        raise Failure(f"{' '.join(command[:2])} failed:\n{done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8")
