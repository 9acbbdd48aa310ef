"""Checks of the chart with Helm: it renders with each file of ci/, and what it renders is valid and fits together."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
from typing import Any, Dict, Iterator, List, Tuple

import common
import objects
import yaml
from chart_values import CHART, README
from common import DEPLOY

RELEASE = "hookline"
NAMESPACE = "hookline"
# The oldest that Chart.yaml takes, and the newest whose schemas we have.
KUBERNETES = ("1.30.0", "1.37.0")
# What must be refused: further values, over those of a file of ci/, and a part of the reason.
REFUSED: List[Tuple[str, str, str]] = [
    ("minimal", "replicas=3", "additional properties 'replicas' not allowed"),
    ("minimal", "gateway.replica=3", "additional properties 'replica' not allowed"),
    ("minimal", "dispatcher.image.version=1", "additional properties 'version' not allowed"),
    ("minimal", "gateway.image.tag=latest", "/gateway/image/tag"),
    ("minimal", "settings.HOOKLINE_MAX_EVENT=4194304", "got number, want string"),
    ("minimal", "settings.HOOKLINE_NATS_URL=nats", "HOOKLINE_NATS_URL"),
    ("minimal", "existingSecret=", "existingSecret: gateway needs the Secret with passwords"),
    ("minimal", "nats.url=", "nats.url: give the address of NATS"),
    ("minimal", "redis.url=", "redis.url: give the address of Redis"),
    ("cluster", "nats.tls.existingSecret=", "nats.tls.existingSecret: give the Secret"),
    ("cluster", "redis.tls.existingSecret=", "redis.tls.existingSecret: give the Secret"),
    ("cluster", "nats.replicas=1", "3 copies of a stream need as many NATS nodes"),
    ("cluster", "nats.replicas=2", "/nats/replicas"),
    ("keda-jetstream", "keda.jetstream.lagThreshold=1280", "is not more than the 1280 permits"),
    ("minimal", "keda.enabled=true,keda.trigger=nats-jetstream", "keda.jetstream.endpoint: give"),
]


class Helm:
    def __init__(self, binary: pathlib.Path, home: str) -> None:
        self.binary = binary
        # No settings, plugins or caches of the user.
        self.env = {**os.environ, **{f"HELM_{name}_HOME": f"{home}/{name}" for name in ("CACHE", "CONFIG", "DATA")}}
        self.env.pop("KUBECONFIG", None)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.binary), *arguments],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    def template(self, chart: str, values: pathlib.Path, *more: str) -> "subprocess.CompletedProcess[str]":
        options = ["--namespace", NAMESPACE, "--kube-version", KUBERNETES[-1], "--values", str(values)]
        return self.run("template", RELEASE, chart, *options, *more)


def faults(binary: pathlib.Path, settings: common.Settings) -> List[str]:
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(binary, home)
        found: List[str] = []
        files = sorted((CHART / "ci").glob("*-values.yaml"))
        for path in files:
            found += [f"helm: {path.name}: {fault}" for fault in set_faults(helm, path, settings)]
        found += [f"helm: {fault}" for fault in refusal_faults(helm)]
        found += [f"helm: {fault}" for fault in package_faults(helm, home)]
    if len(files) < 5:
        found.append(f"helm: ci/ has {len(files)} files of values only")
    return found


def set_faults(helm: Helm, values: pathlib.Path, settings: common.Settings) -> Iterator[str]:
    lint = helm.run("lint", "--strict", "--namespace", NAMESPACE, "--values", str(values), str(CHART))
    if lint.returncode:
        yield f"lint: {lint.stdout.strip()}"
    done = helm.template(str(CHART), values)
    if done.returncode:
        yield f"template: {done.stderr.strip()}"
        return
    rendered = [one for one in yaml.safe_load_all(done.stdout) if one]
    for one in rendered:
        for version in KUBERNETES:
            for fault in objects.schema_faults(one, version):
                yield f"Kubernetes {version}: {fault}"
    yield from objects.faults(rendered, settings)
    yield from source_faults(rendered)
    if values.name.startswith("cluster"):
        yield from certificate_faults(done.stdout)


def source_faults(rendered: List[Dict[str, Any]]) -> Iterator[str]:
    """What comes from files outside is as it is there."""
    for one in rendered:
        name = one["metadata"]["name"]
        if one["kind"] == "PrometheusRule":
            paths = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
            groups = [group for path in paths for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
            if one["spec"]["groups"] != groups:
                yield "the rules of the PrometheusRule are not those of deploy/prometheus/rules"
        elif one["kind"] == "ConfigMap" and "labels" in one["metadata"]:
            for file, text in one["data"].items():
                if not any(text.strip() == path.read_text(encoding="utf-8").strip() for path in sources(file)):
                    yield f"{file} in the ConfigMap {name} is not that of deploy/"
    maps = [one.get("data", {}) for one in rendered if one["kind"] == "ConfigMap"]
    boards = {file for data in maps for file in data if file.endswith(".json")}
    if boards and boards != {path.name for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}:
        yield "not all dashboards of deploy/grafana are there"
    for data in maps:
        if "cluster.conf" in data and set(data) != {path.name for path in (DEPLOY / "nats").glob("*.conf")}:
            yield "not all files of deploy/nats are there"


def sources(file: str) -> Iterator[pathlib.Path]:
    for folder in ("nats", "redis", "grafana/dashboards"):
        path = DEPLOY / folder / file
        if path.exists():
            yield path


def certificate_faults(text: str) -> Iterator[str]:
    """The names that README.md gives make-secrets are those by which NATS and Redis are reached."""
    command = re.search(r"^deploy/make-secrets secrets (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    secrets = common.Secrets(command[1].replace("'", "").split() if command else ())
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for value in set(re.findall(r"(?:tls|rediss|nats-route)://[^\s\"]+|\$\(POD_NAME\)\S+", code)):
        value = value.replace("$(POD_NAME)", f"{RELEASE}-nats-0")
        certificate = "redis.crt" if value.startswith("rediss") else "nats.crt"
        for host in common.hosts_of(value):
            if not secrets.certifies(certificate, host):
                yield f"the names for make-secrets in README.md do not cover {host}"
    for secret, keys in re.findall(r"create secret generic (\S+) (.+(?:\\\n.+)*)", README.read_text(encoding="utf-8")):
        for file in re.findall(r"=secrets/([\w.]+)", keys):
            if file not in secrets.files:
                yield f"README.md: make-secrets makes no {file} for {secret}"


def refusal_faults(helm: Helm) -> Iterator[str]:
    for name, values, reason in REFUSED:
        done = helm.template(str(CHART), CHART / "ci" / f"{name}-values.yaml", "--set", values)
        if done.returncode == 0:
            yield f"{name} with {values} is not refused"
        elif reason not in done.stderr:
            yield f"{name} with {values} is refused without `{reason}`: {done.stderr.strip()}"


def package_faults(helm: Helm, folder: str) -> Iterator[str]:
    """The archive has what links point to, and renders the same."""
    done = helm.run("package", str(CHART), "--destination", folder)
    archives = list(pathlib.Path(folder).glob("*.tgz"))
    if done.returncode or not archives:
        yield f"package: {done.stderr.strip()}"
        return
    with tarfile.open(archives[0]) as archive:
        names = archive.getnames()
        if any(member.issym() for member in archive) or f"{CHART.name}/files/nats/accounts.conf" not in names:
            yield "package: the files that links point to are not in the archive"
        if any("/ci/" in name for name in names):
            yield "package: ci/ is in the archive"
    values = CHART / "ci" / "cluster-values.yaml"
    if helm.template(str(archives[0]), values).stdout != helm.template(str(CHART), values).stdout:
        yield "package: the archive renders something else than the folder"


def chart_pins() -> Iterator[str]:
    """Servers have the versions of deploy/compose.yaml, and the chart that of Cargo.toml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name in ("nats", "redis"):
        image = f"{values[name]['image']['repository']}:{values[name]['image']['tag']}"
        if image != services[name]["image"]:
            yield f"helm: {name} is {image}, and {services[name]['image']} in deploy/compose.yaml"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    if f"ARG VERSION={chart['appVersion']}\n" not in dockerfile:
        yield f"helm: the appVersion {chart['appVersion']} is not the version of the Dockerfile"
