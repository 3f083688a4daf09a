"""The chart, checked: `check.py all` for everything but rights in Kubernetes, `check.py rights` for those.

It is run by tests/helm.rs, which has the program and the certificates that some checks need. Every mistake is one line."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import helm_python
import yaml

import documents
import facts
import references
import rights
import schemas
from render import (
    CHART,
    EVERYTHING,
    MINIMAL,
    MYPG,
    booleans,
    config_of,
    one,
    read_values,
    render,
    values_files,
    with_value,
)

# The oldest version of Kubernetes that Chart.yaml admits, for what has no newer fields in it.
OLDEST = "1.27"
POOLERS = pathlib.Path(__file__).parent / "poolers"
# What a boolean needs beside it.
WITH_ON = {
    "tls.enabled": {"tls.secret": "tls"},
    "podMonitor.enabled": {"serviceMonitor.enabled": False},
    "serviceMonitor.enabled": {"podMonitor.enabled": False},
}
WITH_OFF = {
    "certManager.enabled": {"tls.secret": "tls", "userCertificates": []},
    # Its lines ask for client certificates.
    "tls.enabled": {"auth.hba": [], "auth.ident": []},
}


def lint():
    for path in values_files():
        result = helm_python.lint(CHART, read_values(path), strict=True)
        for message in lint_messages(result):
            yield f"{path.name}: {message}"


def lint_messages(result):
    """What is more than a remark."""
    for message in result.get("messages", []):
        if str(message.get("severity", "")).upper() not in {"INFO", "1"}:
            yield f"lint: {json.dumps(message)}"


def sweep():
    """Each values file as it is, and each boolean turned on and off."""
    for path in values_files():
        yield path.name, read_values(path)
    for start, value, needs in [(MINIMAL, True, WITH_ON), (EVERYTHING, False, WITH_OFF)]:
        for path in booleans():
            name = ".".join(path)
            values = with_value(read_values(start), path, value)
            for other, beside in needs.get(name, {}).items():
                values = with_value(values, tuple(other.split(".")), beside)
            yield f"{start.name} with {name}={str(value).lower()}", values


def imported(program):
    """What pgweir makes of Poolers."""
    for path in sorted(POOLERS.glob("*.yaml")):
        result = subprocess.run([program, "import", path], check=True, capture_output=True, text=True)
        yield f"pgweir import {path.name}", yaml.safe_load(result.stdout)


def manifests(objects_by_name, crds):
    newest = schemas.newest()
    yield from in_each(objects_by_name, lambda objects: schemas.problems(objects, newest, crds))
    first = {path.name: objects_by_name.get(path.name, []) for path in [MINIMAL, MYPG]}
    for problem in in_each(first, lambda objects: schemas.problems(objects, OLDEST, crds)):
        yield f"Kubernetes {OLDEST}: {problem}"


def in_each(objects_by_name, check):
    """What the check finds, once for all that have it."""
    places = {}
    for name, objects in objects_by_name.items():
        for problem in check(objects):
            places.setdefault(problem, []).append(name)
    for problem, names in places.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more}: {problem}"


def configurations(objects_by_name, program, files):
    """pgweir itself reads each pgweir.toml, with the files in place that the pod would have."""
    judged = set()
    for name, objects in objects_by_name.items():
        mounts = json.dumps(one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"])
        key = (config_of(objects)["pgweir.toml"], mounts)
        if key in judged:
            continue
        judged.add(key)
        with tempfile.TemporaryDirectory() as root:
            path = lay_out(objects, pathlib.Path(root), files)
            result = subprocess.run([program, "check", "--config", path], capture_output=True, text=True)
            if result.returncode != 0 or "warning" in result.stderr:
                yield f"{name}: pgweir check: {result.stderr.strip()}"


def lay_out(objects, root, files):
    """The files of the pod below another root, each Secret's from `files` by its name there."""
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    container = next(found for found in pod["containers"] if found["name"] == "pgweir")
    for mount in container["volumeMounts"]:
        directory = root / mount["mountPath"].lstrip("/")
        directory.mkdir(parents=True)
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            for key, text in config_of(objects).items():
                (directory / key).write_text(text.replace('"/etc/', f'"{root}/etc/'))
        else:
            names = [item["path"] for item in volume["secret"].get("items", [{"path": "token"}])]
            for file in names:
                (directory / file).write_bytes((files / file).read_bytes())
    arguments = container["args"]
    return root / arguments[arguments.index("--config") + 1].lstrip("/")


def everything(arguments):
    problems = [*documents.problems(), *lint()]
    objects_by_name = {}
    for name, values in [*sweep(), *imported(arguments.pgweir)]:
        try:
            objects_by_name[name] = render(values)[0]
        except helm_python.HelmError as error:
            problems.append(f"{name}: {error}")
    problems += manifests(objects_by_name, arguments.crds)
    problems += in_each(objects_by_name, references.problems)
    problems += configurations(objects_by_name, arguments.pgweir, arguments.files)
    problems += facts.problems()
    print(f"{len(objects_by_name)} sets of values")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    whole = commands.add_parser("all")
    whole.add_argument("--pgweir", required=True)
    whole.add_argument("--files", required=True, type=pathlib.Path)
    whole.add_argument("--crds", type=pathlib.Path)
    some = commands.add_parser("rights")
    some.add_argument("--namespace", required=True)
    some.add_argument("--values", required=True, type=json.loads)
    arguments = parser.parse_args()
    if arguments.command == "all":
        problems = everything(arguments)
    else:
        objects, _ = render(arguments.values, arguments.namespace)
        problems = [*rights.problems(json.load(sys.stdin), objects)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
