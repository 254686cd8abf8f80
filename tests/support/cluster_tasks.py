"""Run tasks of the compiled pipeline on a cluster as KFP does, with an object store in the cluster."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs
import yaml

from podium.config import STAGE_TABLE, PodiumConfig
from podium_pipelines.compiler import compile_text
from support.cluster import IMAGE, KUBECTL, Cluster
from support.gang import SETTINGS

LAUNCHER = IMAGE.replace("/trainer:", "/launcher:")
BUCKET = "s3://runs"
_PORT = 9000
_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
# Where the pods, and nobody else, find the store.
_INSIDE = {"AWS_ENDPOINT_URL": f"http://store:{_PORT}", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Store:
    """The object store of a namespace, as this machine sees it."""

    cluster: Cluster
    files: s3fs.S3FileSystem

    @classmethod
    @contextlib.contextmanager
    def begin(cls, cluster: Cluster) -> Iterator["Store"]:
        """Start a store in the cluster, with its keys in a secret, and reach it from here."""
        from podium_pipelines.multihost.workload import pod

        script = Path(__file__).with_name("s3_server.py").read_text(encoding="utf-8")
        body = pod() | {"terminationGracePeriodSeconds": 1}
        container = body["containers"][0] | {"image": IMAGE, "command": ["python", "/server/s3.py", str(_PORT)]}
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "server", "mountPath": "/server"}]
        body |= {"containers": [container]}
        body["volumes"] = [*body["volumes"], {"name": "server", "configMap": {"name": "store"}}]
        meta = {"name": "store", "labels": {"app": "store"}}
        ports = {"selector": {"app": "store"}, "ports": [{"port": _PORT}]}
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"s3.py": script}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-keys"}, "stringData": _KEYS},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": ports},
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body},
        )
        cluster.kubectl("wait", "--for=condition=Ready", "pod/store", "--timeout=120s")
        command = [*KUBECTL, "--namespace", cluster.namespace, "port-forward", "service/store", f":{_PORT}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
            assert forward.stdout is not None
            port = re.search(r":(\d+) ->", forward.stdout.readline())
            assert port, "kubectl port-forward names no port"
            address = f"http://127.0.0.1:{port[1]}"
            try:
                yield cls(cluster, s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=address))
            finally:
                forward.kill()

    def put(self, folder: Path, place: str) -> None:
        """Copy a folder of this machine to a URI."""
        self.files.put(str(folder), place, recursive=True)

    def fetch(self, place: str, folder: Path) -> Path:
        """Copy what is behind a URI into a folder of this machine."""
        self.files.get(place, str(folder), recursive=True)
        return folder


def config(values: Mapping[str, Any], hosts: int, **kubeflow: Any) -> PodiumConfig:
    """Return the config of a run whose reward and ppo stages take so many hosts each."""
    platform = {
        "image": IMAGE,
        **values["platform"],
        "env": {**SETTINGS, **_INSIDE, "JAX_NUM_CPU_DEVICES": str(4 // hosts)},
        "secrets": {"store-keys": {name: name for name in _KEYS}},
        "resources": {stage: {"hosts": hosts} for stage in ("reward", "ppo")},
        "kubeflow": {"storage": BUCKET, "launcher_image": LAUNCHER, "service_account": "default", **kubeflow},
    }
    return PodiumConfig.model_validate({**values, "platform": platform})


# As much of Argo's workflows as the task looks at: whether one is being ended.
WORKFLOWS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workflows.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "scope": "Namespaced",
        "names": {"kind": "Workflow", "plural": "workflows", "singular": "workflow"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def task_pod(config: PodiumConfig, stage: str, run: str, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod of a stage's task, from what the pipeline compiles to, as KFP's driver writes it.

    places: URI of each artifact of the stage.
    """
    spec, platform = yaml.safe_load_all(compile_text(config, "kubeflow", env={"STORAGE": BUCKET, "RUN": run}))
    container = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    message = json.dumps(_executor_input(stage, places, defaults[stage]["defaultValue"]))
    secrets = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{stage}"]["secretAsEnv"]
    from podium_pipelines.multihost.workload import pod

    body = pod() | {"automountServiceAccountToken": True}
    env = [{"name": one["name"], "value": one["value"]} for one in container["env"]]
    env += [
        {"name": key["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": key["secretKey"]}}}
        for secret in secrets
        for key in secret["keyToEnv"]
    ]
    filled = [word.replace("{{$}}", message) for word in (*container["command"], *container["args"])]
    body["containers"] = [body["containers"][0] | {"image": container["image"], "command": filled, "env": env}]
    return body


def _executor_input(stage: str, places: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    spec = STAGE_TABLE[stage]
    sides = {"inputs": spec.inputs, "outputs": spec.outputs}
    message: dict[str, Any] = {
        side: {"artifacts": {name: {"artifacts": [{"name": name, "uri": places[name]}]} for name in names}}
        for side, names in sides.items()
    }
    message["inputs"]["parameterValues"] = {"config": settings}
    message["outputs"]["outputFile"] = "/tmp/outputs/executor_output.json"
    return message
