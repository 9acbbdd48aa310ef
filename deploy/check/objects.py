"""Checks of Kubernetes objects: each by its schema, and that they fit together."""

from __future__ import annotations

import functools
from typing import Any, Dict, Iterator, List

import common
import jsonschema
import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")
CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "PodMonitor": prometheus.PodMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}
# Given to be filled into others.
HELPERS = {"NATS_USER", "NATS_PASSWORD", "REDIS_PASSWORD"}


def schema_faults(one: Dict[str, Any], version: str) -> Iterator[str]:
    """Unknown fields are faults, too."""
    place = f"{one['kind']} {one['metadata']['name']}"
    if one["kind"] in CUSTOM:
        for error in jsonschema.Draft202012Validator(_custom_schema(one["kind"])).iter_errors(one):
            yield f"{place}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        return
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{place}: {'.'.join(map(str, error.path))}: {error.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{place}: there is no schema of {one['apiVersion']}"


@functools.lru_cache(maxsize=None)
def _custom_schema(kind: str) -> Any:
    """Of the resource's definition. By itself it takes unknown fields."""
    schema = CUSTOM[kind].model_json_schema(by_alias=True)
    pending = [schema, *schema.get("$defs", {}).values()]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "properties" in node and "additionalProperties" not in node:
                node["additionalProperties"] = False
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return schema


def faults(rendered: List[Dict[str, Any]], settings: common.Settings) -> Iterator[str]:
    seen = set()
    for one in rendered:
        key = (one["kind"], one["metadata"]["name"])
        if key in seen:
            yield f"{key[0]} {key[1]} is there twice"
        seen.add(key)
    pods = {name: pod for name, pod in _pods(rendered)}
    for name, pod in pods.items():
        for fault in _pod_faults(pod, settings):
            yield f"{name}: {fault}"
    for one in rendered:
        place = f"{one['kind']} {one['metadata']['name']}"
        for fault in _reference_faults(one, rendered, pods):
            yield f"{place}: {fault}"


def _pods(rendered: List[Dict[str, Any]]) -> Iterator[Any]:
    for one in rendered:
        if one["kind"] in WORKLOADS:
            template = one if one["kind"] == "Pod" else one["spec"]["template"]
            yield f"{one['kind']} {one['metadata']['name']}", template


def _pod_faults(pod: Dict[str, Any], settings: common.Settings) -> Iterator[str]:
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "it may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "it has no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it gets a token of Kubernetes"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        within = container.get("securityContext", {})
        if within.get("allowPrivilegeEscalation") is not False or within.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "it may gain privileges"
        if within.get("readOnlyRootFilesystem") is not True:
            yield "its root is not read-only"
        if common.image_fault(container["image"]):
            yield str(common.image_fault(container["image"]))
        if "limits" not in container.get("resources", {}):
            yield "it has no limits"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes | {"data"}:
                yield f"there is no volume {mount['name']}"
        yield from _environment_faults(container, settings)
        yield from _grace_faults(container, spec)


def _environment_faults(container: Dict[str, Any], settings: common.Settings) -> Iterator[str]:
    before: List[str] = []
    values = ""
    for variable in container.get("env", []):
        name, value = variable["name"], variable.get("value", "")
        if name in before:
            yield f"{name} is given twice"
        for helper in HELPERS:
            if f"$({helper})" in value and helper not in before:
                yield f"{name} needs {helper}, which does not stand before it"
        before.append(name)
        values += value
    service = {"replace-settings": "dispatcher"}.get(container["name"], container["name"])
    if service in common.SERVICES:
        yield from settings.faults("its environment", service, [name for name in before if name not in HELPERS])
        for helper in HELPERS & set(before):
            if f"$({helper})" not in values:
                yield f"nothing needs {helper}"
    if service == "nats":
        for name in sorted(common.nats_variables() - set(before)):
            yield f"deploy/nats needs {name}"


def _grace_faults(container: Dict[str, Any], spec: Dict[str, Any]) -> Iterator[str]:
    if container["name"] not in common.SHUTDOWN:
        return
    waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if spec["terminationGracePeriodSeconds"] <= waits + common.SHUTDOWN[container["name"]] + 5:
        yield "terminationGracePeriodSeconds is not well above what it takes to finish"
    for probe, path in (("livenessProbe", "/healthz"), ("startupProbe", "/healthz"), ("readinessProbe", "/readyz")):
        if container.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"{probe} does not ask {path}"


def _reference_faults(one: Dict[str, Any], rendered: List[Dict[str, Any]], pods: Dict[str, Any]) -> Iterator[str]:
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        chosen = [pod for pod in pods.values() if _matches(spec["selector"], pod)]
        if len(chosen) != 1:
            yield f"its selector matches {len(chosen)} workloads"
        for port in spec["ports"]:
            for pod in chosen:
                if port["targetPort"] not in _ports(pod):
                    yield f"pods have no port {port['targetPort']}"
    elif one["kind"] in ("PodMonitor", "PodDisruptionBudget"):
        chosen = [pod for pod in pods.values() if _matches(spec["selector"]["matchLabels"], pod)]
        if len(chosen) != 1:
            yield f"its selector matches {len(chosen)} workloads"
        for endpoint in spec.get("podMetricsEndpoints", []):
            if not all(endpoint["port"] in _ports(pod) for pod in chosen):
                yield f"pods have no port {endpoint['port']}"
            if {"hookline-gateway", "hookline-dispatcher"}.isdisjoint(
                rule.get("replacement") for rule in endpoint["relabelings"] if rule.get("targetLabel") == "job"
            ):
                yield "its job has not the name that alerts know"
    elif one["kind"] == "NetworkPolicy":
        labels = spec["podSelector"].get("matchLabels", {})
        chosen = [pod for pod in pods.values() if _matches(labels, pod)]
        named = {port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])}
        if not named <= {port for pod in chosen for port in _ports(pod)}:
            yield f"pods have not all of the ports {', '.join(sorted(named))}"
    elif one["kind"] == "ScaledObject":
        yield from _scaled_faults(spec, rendered)
    elif one["kind"] == "StatefulSet":
        services = [other["metadata"]["name"] for other in rendered if other["kind"] == "Service"]
        if spec["serviceName"] not in services:
            yield f"there is no Service {spec['serviceName']}"


def _scaled_faults(spec: Dict[str, Any], rendered: List[Dict[str, Any]]) -> Iterator[str]:
    target = spec["scaleTargetRef"]["name"]
    found = [one for one in rendered if one["kind"] == "Deployment" and one["metadata"]["name"] == target]
    if not found:
        yield f"there is no Deployment {target}"
    for deployment in found:
        if "replicas" in deployment["spec"]:
            yield f"the Deployment {target} sets replicas, too"
    consumers = [trigger["metadata"].get("consumer") for trigger in spec["triggers"]]
    if spec["triggers"][0]["type"] == "nats-jetstream" and consumers != ["dispatchers", "fanout", "retries"]:
        yield f"its triggers ask for the consumers {consumers}"
    services = {f"{one['metadata']['name']}.": one for one in rendered if one["kind"] == "Service"}
    for trigger in spec["triggers"]:
        address = trigger["metadata"].get("url", trigger["metadata"].get("natsServerMonitoringEndpoint", ""))
        host, _, rest = address.split("://")[-1].partition(":")
        service = services.get(host.split(".")[0] + ".")
        if service and int(rest.split("/")[0]) not in [port["port"] for port in service["spec"]["ports"]]:
            yield f"the Service {host} has no port {rest}"


def _matches(labels: Dict[str, str], pod: Dict[str, Any]) -> bool:
    return labels.items() <= pod["metadata"].get("labels", {}).items()


def _ports(pod: Dict[str, Any]) -> List[Any]:
    return [port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])]
