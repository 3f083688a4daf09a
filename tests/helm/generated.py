"""What follows from something else in the chart: the table of README.md from values.yaml, and the part of
values.schema.json that knows pgweir's settings from src/config/keys.rs. `--write` brings both up to date."""

import json
import re
import sys

from render import CHART, ROOT, defaults

BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
# What a setting may be; pgweir itself knows more of each.
SETTING = {
    "anyOf": [
        {"type": ["string", "integer", "boolean", "null"]},
        {"type": "array", "items": {"type": ["string", "integer"]}},
    ]
}


def settings():
    """Sections and keys, as pgweir has them."""
    text = (ROOT / "src/config/keys.rs").read_text()
    return re.findall(r'^    key\("([^"]+)", "([^"]+)"', text, re.MULTILINE)


def config_schema():
    """The schema of `config`."""
    top = section_schema()
    for section, key in settings():
        place = top
        for part in section.split("."):
            if part == "NAME":
                place = place.setdefault("additionalProperties", False) or named(place)
            else:
                place = place["properties"].setdefault(part, section_schema())
        place["properties"][key] = {"$ref": "#/definitions/setting"}
    return top


def section_schema():
    return {"type": ["object", "null"], "additionalProperties": False, "properties": {}}


def named(place):
    place["additionalProperties"] = section_schema()
    return place["additionalProperties"]


def schema(text):
    """values.schema.json as it should be."""
    found = json.loads(text)
    found["definitions"] = {"setting": SETTING}
    found["properties"]["config"] = config_schema()
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def documented():
    """Each value, or group of values, in the order of values.yaml: its name, its default and what is said above it.
    What is taken as a whole has one row, with all that is said in it."""
    rows, path, comment = [], [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        stripped = line.strip()
        match = re.match(r'( *)("[^"]+"|[A-Za-z_]+):', line)
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        if match and isinstance(lookup(path[: len(match[1]) // 2]), dict):
            path = [*path[: len(match[1]) // 2], match[2].strip('"')]
            if path[0] in WHOLE and len(path) > 1:
                rows[-1][2].extend(comment)
            else:
                rows.append((".".join(path), lookup(path), comment))
        comment = []
    return rows


# Kubernetes' own objects, and pgweir's configuration.
WHOLE = {
    "config",
    "resources",
    "updateStrategy",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
    "podSecurityContext",
    "securityContext",
}


def lookup(path):
    value = defaults()
    for key in path:
        value = value[key]
    return value


def is_group(name, value):
    return isinstance(value, dict) and value != {} and name not in WHOLE


def table():
    lines = ["| value | default | what it is |\n", "|---|---|---|\n"]
    for name, value, comment in documented():
        if is_group(name, value) and not comment:
            continue
        default = "" if is_group(name, value) else f"`{json.dumps(value, ensure_ascii=False)}`"
        text = " ".join(comment).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {default} | {text} |\n")
    return "".join(lines)


def undocumented():
    """Values of which nothing is said."""
    return [name for name, value, comment in documented() if not comment and not is_group(name, value)]


def readme(text):
    """README.md as it should be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


FILES = {"README.md": readme, "values.schema.json": schema}


def stale():
    """The files that are not as they should be."""
    texts = {name: (CHART / name).read_text() for name in FILES}
    return [name for name, make in FILES.items() if make(texts[name]) != texts[name]]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {sys.argv[0]} --write")
    for name, make in FILES.items():
        path = CHART / name
        path.write_text(make(path.read_text()))
