"""What is released: version, commit and time."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from typing import List, NamedTuple

from .failure import Failure

ROOT = pathlib.Path(__file__).resolve().parents[3]
HOMEPAGE = "https://github.com/hookline/hookline"
MAINTAINER = "Hookline maintainers <hookline@users.noreply.github.com>"
SERVICES = ("gateway", "dispatcher")
BINARIES = tuple(f"hookline-{service}" for service in SERVICES)


class Release(NamedTuple):
    version: str
    # Seconds since the epoch: the time of the last commit, for all files.
    time: int
    commit: str


def release() -> Release:
    return Release(_version(), _time(), _git(["rev-parse", "--short=12", "HEAD"]) or "unknown")


def uncommitted() -> bool:
    """Whether the files differ from the commit, so that nobody else can make the same."""
    return bool(_git(["status", "--porcelain"]))


def _version() -> str:
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^\[workspace\.package\]\n(?:.+\n)*?version = "([^"]+)"', text, re.MULTILINE)
    if not found:
        raise Failure("Cargo.toml has no version in [workspace.package]")
    return found.group(1)


def _time() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH") or _git(["log", "-1", "--format=%ct"])
    if not given.isdigit():
        raise Failure("there is no commit whose time to take; set SOURCE_DATE_EPOCH to seconds since 1970")
    return int(given)


def _git(arguments: List[str]) -> str:
    """Empty if this is no git repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
