"""What a namespace has to hold before phases can run on several hosts of its cluster."""

from typing import Any

from podium_pipelines.multihost.train_job import training_runtime

_NAME = "podium-launcher"
_ROLE = "rbac.authorization.k8s.io"
# Only what `podium launch` asks for. It reads Argo's workflow to tell a cancelled run from a pod that is moved.
_RULES = (
    ("trainer.kubeflow.org", ("trainjobs",), ("create", "get", "delete")),
    ("jobset.x-k8s.io", ("jobsets",), ("create", "get", "delete")),
    ("", ("pods",), ("get", "list", "deletecollection")),
    ("", ("pods/log",), ("get",)),
    ("argoproj.io", ("workflows",), ("get",)),
)


def manifests(namespace: str, service_account: str) -> list[dict[str, Any]]:
    """Return the objects for a namespace whose tasks act as `service_account`; nothing of them is cluster-wide."""
    rules = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)} for group, resources, verbs in _RULES
    ]
    role = {"apiVersion": f"{_ROLE}/v1", "kind": "Role", "metadata": {"name": _NAME}, "rules": rules}
    binding = {
        "apiVersion": f"{_ROLE}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": _NAME},
        "roleRef": {"apiGroup": _ROLE, "kind": "Role", "name": _NAME},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    }
    return [_within(one, namespace) for one in (training_runtime(), role, binding)]


def _within(thing: dict[str, Any], namespace: str) -> dict[str, Any]:
    return thing | {"metadata": {**thing["metadata"], "namespace": namespace}}
