"""Installs the npm packages of a folder's package-lock.json, once for each state of it."""

from __future__ import annotations

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
from typing import List

INSTALL_TIMEOUT_S = 600


class Failure(Exception):
    """The packages could not be installed. The text says how to fix that."""


SERVERS = pathlib.Path(__file__).resolve().parents[3] / ".servers" / "bin"


def node() -> str:
    """As fetched by deploy/local/fetch-servers, or from PATH."""
    fetched = SERVERS / "node"
    found = str(fetched) if fetched.exists() else shutil.which("node")
    if not found:
        raise Failure("Node.js is missing: run `deploy/local/fetch-servers node`")
    return found


def npm() -> List[str]:
    """The npm that comes with Node.js, or from PATH."""
    own = pathlib.Path(node()).resolve().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if own.is_file():
        return [node(), str(own)]
    found = shutil.which("npm")
    if not found:
        raise Failure("npm is not on PATH. Debian, Ubuntu: apt-get install npm")
    return [found]


def install(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Returns the folder node_modules. Copies of package.json and package-lock.json lie beside it."""
    files = [source / "package.json", source / "package-lock.json"]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    modules, stamp = target / "node_modules", target / "installed"
    target.mkdir(parents=True, exist_ok=True)
    with open(target / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
            return modules
        stamp.unlink(missing_ok=True)
        for path in files:
            shutil.copy(str(path), str(target))
        print(f"installing the npm packages of {source.name}/package.json ...", flush=True)
        _npm_ci(target)
        stamp.write_text(digest, encoding="utf-8")
    return modules


def _npm_ci(folder: pathlib.Path) -> None:
    command: List[str] = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"npm ci did not end within {INSTALL_TIMEOUT_S} s: check that the npm registry is reachable")
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise Failure(f"npm ci failed; check that the npm registry is reachable (npm config get registry):\n{said}")
