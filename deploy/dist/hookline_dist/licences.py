"""The licences of all crates in the binaries, which ask that their texts go with copies."""

from __future__ import annotations

import pathlib
import re
from typing import Dict, List

from .crates import Crate

NAME = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)([-_.].*)?", re.IGNORECASE)
# C and C++ sources in a crate have their own a few folders down.
DEPTH = 4
SKIPPED = {"tests", "test", "benches", "examples", "fuzz", "docs", "doc"}
HEAD = """Hookline is under the Apache License 2.0, see LICENSE. Its binaries contain the Rust standard library (MIT or
Apache License 2.0), the C++ library and unwinder of LLVM if built with zig (Apache License 2.0 with LLVM exceptions),
and the crates below, each with its licence. Each text is there once, with the crates that carry it.
"""


def text(crates: List[Crate]) -> str:
    foreign = [crate for crate in crates if crate.checksum]
    carriers: Dict[str, List[str]] = {}
    without = []
    for crate in foreign:
        texts = _texts(crate.folder)
        if not texts:
            without.append(_title(crate))
        for one in texts:
            names = carriers.setdefault(one, [])
            if _title(crate) not in names:
                names.append(_title(crate))
    parts = [HEAD, "\n".join(f"{_title(crate)}: {crate.licence or 'see its text'}" for crate in foreign)]
    if without:
        parts.append("Without a text of their own: " + ", ".join(without))
    for one, names in sorted(carriers.items(), key=lambda carrier: (carrier[1], carrier[0])):
        parts.append(f"{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n{one}")
    return "\n\n".join(parts) + "\n"


def _texts(folder: pathlib.Path) -> List[str]:
    found = set()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if len(inside) <= DEPTH and NAME.fullmatch(inside[-1]) and not SKIPPED & set(inside) and path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found.add("\n".join(line.rstrip() for line in lines).strip("\n"))
    return sorted(one for one in found if one)


def _title(crate: Crate) -> str:
    return f"{crate.name} {crate.version}"
