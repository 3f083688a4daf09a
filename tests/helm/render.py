"""The chart and its values: what Helm makes of them. It judges nothing."""

import copy
import functools
import pathlib

import yaml
from helm_python import Chart

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "chart"
RELEASE, NAMESPACE = "pooler", "mypg"
MINIMAL, MYPG = CHART / "values-minimal.yaml", CHART / "values-mypg-yc.yaml"
EVERYTHING = CHART / "ci/everything-values.yaml"


def values_files():
    """Every file with values for this chart, but its defaults, which need a cluster's name."""
    return sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*.yaml")])


def read_values(path):
    return copy.deepcopy(parsed(path))


def defaults():
    """Not to be changed."""
    return parsed(CHART / "values.yaml")


@functools.cache
def parsed(path):
    return yaml.load(path.read_text(), LOADER) or {}


# libyaml's, which is much faster, where PyYAML has it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def render(values, namespace=NAMESPACE):
    """The objects, and the notes. Values are checked against the schema by Helm."""
    chart = Chart.load(CHART)
    chart.validate_schema(values)
    files = chart.render(values, name=RELEASE, namespace=namespace)
    notes = ""
    objects = []
    for name, text in sorted(files.items()):
        if name.endswith("NOTES.txt"):
            notes = text
            continue
        objects += [found for found in yaml.load_all(text, LOADER) if found]
    return objects, notes


def of_kind(objects, kind):
    return [found for found in objects if found["kind"] == kind]


def one(objects, kind):
    found = of_kind(objects, kind)
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def config_of(objects):
    """pgweir.toml and its neighbours."""
    deployment = one(objects, "Deployment")
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    name = next(volume for volume in volumes if volume["name"] == "pgweir-config")["configMap"]["name"]
    return next(found for found in of_kind(objects, "ConfigMap") if found["metadata"]["name"] == name)["data"]


def booleans(values=None, path=()):
    """The paths of everything that is on or off, but for what is part of a Kubernetes object."""
    values = defaults() if values is None else values
    for key, value in values.items():
        here = (*path, key)
        if here in [("podSecurityContext",), ("securityContext",)]:
            continue
        if isinstance(value, bool):
            yield here
        elif isinstance(value, dict):
            yield from booleans(value, here)


def with_value(values, path, value):
    """The same values with another one at this path."""
    changed = copy.deepcopy(values)
    place = changed
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed
