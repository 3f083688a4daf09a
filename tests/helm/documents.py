"""values.yaml, its schema and README.md say the same, and Chart.yaml has pgweir's version."""

import json
import re

import generated
from render import CHART, ROOT, defaults, parsed


def problems():
    for name in generated.stale():
        yield f"chart/{name} is not up to date: run tests/helm/generated.py --write"
    for name in generated.undocumented():
        yield f"chart/values.yaml says nothing of {name}"
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    if parsed(CHART / "Chart.yaml")["appVersion"] != version:
        yield f"chart/Chart.yaml: appVersion is not {version}"
    schema = json.loads((CHART / "values.schema.json").read_text())
    yield from disagreements(schema, defaults(), ())


def disagreements(schema, values, path):
    """Values without a schema, and schemas without a value."""
    properties = schema.get("properties")
    if properties is None or path == ("config",):
        return
    name = ".".join(path) or "values"
    if schema.get("additionalProperties") is not False:
        yield f"values.schema.json: {name}: additionalProperties is not false"
    for key in sorted(properties.keys() ^ values.keys()):
        if (*path, key) != ("global",):
            yield f"{name}: {key} is not in both, values.yaml and values.schema.json"
    for key in properties.keys() & values.keys():
        if isinstance(values[key], dict) and values[key]:
            yield from disagreements(properties[key], values[key], (*path, key))
