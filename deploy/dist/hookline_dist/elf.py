"""Reads from a 64-bit ELF file which shared libraries it needs, and which versions of their symbols."""

from __future__ import annotations

import pathlib
import struct
from typing import Dict, List, NamedTuple, Set, Tuple

from .failure import Failure

DYNAMIC, VERSIONS_NEEDED = 6, 0x6FFFFFFE
TAG_NEEDED, TAG_RPATH, TAG_RUNPATH = 1, 15, 29
MACHINES = {62: "x86_64", 183: "aarch64"}


class Needs(NamedTuple):
    machine: str
    libraries: List[str]
    # By library: GLIBC_2.28 and so on.
    versions: Dict[str, Set[str]]
    # Folders that the binary would search before the system's.
    search: List[str]


class _Section(NamedTuple):
    kind: int
    content: bytes
    strings: int


def needs(path: pathlib.Path) -> Needs:
    """Of the binary at this path."""
    try:
        return needs_of(path.read_bytes(), str(path))
    except OSError as error:
        raise Failure(f"cannot read {path}: {error}") from None


def needs_of(data: bytes, name: str) -> Needs:
    """Of the binary with this content."""
    try:
        return _needs(data)
    except (struct.error, LookupError, ValueError) as error:
        raise Failure(f"{name} is not a 64-bit ELF binary of x86_64 or aarch64 ({error!r})") from None


def _needs(data: bytes) -> Needs:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("other kind of file")
    machine = MACHINES[struct.unpack_from("<H", data, 18)[0]]
    sections = _sections(data)
    libraries: List[str] = []
    search: List[str] = []
    versions: Dict[str, Set[str]] = {}
    for section in sections:
        strings = sections[section.strings].content if section.kind in (DYNAMIC, VERSIONS_NEEDED) else b""
        if section.kind == DYNAMIC:
            for tag, value in struct.iter_unpack("<QQ", section.content):
                if tag == TAG_NEEDED:
                    libraries.append(_text(strings, value))
                elif tag in (TAG_RPATH, TAG_RUNPATH):
                    search.append(_text(strings, value))
        elif section.kind == VERSIONS_NEEDED:
            versions.update(_versions(section.content, strings))
    return Needs(machine, libraries, versions, search)


def _sections(data: bytes) -> List[_Section]:
    offset = struct.unpack_from("<Q", data, 40)[0]
    size, count = struct.unpack_from("<HH", data, 58)
    found = []
    for index in range(count):
        kind, at, length, link = struct.unpack_from("<4xI16xQQI", data, offset + index * size)
        found.append(_Section(kind, data[at : at + length] if kind in (DYNAMIC, VERSIONS_NEEDED, 3) else b"", link))
    return found


def _versions(content: bytes, strings: bytes) -> Dict[str, Set[str]]:
    found: Dict[str, Set[str]] = {}
    at = 0
    while True:
        count, file, first, following = struct.unpack_from("<2xHIII", content, at)
        names = found.setdefault(_text(strings, file), set())
        entry = at + first
        for _ in range(count):
            name, next_entry = struct.unpack_from("<8xII", content, entry)
            names.add(_text(strings, name))
            entry += next_entry
        if not following:
            return found
        at += following


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode("ascii")


def number(version: str) -> Tuple[int, ...]:
    """GLIBC_2.28 as (2, 28). Names without a number, such as GLIBC_PRIVATE, are above all others."""
    digits = version.rpartition("_")[2].split(".")
    return tuple(int(digit) for digit in digits) if all(digit.isdigit() for digit in digits) else (1 << 30,)


# Parts of glibc: wherever one is, all are.
GLIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2"}
GLIBC |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def not_portable(found: Needs, glibc: str) -> List[str]:
    """Why a system with this glibc, and nothing else, may not run the binary."""
    faults = [f"it needs {library}" for library in found.libraries if library not in GLIBC]
    faults += [f"it searches for libraries in {folder}" for folder in found.search]
    for library, names in sorted(found.versions.items()):
        if library in GLIBC:
            newer = [name for name in names if number(name) > number(f"GLIBC_{glibc}")]
            faults += [f"it needs {name} of {library}" for name in sorted(newer, key=number)]
    return faults


def newest_glibc(found: Needs) -> str:
    """The number of the newest version that the binary needs."""
    names = [name for library in GLIBC for name in found.versions.get(library, ())]
    return max(names, key=number).rpartition("_")[2] if names else "none"
