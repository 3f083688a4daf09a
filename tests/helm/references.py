"""Names and labels in one object that another one should have; and how confined the container is."""

import re

from render import of_kind, one


def problems(objects):
    yield from names(objects)
    yield from selectors(objects)
    yield from ports(objects)
    yield from accounts(objects)
    yield from confinement(objects)


def names(objects):
    seen = set()
    for found in objects:
        metadata = found["metadata"]
        key = (found["kind"], metadata.get("namespace"), metadata["name"])
        if key in seen:
            yield f"two objects are {key}"
        seen.add(key)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", key[2]) or len(key[2]) > 63:
            yield f"{key} is no name"


def selectors(objects):
    """They select the pods of the Deployment, and not those of tests."""
    labels = template(objects)["metadata"]["labels"]
    selected = [("Deployment", one(objects, "Deployment")["spec"]["selector"]["matchLabels"])]
    selected += [("Service", found["spec"]["selector"]) for found in of_kind(objects, "Service")]
    for kind in ["PodDisruptionBudget", "PodMonitor"]:
        selected += [(kind, found["spec"]["selector"]["matchLabels"]) for found in of_kind(objects, kind)]
    policies = of_kind(objects, "NetworkPolicy")
    selected += [("NetworkPolicy", found["spec"]["podSelector"]["matchLabels"]) for found in policies]
    for kind, selector in selected:
        if not selector.items() <= labels.items():
            yield f"{kind} does not select the pods: {selector}"
        for test in of_kind(objects, "Pod"):
            if selector.items() <= test["metadata"]["labels"].items():
                yield f"{kind} selects the pod of a test: {selector}"


def ports(objects):
    known = {port["name"] for port in container(objects)["ports"]}
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in known:
                yield f"Service {service['metadata']['name']}: no port is called {port['targetPort']}"
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        if container(objects)[probe]["httpGet"]["port"] not in known:
            yield f"{probe}: no such port"
    for monitor in of_kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        services = of_kind(objects, "Service")
        matching = [found for found in services if selector.items() <= found["metadata"]["labels"].items()]
        if len(matching) != 1 or "http" not in [port["name"] for port in matching[0]["spec"]["ports"]]:
            yield f"ServiceMonitor selects {len(matching)} Services, and should one with a port called http"


def accounts(objects):
    account = template(objects)["spec"]["serviceAccountName"]
    bindings = of_kind(objects, "RoleBinding")
    bound = {subject["name"] for found in bindings for subject in found["subjects"]}
    made = {found["metadata"]["name"] for found in of_kind(objects, "ServiceAccount")}
    for other in (bound | made) - {account}:
        yield f"there is a ServiceAccount {other}, or a RoleBinding for it, and the pods are {account}"


def confinement(objects):
    pod = template(objects)["spec"]["securityContext"]
    hard = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    found = container(objects)["securityContext"]
    if found != hard or pod.get("runAsNonRoot") is not True:
        yield f"the container is not confined: {found}, {pod}"
    if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "there is no seccomp profile"
    for mount in container(objects)["volumeMounts"]:
        if "subPath" in mount or not mount.get("readOnly"):
            yield f"{mount} would never change, or could be written"


def template(objects):
    return one(objects, "Deployment")["spec"]["template"]


def container(objects):
    return next(found for found in template(objects)["spec"]["containers"] if found["name"] == "pgweir")
