"""Makes the files of a release twice, from the last commit in two folders, and says which of them differ.

The second time the folders have longer names, and cargo has another home. It takes two builds.
"""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import Dict, List

from . import archive, build, source
from .failure import Failure


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", metavar="PROFILE", default="release", help="of cargo (default: release)")
    parser.add_argument("--keep", action="store_true", help="keep the folders, to look at them")
    parser.add_argument("folders", nargs="*", type=pathlib.Path, metavar="FOLDER", help="only compare these two")
    options = parser.parse_args(arguments)
    if len(options.folders) not in (0, 2):
        parser.error("name two folders, or none")
    try:
        if options.folders:
            return _report(differences(*options.folders))
        return _build_and_compare(options.profile, options.keep)
    except Failure as failure:
        print(f"compare: {failure}", file=sys.stderr)
        return 1


def _build_and_compare(profile: str, keep: bool) -> int:
    if source.uncommitted():
        print("compare: changes that are not committed are left out", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hookline-compare-"))
    try:
        _make(folder / "1", folder / "dist-1", profile, build.cargo_home())
        _make(folder / "the" / "second" / "folder", folder / "dist-2", profile, _other_home(folder / "home"))
        return _report(differences(folder / "dist-1", folder / "dist-2"))
    finally:
        if keep:
            print(f"compare: see {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _make(clone: pathlib.Path, out: pathlib.Path, profile: str, home: pathlib.Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(source.ROOT), str(clone)], check=True)
    # The tools are the same: they need not be fetched again.
    (clone / ".servers").mkdir()
    tools = build.fetch_tools().zig.parent.parent
    (clone / ".servers" / tools.name).symlink_to(tools)
    env = {**os.environ, "CARGO_HOME": str(home), "CARGO_TARGET_DIR": str(clone / "target")}
    command = [sys.executable, str(clone / "deploy" / "dist" / "make-dist"), f"--profile={profile}", f"--out={out}"]
    if subprocess.run(command, env=env, check=False).returncode != 0:
        raise Failure(f"make-dist failed in {clone}")
    # Two builds at the same time would take much space.
    shutil.rmtree(clone / "target")


def _other_home(home: pathlib.Path) -> pathlib.Path:
    """A home of cargo at another path, with the same crates."""
    home.mkdir()
    for name in ("registry", "git", "config.toml", "bin", "credentials.toml"):
        place = build.cargo_home() / name
        if place.exists():
            (home / name).symlink_to(place)
    return home


def differences(first: pathlib.Path, second: pathlib.Path) -> List[str]:
    """One line for each file that is not the same in both folders."""
    names = sorted({path.name for folder in (first, second) for path in folder.iterdir()})
    if not names:
        raise Failure(f"{first} and {second} are empty")
    found = []
    for name in names:
        one, other = ((folder / name).read_bytes() if (folder / name).is_file() else None for folder in (first, second))
        if one is None or other is None:
            found.append(f"{name}: only in {first if other is None else second}")
        elif one != other:
            inside = _differences_inside(_members(name, one), _members(name, other))
            found.append(f"{name}: {', '.join(inside) or f'differs from byte {_first_difference(one, other)} on'}")
    return found


def _members(name: str, archived: bytes) -> Dict[str, bytes]:
    """The files in an archive, by path; none of other files."""
    found: Dict[str, bytes] = {}
    tars = [archived] if name.endswith((".tar.gz", ".tgz")) else []
    if name.endswith(".deb"):
        tars = [content for member, content in archive.read_ar(archived) if ".tar" in member]
    for one in tars:
        with tarfile.open(fileobj=io.BytesIO(one)) as members:
            for member in members:
                content = members.extractfile(member) if member.isfile() else None
                found[member.name] = content.read() if content else b""
    return found


def _differences_inside(one: Dict[str, bytes], other: Dict[str, bytes]) -> List[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _first_difference(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _report(found: List[str]) -> int:
    for line in found:
        print(line, file=sys.stderr)
    print(f"compare: {len(found)} files differ" if found else "compare: all files are the same", flush=True)
    return 1 if found else 0
