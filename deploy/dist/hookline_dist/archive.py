"""Archives that depend on their content only: names in order, owner root, one time for all."""

from __future__ import annotations

import pathlib
import struct
import tarfile
import zlib
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from .failure import Failure


class File(NamedTuple):
    content: bytes
    mode: int = 0o644


# By path, without a leading slash.
Files = Dict[str, File]


def read(path: pathlib.Path) -> File:
    """A file, executable for all if it is for its owner. Other bits depend on who checked it out."""
    return File(path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)


def tar(files: Files, time: int, prefix: str = "") -> bytes:
    """With all folders above the files."""
    parts = []
    for name, file in _with_folders(files):
        entry = tarfile.TarInfo(f"{prefix}{name}")
        entry.mtime = time
        entry.uname = entry.gname = "root"
        if file is None:
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            parts.append(_header(entry))
        else:
            entry.size, entry.mode = len(file.content), file.mode
            parts += [_header(entry), file.content, bytes(-len(file.content) % tarfile.BLOCKSIZE)]
    return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE)


def _header(entry: tarfile.TarInfo) -> bytes:
    """Without numbers of devices, which some versions of Python write for files too."""
    header = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    header[329:345] = bytes(16)
    # The checksum counts itself as spaces.
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


def _with_folders(files: Files) -> List[Tuple[str, Optional[File]]]:
    folders: Set[str] = set()
    for name in files:
        folders.update(str(folder) for folder in pathlib.PurePosixPath(name).parents if str(folder) != ".")
    entries: Dict[str, Optional[File]] = {folder: None for folder in folders}
    entries.update(files)
    return sorted(entries.items())


def gz(data: bytes, level: int = 9) -> bytes:
    """The module gzip writes other headers in other versions of Python."""
    header = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(data) + deflate.flush()
    return header + packed + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def xz(data: bytes, level: int = 6) -> bytes:
    try:
        import lzma  # Not at the top: some builds of Python lack it.
    except ImportError:
        raise Failure("this Python has no module lzma; use the system's Python") from None
    return lzma.compress(data, preset=level)


def ar(members: List[Tuple[str, bytes]], time: int) -> bytes:
    """An `ar` archive, which a Debian package is."""
    parts = [b"!<arch>\n"]
    for name, content in members:
        parts.append(f"{name:<16}{time:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode("ascii"))
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def read_ar(archived: bytes) -> Iterator[Tuple[str, bytes]]:
    """Names and contents of the members."""
    at = len(b"!<arch>\n")
    while at < len(archived):
        size = int(archived[at + 48 : at + 58])
        yield archived[at : at + 16].decode("ascii").strip(), archived[at + 60 : at + 60 + size]
        # Members begin at even places.
        at += 60 + size + size % 2
