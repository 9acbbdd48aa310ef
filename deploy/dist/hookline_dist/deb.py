"""Packages for Debian and Ubuntu, written here, since dpkg-deb and its compressor are not the same everywhere.

A package is an `ar` archive: the format's version, a tar with the package's description and scripts, and one with the
files.
"""

from __future__ import annotations

import email.utils
import hashlib
import pathlib
from datetime import datetime, timezone
from typing import Dict, Tuple

from . import archive, elf
from .archive import File, Files
from .failure import Failure
from .source import HOMEPAGE, MAINTAINER, Release

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "debian"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SUMMARIES = {
    "hookline-gateway": "event hooks for gateways: Admin API",
    "hookline-dispatcher": "event hooks for gateways: deliveries",
}
TEXTS = {
    "hookline-gateway": """ When something happens on a gateway node, the hooks that listen for it fire.
 A node of hookline-gateway serves the Admin API, which is that of Kong's event
 hooks, and raises an event for every change.""",
    "hookline-dispatcher": """ When something happens on a gateway node, the hooks that listen for it fire:
 a webhook, a custom request, a log record or a Lua function. Any number of
 hookline-dispatcher share these deliveries, with retries and dead letters.""",
}
SUGGESTS = {
    "hookline-gateway": "hookline-dispatcher, nats-server",
    "hookline-dispatcher": "hookline-gateway, nats-server, valkey-server | redis-server",
}
# The release of GCC whose libstdc++ has a version of symbols first.
LIBSTDCXX = {21: "5", 22: "6", 24: "7", 25: "8", 28: "9", 29: "11", 30: "12", 32: "13", 33: "14", 34: "15"}


def package(name: str, files: Files, configuration: str, release: Release, level: int) -> Tuple[str, bytes]:
    """The package's file name and content. `configuration` is kept when it was changed."""
    needed = elf.needs_of(files[f"usr/bin/{name}"].content, name)
    version, architecture = debian_version(release), ARCHITECTURES[needed.machine]
    size = sum(-(-len(file.content) // 1024) for file in files.values())
    control: Files = {
        "control": File(
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n"
            f"Installed-Size: {size}\nDepends: {depends(needed)}\nSuggests: {SUGGESTS[name]}\nSection: net\n"
            f"Priority: optional\nHomepage: {HOMEPAGE}\nDescription: {SUMMARIES[name]}\n{TEXTS[name]}\n".encode()
        ),
        "conffiles": File(f"/{configuration}\n".encode()),
        "md5sums": File(
            "".join(
                f"{hashlib.md5(file.content).hexdigest()}  {path}\n"  # noqa: S324  (the format's)
                for path, file in sorted(files.items())
                if path != configuration
            ).encode()
        ),
    }
    for script in ("postinst", "prerm", "postrm"):
        text = (SCRIPTS / script).read_text(encoding="utf-8").replace("%SERVICE%", name)
        control[script] = File(text.replace("%SETTINGS%", f"/{configuration}").encode(), 0o755)
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", archive.xz(archive.tar(control, release.time, "./"), level)),
        ("data.tar.xz", archive.xz(archive.tar(files, release.time, "./"), level)),
    ]
    return f"{name}_{version}_{architecture}.deb", archive.ar(members, release.time)


def debian_version(release: Release) -> str:
    """1.0.0-rc.1 comes before 1.0.0 as 1.0.0~rc.1."""
    return release.version.replace("-", "~", 1) + "-1"


def depends(needed: elf.Needs) -> str:
    """The packages of the libraries, at the versions of the symbols that are used."""
    wanted: Dict[str, str] = {}
    for library in needed.libraries:
        versions = needed.versions.get(library, set())
        if library in elf.GLIBC:
            wanted["libc6"] = elf.newest_glibc(needed)
        elif library == "libgcc_s.so.1":
            wanted["libgcc-s1"] = max((name for name in versions), key=elf.number).rpartition("_")[2]
        elif library == "libstdc++.so.6":
            wanted["libstdc++6"] = _libstdcxx(max(elf.number(one)[-1] for one in versions if one.startswith("GLIBCXX")))
        else:
            raise Failure(f"which package of Debian has {library}? Add it to deb.depends")
    return ", ".join(f"{package} (>= {version})" for package, version in sorted(wanted.items()))


def _libstdcxx(minor: int) -> str:
    known = [version for symbols, version in sorted(LIBSTDCXX.items()) if symbols >= minor]
    if not known:
        raise Failure(f"which GCC has GLIBCXX_3.4.{minor}? Add it to deb.LIBSTDCXX")
    return known[0]


def changelog(name: str, release: Release) -> bytes:
    when = email.utils.format_datetime(datetime.fromtimestamp(release.time, timezone.utc))
    head = f"{name} ({debian_version(release)}) unstable; urgency=medium"
    change = f"  * Version {release.version}: see changelog.gz."
    return archive.gz(f"{head}\n\n{change}\n\n -- {MAINTAINER}  {when}\n".encode())


def copyright_text() -> bytes:
    return (SCRIPTS / "copyright").read_bytes()
