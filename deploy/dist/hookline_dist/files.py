"""Which files go where: in the tarball, and in the packages."""

from __future__ import annotations

import pathlib
from typing import Tuple

from . import archive, deb
from .archive import File, Files
from .source import ROOT, SERVICES, Release

DEPLOY = ROOT / "deploy"
TEXTS = ("LICENSE", "README.md", "CHANGELOG.md")
# Settings of what runs beside the services.
CONFIGURATION: Tuple[str, ...] = ("nats/*", "redis/*", "prometheus/*.yml", "prometheus/rules/*", "prometheus/targets/*")
CONFIGURATION += ("grafana/dashboards/*.json", "grafana/provisioning/**/*", "systemd/*", "make-secrets")
# These are no secrets: only who configures the service may read them, since they will have some.
SETTINGS_MODE = 0o640


def tarball(binaries: pathlib.Path, licences: str) -> Files:
    files = {f"bin/hookline-{service}": _binary(binaries, service) for service in SERVICES}
    files.update({name: archive.read(ROOT / name) for name in TEXTS})
    files["THIRD-PARTY-LICENCES.txt"] = File(licences.encode())
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.is_file():
            files[str(path.relative_to(ROOT))] = archive.read(path)
    files.update(_configuration("deploy/", CONFIGURATION))
    return files


def debian(binaries: pathlib.Path, service: str, licences: str, release: Release) -> Files:
    name = f"hookline-{service}"
    documents = f"usr/share/doc/{name}"
    files = {
        f"usr/bin/{name}": _binary(binaries, service),
        settings(service): File((DEPLOY / "systemd" / f"{service}.env").read_bytes(), SETTINGS_MODE),
        f"{documents}/README.md": File((DEPLOY / "systemd" / "README.md").read_bytes()),
        f"{documents}/copyright": File(deb.copyright_text()),
        f"{documents}/changelog.gz": File(archive.gz((ROOT / "CHANGELOG.md").read_bytes())),
        f"{documents}/changelog.Debian.gz": File(deb.changelog(name, release)),
        f"{documents}/third-party-licences.txt.gz": File(archive.gz(licences.encode())),
    }
    for unit in sorted((DEPLOY / "systemd").glob(f"{name}*.service")):
        files[f"usr/lib/systemd/system/{unit.name}"] = File(unit.read_bytes())
    files.update(_configuration(f"{documents}/examples/", ("nats/*", "redis/*", "make-secrets")))
    return files


def settings(service: str) -> str:
    """Where a package has the service's settings."""
    return f"etc/hookline/{service}.env"


def _binary(binaries: pathlib.Path, service: str) -> File:
    return File((binaries / f"hookline-{service}").read_bytes(), 0o755)


def _configuration(place: str, patterns: Tuple[str, ...]) -> Files:
    found = {path for pattern in patterns for path in DEPLOY.glob(pattern) if path.is_file()}
    return {f"{place}{path.relative_to(DEPLOY)}": archive.read(path) for path in sorted(found)}
