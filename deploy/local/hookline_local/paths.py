"""All paths of these tools."""

from __future__ import annotations

import pathlib
from typing import Dict

LOCAL = pathlib.Path(__file__).resolve().parent.parent
ROOT = LOCAL.parent.parent

VERSIONS = LOCAL / "versions.env"
NATS_CONF = LOCAL / "nats.conf"
REDIS_CONF = LOCAL.parent / "redis" / "redis.conf"
PROMETHEUS_CONF = ROOT / "deploy" / "prometheus" / "prometheus.yml"
PROMETHEUS_RULES = ROOT / "deploy" / "prometheus" / "rules"

# All three are git-ignored.
SERVERS = ROOT / ".servers"
TOOLS = ROOT / ".tools"
RUN = ROOT / ".run"

NATS_SERVER = SERVERS / "bin" / "nats-server"
REDIS_SERVER = SERVERS / "bin" / "redis-server"
PROMETHEUS = SERVERS / "bin" / "prometheus"


def versions() -> Dict[str, str]:
    """The pinned versions, by name."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def shown(path: pathlib.Path) -> str:
    """The path relative to the project's folder, if it is inside."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
