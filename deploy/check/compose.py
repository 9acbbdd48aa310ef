"""Checks of deploy/compose.yaml and deploy/docker that its schema cannot make."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, List

import common
import yaml
from common import DEPLOY, ROOT
from tools import versions

FILE = DEPLOY / "compose.yaml"
EXAMPLE = DEPLOY / "compose" / "example.env"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
# Distroless has no tags of versions; the Dockerfile says so.
WITHOUT_VERSION = {"gcr.io/distroless/cc-debian12:nonroot"}
# Ends by itself.
ONCE = "nats-volumes"
PROFILES = ("three,demo", "one")


def faults(settings: common.Settings, packages: pathlib.Path) -> List[str]:
    project = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    secrets = common.Secrets()
    found = [*hadolint_faults(packages), *dockerfile_faults()]
    wrong = [*schema_faults(packages)]
    if wrong:
        return wrong + found
    found += file_faults(project, secrets)
    found += variable_faults(secrets)
    found += provisioning_faults()
    found += scrape_faults(project)
    for name, service in project["services"].items():
        found += [f"compose.yaml: {name}: {fault}" for fault in service_faults(name, service)]
        found += environment_faults(name, service, settings, secrets)
    return found


def schema_faults(packages: pathlib.Path) -> Iterator[str]:
    """The official schema of the Compose Specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    env = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        yield f"compose.yaml: {done.stdout.strip()}"


def hadolint_faults(packages: pathlib.Path) -> Iterator[str]:
    command = [str(packages / "bin" / "hadolint"), "--failure-threshold", "style", str(DOCKERFILE)]
    env = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        yield done.stdout.strip()


def dockerfile_faults() -> Iterator[str]:
    text = DOCKERFILE.read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    names = {name for _, name in stages}
    for image, _ in stages:
        if image not in names | WITHOUT_VERSION and common.image_fault(image):
            yield f"Dockerfile: {common.image_fault(image)}"
    for path in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in path.split()[:-1]:
            if not (ROOT / source).exists():
                yield f"Dockerfile: there is no {source} to copy"
            elif not any(source == shown or source.startswith(f"{shown}/") for shown in sent()):
                yield f"Dockerfile: .dockerignore leaves {source} out"
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', manifest, re.MULTILINE)
    minimum = re.search(r'^rust-version = "(.+)"', manifest, re.MULTILINE)
    if version and set(re.findall(r"^ARG VERSION=(.+)$", text, re.MULTILINE)) != {version[1]}:
        yield f"Dockerfile: VERSION is not {version[1]}, as Cargo.toml says"
    if minimum and f"FROM rust:{minimum[1]}." not in text:
        yield f"Dockerfile: the builder is not Rust {minimum[1]}, as Cargo.toml says"
    for member in re.findall(r'"([\w/]+)"', re.search(r"^members = \[(.*)\]", manifest, re.MULTILINE)[1]):
        if not re.search(rf"^COPY {member.split('/')[0]} ", text, re.MULTILINE):
            yield f"Dockerfile: the member {member} of the workspace is not copied"


def sent() -> List[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


def file_faults(project: Dict[str, Any], secrets: common.Secrets) -> Iterator[str]:
    """All that is mounted or built from exists, and can be read."""
    for name, service in project["services"].items():
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                if volume.split(":")[0] not in project["volumes"]:
                    yield f"compose.yaml: {name}: there is no volume {volume.split(':')[0]}"
            elif not (DEPLOY / volume["source"]).exists():
                yield f"compose.yaml: {name}: there is no deploy/{volume['source'][2:]}"
            elif not volume.get("read_only"):
                yield f"compose.yaml: {name}: {volume['source']} is not mounted read-only"
        for secret in service.get("secrets", []):
            if secret["source"] not in project["secrets"]:
                yield f"compose.yaml: {name}: there is no secret {secret['source']}"
        build = service.get("build")
        if build and f" AS {build['target']}\n" not in (DEPLOY / build["context"] / build["dockerfile"]).read_text():
            yield f"compose.yaml: {name}: the Dockerfile has no target {build['target']}"
    for name, secret in project["secrets"].items():
        folder, _, file = secret["file"].rpartition("/")
        if folder != "./secrets" or file not in secrets.files:
            yield f"compose.yaml: deploy/make-secrets makes no {secret['file']} for {name}"
        elif secrets.private(file):
            yield f"make-secrets: containers cannot read {file}, since they run as other users"
    if not secrets.private("authority.key"):
        yield "make-secrets: others can read authority.key"


def variable_faults(secrets: common.Secrets) -> Iterator[str]:
    """Each ${NAME} is in deploy/.env, or has a default."""
    example = set(re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    code = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    for name, default in re.findall(r"\$\{(\w+)([^}]*)\}", "\n".join(code)):
        if name not in example | set(secrets.variables) and not default.startswith(("-", ":-")):
            yield f"compose.yaml: neither example.env nor make-secrets has {name}"
    for name in sorted(example & set(secrets.variables)):
        yield f"example.env: {name} is a secret"


def provisioning_faults() -> Iterator[str]:
    """Grafana's data source is that of deploy/grafana, at another address."""
    own, shipped = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (
            DEPLOY / "compose" / "grafana-datasource.yaml",
            DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml",
        )
    )
    for source in shipped["datasources"]:
        source["url"] = "http://prometheus:9090"
    if own != shipped:
        yield "compose/grafana-datasource.yaml differs from deploy/grafana/provisioning by more than its url"


def scrape_faults(project: Dict[str, Any]) -> Iterator[str]:
    """Prometheus asks services at their status ports, under the names that alerts know."""
    own = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    if own["global"] != shipped["global"] or own["rule_files"] != shipped["rule_files"]:
        yield "compose/prometheus.yml: intervals and rules are not those of deploy/prometheus/prometheus.yml"
    if [job["job_name"] for job in own["scrape_configs"]] != [job["job_name"] for job in shipped["scrape_configs"]]:
        yield "compose/prometheus.yml: its jobs are not those of deploy/prometheus/prometheus.yml"
    for job in own["scrape_configs"]:
        for asked in job["dns_sd_configs"]:
            for name in asked["names"]:
                listens = project["services"][name]["environment"]["HOOKLINE_STATUS_LISTEN"]
                if not listens.endswith(f":{asked['port']}"):
                    yield f"compose/prometheus.yml: the status port of {name} is not {asked['port']}"


def promtool_faults(promtool: str) -> Iterator[str]:
    """Prometheus itself takes its configuration, with the rules beside it as they are mounted."""
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        shutil.copy(str(DEPLOY / "compose" / "prometheus.yml"), folder)
        (here / "rules").symlink_to(DEPLOY / "prometheus" / "rules")
        command = [promtool, "check", "config", str(here / "prometheus.yml")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode or "2 rule files found" not in done.stdout:
        yield f"compose/prometheus.yml: promtool: {done.stdout.strip()}"


def service_faults(name: str, service: Dict[str, Any]) -> Iterator[str]:
    text = DOCKERFILE.read_text(encoding="utf-8")
    pins = {"nats": versions()["NATS_SERVER"], "valkey/valkey": versions()["VALKEY"].partition(".post")[0]}
    image = service["image"]
    repository, _, tag = image.partition(":")
    if "build" in service:
        if f"ARG VERSION={tag}\n" not in text:
            yield f"{image} is not the version of the Dockerfile"
    elif common.image_fault(image):
        yield str(common.image_fault(image))
    if repository in pins and tag.partition("-")[0] != pins[repository]:
        yield f"{image} is not {pins[repository]}, as deploy/local/versions.env says"
    if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"]:
        yield "its root is not read-only, or it keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "it may gain privileges"
    if name != ONCE and "build" not in service and not re.fullmatch(r"[1-9]\d*:\d+", service.get("user", "")):
        yield "it runs as root"
    if name != ONCE and service.get("restart") != "unless-stopped":
        yield "it is not started again"
    if name != ONCE and "build" not in service and "healthcheck" not in service:
        yield "it has no health check"
    if "limits" not in service.get("deploy", {}).get("resources", {}):
        yield "it has no limits"
    if "container_name" in service:
        yield "container_name: it could not be scaled"
    if name == "dispatcher" and "ports" in service:
        yield "ports: it could not be scaled"
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            yield f"the port {port} is open to others"
    if name in common.SHUTDOWN and common.durations(service.get("stop_grace_period", "10s")) <= common.SHUTDOWN[name] + 5:
        yield f"stop_grace_period is not well above the {common.SHUTDOWN[name]} s that it takes to finish"


def environment_faults(
    name: str, service: Dict[str, Any], settings: common.Settings, secrets: common.Secrets
) -> Iterator[str]:
    environment = service.get("environment", {})
    if name in common.SERVICES:
        yield from settings.faults("compose.yaml", name, environment)
    if name.startswith("nats") and name != ONCE:
        for variable in sorted(common.nats_variables() - set(environment)):
            yield f"compose.yaml: {name}: deploy/nats needs {variable}"
    values = [re.sub(r"\$\{[^}]*\}", "x", str(value)) for value in environment.values()]
    for value in [*values, *service.get("command", [])]:
        if not re.match(r"(tls|rediss|nats-route)://|nats-\d:", value):
            continue
        certificate = "redis.crt" if value.startswith("rediss") else "nats.crt"
        for host in common.hosts_of(value):
            if not secrets.certifies(certificate, host):
                yield f"compose.yaml: {name}: {certificate} of make-secrets is not for {host}"


def load_faults(binary: pathlib.Path) -> Iterator[str]:
    """Docker Compose's own parser takes it, with both profiles."""
    secrets = common.Secrets()
    example = re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    for profiles in PROFILES:
        env = {**os.environ, **dict(example), **secrets.variables, "COMPOSE_PROFILES": profiles}
        command = [str(binary), str(FILE)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            yield f"compose.yaml: {profiles}: {done.stderr.strip()}"
            continue
        services = yaml.safe_load(done.stdout)["services"]
        nodes = sorted(name for name in services if name.startswith("nats") and name != ONCE)
        if nodes != (["nats"] if profiles == "one" else ["nats-1", "nats-2", "nats-3"]):
            yield f"compose.yaml: {profiles}: the NATS nodes are {', '.join(nodes)}"
        for name, service in services.items():
            for needed, condition in (service.get("depends_on") or {}).items():
                if condition["required"] and needed not in services:
                    yield f"compose.yaml: {profiles}: {name} waits for {needed}, which is not there"
