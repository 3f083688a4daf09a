"""What the Roles of the chart allow, against what pgweir has asked for."""

from render import of_kind


def problems(requests, objects):
    """Requests that the Roles do not allow, and rights that no request has needed."""
    needed = set()
    for request in requests:
        allowing = [right for right in granted(objects) if allows(right, request)]
        needed.update(allowing)
        if not allowing:
            yield f"refused: {request}"
    for right in granted(objects):
        if right not in needed:
            yield f"not needed: {right}"


def granted(objects):
    """Each right by itself: namespace, group, resource, name (None is any), verb."""
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [None]):
                        for verb in rule["verbs"]:
                            yield role["metadata"]["namespace"], group, resource, name, verb


def allows(right, request):
    namespace, group, resource, name, verb = right
    asked = (request["namespace"], request["group"], request["resource"], request["verb"])
    # What a list or a watch is about is said by its field selector.
    named = name is None or request["field_selector"] == f"metadata.name={name}"
    return (namespace, group, resource, verb) == asked and named
