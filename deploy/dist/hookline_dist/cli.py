"""make-dist: the tarball, the packages, the bill of materials and the checksums of a release.

hookline-VERSION-MACHINE-linux-gnu.tar.gz   both services, their documents and all configuration
hookline-SERVICE_VERSION-1_ARCHITECTURE.deb for Debian and Ubuntu
hookline-VERSION.tgz                        the Helm chart, if helm is on PATH
hookline-VERSION.cdx.json                   the bill of materials (CycloneDX)
SHA256SUMS
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import platform
import shutil
import sys
from typing import Dict, List

from . import archive, build, crates, deb, elf, files, helm, licences, sbom, source
from .failure import Failure


def make_dist(arguments: List[str]) -> int:
    options = _options(arguments)
    try:
        _make(options)
    except Failure as failure:
        print(f"make-dist: {failure}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make-dist", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = build.target_folder() / "dist"
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FOLDER", default=out, help="is emptied (default: target/dist)"
    )
    parser.add_argument("--binaries", type=pathlib.Path, metavar="FOLDER", help="take these instead of building")
    parser.add_argument(
        "--any-glibc", action="store_true", help="with --binaries: take them although they need more than glibc 2.28"
    )
    parser.add_argument("--profile", metavar="PROFILE", default="release", help="of cargo (default: release)")
    parser.add_argument("--fast", action="store_true", help="compress little, for tests")
    options = parser.parse_args(arguments)
    if options.any_glibc and not options.binaries:
        parser.error("--any-glibc needs --binaries")
    return options


def _make(options: argparse.Namespace) -> None:
    release = source.release()
    if source.uncommitted():
        _say("WARNING: there are changes that are not committed, so nobody else can make the same files")
    binaries, zig = options.binaries, None
    if not binaries:
        tools = build.fetch_tools()
        zig = tools.zig_version
        binaries = build.build(tools, release, platform.machine(), options.profile)
    elif not options.any_glibc:
        build.check(binaries, [])
    machine = elf.needs(binaries / source.BINARIES[0]).machine
    used = crates.used(machine)
    texts = licences.text(used)
    made = {f"hookline-{release.version}.cdx.json": sbom.text(used, release, crates.rust_version(), zig).encode()}
    made.update(_tarball(binaries, machine, texts, release, options.fast))
    for service in source.SERVICES:
        content = files.debian(binaries, service, texts, release)
        level = 0 if options.fast else 6
        name, package = deb.package(f"hookline-{service}", content, files.settings(service), release, level)
        made[name] = package
    chart = helm.package(release)
    if chart:
        made[chart[0]] = chart[1]
    _write(options.out, made)


def _tarball(binaries: pathlib.Path, machine: str, texts: str, release: source.Release, fast: bool) -> Dict[str, bytes]:
    name = f"hookline-{release.version}-{machine}-linux-gnu"
    content = archive.tar(files.tarball(binaries, texts), release.time, f"{name}/")
    return {f"{name}.tar.gz": archive.gz(content, 1 if fast else 9)}


def _write(folder: pathlib.Path, made: Dict[str, bytes]) -> None:
    if folder.exists():
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(("hookline", "SHA256SUMS"))]
        if foreign:
            raise Failure(f"{folder} has other files, such as {foreign[0]}; name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    made["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    for name, content in sorted(made.items()):
        (folder / name).write_bytes(content)
        _say(f"{len(content):>11,}  {folder / name}")


def _say(text: str) -> None:
    print(text, flush=True)
