"""What the checks of the compose file and of the chart have in common."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tempfile
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set

from tools import ROOT

DEPLOY = ROOT / "deploy"
SERVICES = ("gateway", "dispatcher")
# How long services take to finish, by default, in seconds.
SHUTDOWN = {"gateway": 30, "dispatcher": 20}
# What the environment of others gives, and the binaries take without listing it.
OTHERS = re.compile(r"OTEL_\w+|HOOKLINE_VAULT_\w+|KONG_PASSWORD|HOOKLINE_REVISION")


class Settings:
    """The variables that the services know."""

    def __init__(self, binaries: Optional[pathlib.Path]) -> None:
        """Of `--help`, which has those of each service, or else of the documents, which have those of both."""
        if binaries:
            self.known = {name: self._help(binaries / f"hookline-{name}") for name in SERVICES}
        else:
            documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
            text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
            named = set(re.findall(r"^\| `(HOOKLINE_\w+)`", text, re.MULTILINE))
            self.known = {name: named for name in SERVICES}

    @staticmethod
    def _help(binary: pathlib.Path) -> Set[str]:
        done = subprocess.run([str(binary), "--help"], stdout=subprocess.PIPE, text=True, check=True)
        return set(re.findall(r"\[env: (\w+)", done.stdout))

    def faults(self, place: str, service: str, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if name not in self.known[service] and not OTHERS.fullmatch(name):
                yield f"{place}: {service} knows no setting {name}"


def nats_variables() -> Set[str]:
    """What deploy/nats/*.conf takes from the environment."""
    found: Set[str] = set()
    for path in (DEPLOY / "nats").glob("*.conf"):
        lines = path.read_text(encoding="utf-8").splitlines()
        code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        found |= set(re.findall(r"(?<=[:\s])\$([A-Z][A-Z0-9_]+)(?=[\s}]|$)", code, re.MULTILINE))
    # Subjects, such as $JS.API.INFO, stand in quotes.
    return found


def image_fault(image: str) -> Optional[str]:
    """Whether a tag says an exact version. Two parts, as 12.4, do not."""
    name, _, digest = image.partition("@")
    tag = name.rsplit("/", 1)[-1].partition(":")[2]
    if digest or re.match(r"v?\d+\.\d+\.\d+", tag):
        return None
    return f"the image {image} has no exact version"


class Secrets:
    """What deploy/make-secrets makes, by default or for given names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self._folder.name) / "secrets"
        command = [str(DEPLOY / "make-secrets"), str(self.path), *names]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        self.files = {path.name for path in self.path.iterdir()}
        lines = (self.path / "secrets.env").read_text(encoding="utf-8").splitlines()
        self.variables: Dict[str, str] = dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def private(self, name: str) -> bool:
        """Whether other users, as which containers run, cannot read it."""
        return not os.stat(self.path / name).st_mode & 0o004

    def hosts(self, certificate: str) -> List[str]:
        command = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(self.path / certificate)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return re.findall(r"DNS:([^\s,]+)", done.stdout)

    def certifies(self, certificate: str, host: str) -> bool:
        """As clients decide: a star stands for one label, and has two or more after it."""
        first, _, rest = host.partition(".")
        for name in self.hosts(certificate):
            if name == host or (first and rest.count(".") and name == f"*.{rest}"):
                return True
        return False


def hosts_of(text: str) -> Set[str]:
    """The hosts of URLs and of HOST:PORT, without those to listen on."""
    found = set(re.findall(r"(?:[@/,]|^)([a-z$()A-Z_][\w.$()-]*):\d+", text))
    return {host for host in found if host != "0.0.0.0"}


def durations(text: Any) -> float:
    """Of Compose, in seconds."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", str(text))
    return sum(float(number) * units[unit] for number, unit in parts)
