"""What is true of particular values: the least, those that take another's place, those that are refused."""

import copy
import json
import re

import helm_python
import yaml

import generated
from render import (
    CHART,
    EVERYTHING,
    MINIMAL,
    MYPG,
    ROOT,
    booleans,
    of_kind,
    one,
    read_values,
    render,
    with_value,
)


def problems():
    for check in [minimal, drop_in, pgadmin, restarts, observability, refused]:
        try:
            yield from check()
        except helm_python.HelmError as error:
            yield f"{check.__name__}: {error}"


def minimal():
    objects, _ = render(read_values(MINIMAL))
    kinds = sorted(found["kind"] for found in objects)
    if kinds != ["ConfigMap", "Deployment", "Service"]:
        yield f"values-minimal.yaml makes {kinds}"
    if one(objects, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"]:
        yield "values-minimal.yaml: the pods have a token"
    for path in booleans():
        value = read_values(MINIMAL)
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if value is not False:
            yield f"values-minimal.yaml leaves {'.'.join(path)} on"


def drop_in():
    """What clients, pgAdmin and the load balancer know of the deployment that values-mypg-yc.yaml replaces."""
    objects, _ = render(read_values(MYPG))
    services = {found["metadata"]["name"]: found["spec"] for found in of_kind(objects, "Service")}
    wanted = {"mypg-yc-pooler": ("ClusterIP", 5432), "mypg-yc-pooler-svc-lb": ("LoadBalancer", 51963)}
    for name, (kind, port) in wanted.items():
        found = services.get(name, {"type": None, "ports": [{}]})
        if (found["type"], found["ports"][0].get("port")) != (kind, port):
            yield f"the Service {name} is not a {kind} with port {port}: {found}"
    deployment = one(objects, "Deployment")
    if deployment["metadata"]["name"] == "mypg-yc-pooler":
        yield "the Deployment has the name of the Pooler's, whose selector cannot be changed"
    if deployment["spec"]["replicas"] != 3:
        yield "there are not three replicas"
    certificates = {found["spec"].get("commonName"): found["spec"] for found in of_kind(objects, "Certificate")}
    names = certificates[None]["dnsNames"]
    for name in wanted:
        for full in [name, f"{name}.mypg", f"{name}.mypg.svc", f"{name}.mypg.svc.cluster.local"]:
            if full not in names:
                yield f"{full} is not in the certificate"
    if certificates["cnpg_pooler_pgbouncer"]["usages"] != ["digital signature", "client auth"]:
        yield "the certificate of cnpg_pooler_pgbouncer is not for clients"
    servers = pgadmin_servers(objects)
    hosts = {(found["Name"], found["Host"], found["Username"]) for found in servers.values()}
    host = "mypg-yc-pooler.mypg.svc.cluster.local"
    if hosts != {("application", host, "myappuser2"), ("read-only", host, "reader")}:
        yield f"pgAdmin's servers are {hosts}"
    rules = one(objects, "Role")["rules"]
    if [rule.get("resourceNames") for rule in rules] != [None, ["mypg-yc"], ["mypg-yc"]]:
        yield f"the Role is for {rules}"


def pgadmin_servers(objects):
    name = "servers.json"
    return next(json.loads(found["data"][name]) for found in of_kind(objects, "ConfigMap") if name in found["data"])["Servers"]


def pgadmin():
    """The same shape as the sample that is tried with pgAdmin."""
    sample = ROOT / "config/pgadmin-servers.json"
    if not sample.exists():
        return
    sample = json.loads(sample.read_text())["Servers"]
    rendered = pgadmin_servers(render(read_values(EVERYTHING))[0])
    if shape(sample) != shape(rendered):
        yield f"pgAdmin's servers are not like those of config/pgadmin-servers.json: {shape(rendered)}"


def shape(servers):
    keys = {name: sorted(server) + sorted(server["ConnectionParameters"]) for name, server in servers.items()}
    return keys, [server["Name"] for server in servers.values()]


def restarts():
    """Pods are replaced for what needs a restart, and for nothing else."""
    source = (ROOT / "src/config/diff.rs").read_text()
    listed = re.search(r"const RESTART: \[&str; \d+\] = \[(.*?)\];", source, re.DOTALL)[1]
    keys = re.findall(r'"([^"]+)"', listed)
    base = read_values(MYPG)
    before = pods(base)
    values = {"listen.address": "0.0.0.0:7000", "http.address": "0.0.0.0:7001", "log.format": "text", "process.workers": 3}
    for key in keys:
        if pods(with_value(base, ("config", *key.split(".")), values.get(key, "other"))) == before:
            yield f"config.{key} needs a restart, and rolls no pods"
    others = base
    for section, key in generated.settings():
        path = f"{section}.{key}".replace("NAME", "a")
        if path not in keys and section != "shutdown":
            others = with_value(others, ("config", *path.split(".")), "changed")
    if pods(others) != before:
        yield "the pods are rolled for settings that need no restart"
    hba = with_value(base, ("auth", "hba"), ["host all all all scram-sha-256"])
    if pods(hba) != before:
        yield "auth.hba needs no restart, and rolls the pods"
    slow = with_value(base, ("config", "shutdown"), {"drain_delay": "1500ms", "drain_timeout": "2m"})
    grace = pods(slow)["spec"]["terminationGracePeriodSeconds"]
    if grace != 2 + 120 + 10:
        yield f"terminationGracePeriodSeconds is {grace}"


def pods(values):
    return one(render(values)[0], "Deployment")["spec"]["template"]


def observability():
    """The alerts and the dashboard are the files' own, which other tests check."""
    objects, _ = render(read_values(EVERYTHING))
    wanted = yaml.safe_load((CHART / "rules/pgweir.yaml").read_text())["groups"]
    excluded = read_values(EVERYTHING)["prometheusRule"]["exclude"]
    for group in wanted:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] not in excluded]
        for rule in group["rules"]:
            rule["labels"]["team"] = "data"
    if one(objects, "PrometheusRule")["spec"]["groups"] != wanted:
        yield "the alerts are not those of chart/rules/pgweir.yaml"
    name = "pgweir.json"
    boards = [found["data"][name] for found in of_kind(objects, "ConfigMap") if name in found["data"]]
    if [json.loads(board) for board in boards] != [json.loads((CHART / "dashboards" / name).read_text())]:
        yield "the dashboard is not that of chart/dashboards/pgweir.json"
    # Alerts look for a job with this name in it, which Prometheus takes from the label.
    label = one(objects, "PodMonitor")["spec"]["jobLabel"]
    if one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"][label] != "pgweir":
        yield "the job of the metrics is not called pgweir"


# Values that do not go together, or are none, and what the message has to name.
REFUSED = [
    ({}, "cluster.name"),
    ({"tls.enabled": True}, "tls.secret"),
    ({"auth.user": ""}, "auth.usersSecret"),
    ({"auth.secret": None}, "auth.secret"),
    ({"userCertificates": [{"user": "a"}]}, "secret"),
    ({"podMonitor.enabled": True, "serviceMonitor.enabled": True}, "serviceMonitor.enabled"),
    ({"shimPooler.enabled": True, "cluster.namespace": "other"}, "namespace"),
    ({"rawConfig": "a", "existingConfigMap": "b"}, "rawConfig"),
    ({"loadBalancer.enabled": True, "loadBalancer.name": "pooler-pgweir"}, "loadBalancer.name"),
    ({"prometheusRule.enabled": True, "prometheusRule.exclude": ["Nonsense"]}, "Nonsense"),
    ({"config.shutdown.drain_timeout": "1 minute"}, "1 minute"),
    ({"autoscaling.enabled": True, "autoscaling.targetCPU": None}, "targetCPU"),
    ({"replicas": 3}, "replicas"),
    ({"config.pool.pool_mode": "session"}, "pool_mode"),
    ({"config.databases.a.host": "h"}, "host"),
    ({"service.port": "5432"}, "port"),
    ({"tls.mode": "disable"}, "mode"),
]


def refused():
    for changes, named in REFUSED:
        values = {"cluster": {"name": "mypg"}} if changes else {}
        for path, value in changes.items():
            values = with_value(values, tuple(path.split(".")), copy.deepcopy(value))
        try:
            render(values)
        except helm_python.HelmError as error:
            if named not in str(error):
                yield f"{changes} is refused without naming {named}: {error}"
        else:
            yield f"{changes} is not refused"
