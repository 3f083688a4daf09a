"""Objects by the schemas of their kinds: Kubernetes' own, strictly, and those of two operators."""

import functools
import json
import pathlib
import subprocess

import kubernetes_validate
from kubernetes_validate import utils

HERE = pathlib.Path(__file__).resolve().parent
# They are large, and the same ones are asked for each time.
utils.schema_contents = functools.cache(utils.schema_contents)

# The Prometheus operator's and cert-manager's, whose schemas come from npm.
OPERATORS = ("monitoring.coreos.com/", "cert-manager.io/")


def newest():
    return kubernetes_validate.latest_version()


def problems(objects, version, crds):
    """One line for each mistake. Without the directory `crds` operators' objects are left out."""
    foreign = []
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["apiVersion"].startswith(OPERATORS):
            foreign.append(found)
        elif found["kind"] == "Pooler":
            yield from pooler(found)
        else:
            try:
                validate(json.dumps(found, sort_keys=True), version)
            except kubernetes_validate.ValidationError as error:
                place = ".".join(str(part) for part in error.path)
                yield f"{name}: {place}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{name}: {error.message}"
    if crds and foreign:
        yield from of_operators(json.dumps(foreign, sort_keys=True), crds)


@functools.cache
def validate(text, version):
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@functools.cache
def of_operators(text, crds):
    program = ["node", HERE / "node/crds.mjs", crds]
    result = subprocess.run(program, input=text, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()
    return lines if result.returncode == 0 else [*lines, result.stderr]


def pooler(found):
    """CloudNativePG's schemas are not to be had as a package."""
    wanted = {"cluster", "type", "instances", "pgbouncer"}
    spec = found["spec"]
    if found["apiVersion"] != "postgresql.cnpg.io/v1" or spec.keys() != wanted or spec["instances"] != 0:
        yield f"Pooler/{found['metadata']['name']}: {spec}"
