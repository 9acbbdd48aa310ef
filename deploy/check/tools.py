"""Installs the programs that check manifests into .tools/, once for each version. Needs no root."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any, List

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".tools"
PIP_TIMEOUT_S = 900
GO_TIMEOUT_S = 1800


class Failure(Exception):
    """A program could not be installed. The text says how to fix that."""


def versions() -> Any:
    """The pins of deploy/local/versions.env, by name."""
    lines = (ROOT / "deploy" / "local" / "versions.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line.strip() and not line.startswith("#"))


def python_packages(requirements: str) -> pathlib.Path:
    """The folder with the packages of a file here. It has `bin` as well."""
    if sys.version_info < (3, 11):
        raise Failure(f"the checks of manifests need Python 3.11 or newer; this is {sys.version.split()[0]}")
    source = HERE / requirements
    folder = TOOLS / source.stem.replace("requirements", "manifests")
    state = hashlib.sha256(source.read_bytes() + sys.version.encode()).hexdigest()
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / f"{folder.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "state"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
            return folder
        print(f"installing {source.relative_to(ROOT)} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--root-user-action", "ignore", "--no-deps", "--target", str(folder), "-r", str(source)]
        done = subprocess.run(command, timeout=PIP_TIMEOUT_S, check=False)
        if done.returncode:
            raise Failure(f"cannot install {source.name}: check that PyPI is reachable and {sys.executable} has pip")
        stamp.write_text(state, encoding="utf-8")
    return folder


def helm() -> pathlib.Path:
    """Helm, built by Go, since no registry here has its releases."""
    module = "helm.sh/helm/v3"
    version = versions()["HELM"]
    binary = TOOLS / "bin" / "helm"
    if not _is_module(binary, module, version):
        print(f"building Helm {version}, for some minutes ...", flush=True)
        _go(["install", "-trimpath", "-ldflags", "-s -w", f"{module}/cmd/helm@{version}"], ROOT, f"Helm {version}")
    return binary


def compose_load() -> pathlib.Path:
    """compose-load, which is Docker Compose's own parser."""
    source = HERE / "compose-load"
    binary = TOOLS / "bin" / "compose-load"
    state = TOOLS / "bin" / "compose-load.state"
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()
    if not binary.exists() or not state.exists() or state.read_text(encoding="utf-8") != digest:
        print("building compose-load ...", flush=True)
        _go(["build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), "."], source, "compose-load")
        state.write_text(digest, encoding="utf-8")
    return binary


def _is_module(binary: pathlib.Path, module: str, version: str) -> bool:
    if not binary.exists():
        return False
    done = subprocess.run(["go", "version", "-m", str(binary)], stdout=subprocess.PIPE, text=True, check=False)
    return any(line.split()[:3] == ["mod", module, version] for line in done.stdout.splitlines())


def _go(arguments: List[str], folder: pathlib.Path, what: str) -> None:
    (TOOLS / "bin").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GOBIN": str(TOOLS / "bin"), "CGO_ENABLED": "0"}
    done = subprocess.run(["go", *arguments], cwd=str(folder), env=env, timeout=GO_TIMEOUT_S, check=False)
    if done.returncode:
        raise Failure(f"cannot build {what}: check that the Go module proxy is reachable (go env GOPROXY)")
