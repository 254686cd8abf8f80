"""Run stages as jobs of several pods on the Kubernetes that kubectl talks to."""

import contextlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import yaml

from podium.config import Resources
from podium.version import __version__
from podium_pipelines.multihost.job_set import job_set
from podium_pipelines.multihost.manifests import manifests
from podium_pipelines.multihost.train_job import train_job
from podium_pipelines.multihost.workload import CONTAINER, Workload
from support.gang import DEVICES, SETTINGS, places

IMAGE = os.environ.get("PODIUM_CLUSTER_IMAGE", f"docker.io/podium/trainer:{__version__}")
# Where pods see the volume, and where each sees its own folder of it.
SHARED, OWN = "/data", "/own"
KUBECTL = os.environ.get("PODIUMKUBECTL", "kubectl").split()
_RENDER: Mapping[str, Callable[[Workload], dict[str, Any]]] = {"trainjob": train_job, "jobset": job_set}


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster."""

    namespace: str

    @classmethod
    @contextlib.contextmanager
    def begin(cls) -> Iterator["Cluster"]:
        """Make a namespace with what Podium needs there, and delete it at the end."""
        found = cls(f"podium-test-{os.getpid()}")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found.namespace, "labels": labels}})
        try:
            found.apply(*manifests(found.namespace, "default"))
            yield found
        finally:
            found.kubectl("delete", "namespace", found.namespace, "--wait=false")

    def kubectl(self, *words: str, content: bytes | None = None) -> bytes:
        """Run kubectl in the namespace; what it says to standard error is an assertion's message."""
        command = [*KUBECTL, "--namespace", self.namespace, *words]
        done = subprocess.run(command, input=content, capture_output=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.decode()}"
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Make objects; a field that the cluster does not know is an error."""
        self.kubectl("create", "--validate=strict", "-f", "-", content=yaml.safe_dump_all(objects).encode())

    def get(self, *words: str) -> dict[str, Any]:
        """Return an object, or a list of them, as the cluster has it."""
        return cast(dict[str, Any], json.loads(self.kubectl("get", *words, "-o", "json")))

    def wait(self, what: str, found: Callable[[], Any], *, seconds: float) -> Any:
        """Return what `found` returns once that is true."""
        until = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < until, f"{what}: not within {seconds} s\n{self.kubectl('get', 'pods').decode()}"
            time.sleep(0.5)
        return value


@dataclass(frozen=True)
class DataVolume:
    """A folder of the one node that pods mount, and a pod to reach its files through."""

    cluster: Cluster
    name: str = "data"

    @classmethod
    def make(cls, cluster: Cluster) -> "DataVolume":
        """Make the volume and its pod."""
        volume = cls(cluster)
        size = {"storage": "10Gi"}
        shared: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        claim = f"{cluster.namespace}-{volume.name}"
        place = {"path": f"/tmp/{claim}", "type": "DirectoryOrCreate"}  # of the node
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": claim},
                "spec": shared | {"capacity": size, "hostPath": place},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": volume.name},
                "spec": shared | {"volumeName": claim, "resources": {"requests": size}},
            },
        )
        # Outside of the restricted namespace's rules a folder of the node has its own owner: who makes it opens it.
        volume.open_up(claim)
        cluster.apply(volume._pod())
        cluster.kubectl("wait", "--for=condition=Ready", "pod/files", "--timeout=120s")
        return volume

    def open_up(self, claim: str) -> None:
        """Let any user write the folder, as a shared volume of a cluster does by its storage class."""
        mount = [{"name": "node", "mountPath": "/node"}]
        command = ["sh", "-c", f"mkdir -p /node/{claim} && chmod 777 /node/{claim}"]
        body = {
            "restartPolicy": "Never",
            "containers": [{"name": "chmod", "image": IMAGE, "command": command, "volumeMounts": mount}],
            "volumes": [{"name": "node", "hostPath": {"path": "/tmp"}}],
        }
        body["containers"][0]["securityContext"] = {"runAsUser": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": claim, "namespace": "default"}, "spec": body}
        everywhere = replace(self.cluster, namespace="default")
        everywhere.apply(pod)
        everywhere.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{claim}", "--timeout=120s")
        everywhere.kubectl("delete", "pod", claim, "--wait=false")

    def put(self, folder: Path) -> None:
        """Copy the contents of a folder of this machine into the volume."""
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(folder, arcname=".")
        code = f"import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('{SHARED}')"
        self.cluster.kubectl("exec", "-i", "files", "--", "python", "-c", code, content=packed.getvalue())

    def fetch(self, name: str, into: Path) -> Path:
        """Copy a folder of the volume into a folder of this machine; returns the copy."""
        code = (
            "import sys, tarfile; archive = tarfile.open(fileobj=sys.stdout.buffer, mode='w|'); "
            f"archive.add('{SHARED}/{name}', arcname='{name}'); archive.close()"
        )
        packed = self.cluster.kubectl("exec", "files", "--", "python", "-c", code)
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(into, filter="data")
        return into / name

    def _pod(self) -> dict[str, Any]:
        from podium_pipelines.multihost.workload import pod

        body = pod() | {"terminationGracePeriodSeconds": 1}
        container = body["containers"][0] | {"image": IMAGE, "command": ["sleep", "infinity"]}
        container["volumeMounts"] = [*container["volumeMounts"], {"name": self.name, "mountPath": SHARED}]
        volumes = [*body["volumes"], self.volume]
        spec = body | {"containers": [container], "volumes": volumes}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "files"}, "spec": spec}

    @property
    def volume(self) -> dict[str, Any]:
        """The volume as a pod names it."""
        return {"name": self.name, "persistentVolumeClaim": {"claimName": self.name}}


@dataclass(frozen=True)
class PodGang:
    """Runs of the volume's config by so many pods that share four devices.

    common: whether all write to one folder; else each sees one of its own under the same name, and none of another's.
    """

    data: DataVolume
    pods: int
    name: str
    common: bool = True
    kind: str = "trainjob"

    def run(self, stage: str, *overrides: str, seconds: float = 300) -> None:
        """Run a stage to its end."""
        job = self.start(stage, *overrides)
        end = job.ended(seconds)
        assert end == "complete", f"{job.name} ended as {end}:\n{job.logs()}"

    def start(self, stage: str, *overrides: str) -> "Job":
        """Start a stage."""
        # Of the folders that each pod sees alone, the first one's is filled.
        earlier = f"{SHARED}/{self.name}" if self.common else f"{SHARED}/{self.name}/0"
        here = earlier if self.common else f"{OWN}/{self.name}"
        command = [
            "podium",
            stage,
            f"--config={SHARED}/rlhf.json",
            *places(stage, Path(earlier), Path(here)),
            *overrides,
        ]
        settings = SETTINGS | {
            "JAX_COMPILATION_CACHE_DIR": f"{SHARED}/compiled",
            "JAX_NUM_CPU_DEVICES": str(DEVICES // self.pods),
        }
        workload = Workload(
            name=f"{self.name}-{stage}",
            image=IMAGE,
            command=command,
            resources=Resources(hosts=self.pods),
            where="platform.resources",
            env=[{"name": name, "value": value} for name, value in settings.items()],
            labels={"podium.dev/test": self.name},
        )
        self.data.cluster.apply(self._mounted(_RENDER[self.kind](workload)))
        return Job(self.data.cluster, self.kind, workload.name)

    def _mounted(self, job: dict[str, Any]) -> dict[str, Any]:
        """Let the job's pods see the volume."""
        mounts, volumes = [{"name": self.data.name, "mountPath": SHARED}], [self.data.volume]
        if not self.common:
            # Under another name: a patch of a TrainJob mounts each volume once.
            own = {"subPathExpr": f"{self.name}/$(JOB_COMPLETION_INDEX)", "mountPath": f"{OWN}/{self.name}"}
            mounts.append({"name": "own", **own})
            volumes.append(self.data.volume | {"name": "own"})
        if self.kind == "jobset":
            for replicated in job["spec"]["replicatedJobs"]:
                body = replicated["template"]["spec"]["template"]["spec"]
                body["volumes"] = [*body["volumes"], *volumes]
                body["containers"][0]["volumeMounts"] = [*body["containers"][0]["volumeMounts"], *mounts]
            return job
        body = {"volumes": volumes, "containers": [{"name": CONTAINER, "volumeMounts": mounts}]}
        template = {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": body}}}}]}}
        patch = {"manager": "podium.dev/test", "trainingRuntimeSpec": {"template": template}}
        job["spec"]["runtimePatches"] = [*job["spec"]["runtimePatches"], patch]
        return job


@dataclass(frozen=True)
class Job:
    """A TrainJob or JobSet that was started."""

    cluster: Cluster
    kind: str
    name: str

    def ended(self, seconds: float) -> str:
        """Wait for its end; returns complete or failed."""
        return str(self.cluster.wait(self.name, self._end, seconds=seconds))

    def pods(self) -> Sequence[dict[str, Any]]:
        """Return its pods, in the order of their hosts."""
        found = self.cluster.get("pods", "-l", f"jobset.sigs.k8s.io/jobset-name={self.name}")["items"]
        index = "batch.kubernetes.io/job-completion-index"
        return sorted(found, key=lambda pod: int(pod["metadata"]["annotations"][index]))

    def logs(self) -> str:
        """Return what its pods printed."""
        return "\n".join(self.log(pod) for pod in self.pods())

    def log(self, pod: Mapping[str, Any]) -> str:
        """Return what a pod printed, or why it did not."""
        with contextlib.suppress(AssertionError):
            return self.cluster.kubectl("logs", pod["metadata"]["name"]).decode()
        return json.dumps(pod["status"])

    def restarts(self) -> int:
        """Return how often all of its pods were started again."""
        return int(self.cluster.get("jobset", self.name).get("status", {}).get("restarts", 0))

    def _end(self) -> str:
        conditions = self.cluster.get(self.kind, self.name).get("status", {}).get("conditions", ())
        met = {one["type"] for one in conditions if one["status"] == "True"}
        if met & {"Complete", "Completed"}:
            return "complete"
        return "failed" if "Failed" in met else ""
