"""The task of a pipeline that starts a phase on several hosts: from KFP's executor input to a job and back."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from podium.config import Resources
from podium.config.base import Section
from podium.errors import UserError
from podium.storage import remote
from podium.storage.failures import unwritable
from podium.storage.files import write_text
from podium_pipelines.multihost.cluster import Here, deleted_when_cancelled, is_ending, this_pod
from podium_pipelines.multihost.follow import Follower, begin
from podium_pipelines.multihost.job_set import job_set
from podium_pipelines.multihost.jobs import Jobs
from podium_pipelines.multihost.names import RUN_LABEL
from podium_pipelines.multihost.train_job import train_job
from podium_pipelines.multihost.workload import Workload
from podium_pipelines.placement import Nodes

# The variable that holds, as JSON, what a task has to know beside its executor input. It is no argument: how many
# hosts there are changes no result, and KFP's cache goes by arguments.
VARIABLE = "PODIUM_HOSTS"
# Set for the whole run by `podium submit`; handed on to the pods.
_HANDED_ON = ("STORAGE", "RUN")
# A pod is called NAME-node-0-INDEX and a random ending, and a host's name may have 63 letters.
_ROOM = 30
_RENDER: Mapping[str, Callable[[Workload], dict[str, Any]]] = {"TrainJob": train_job, "JobSet": job_set}


class HostsConfig(Section):
    """What the task's pod is told about the phase's hosts when the pipeline is compiled."""

    kind: Literal["TrainJob", "JobSet"] = Field(description="What the hosts' pods belong to.")
    image: str = Field(description="Image of the pods.")
    resources: Resources = Field(description="What each host has, and how many there are.")
    env: list[dict[str, Any]] = Field([], description="Environment of the pods, as Kubernetes writes it.")
    nodes: Nodes = Field("gke", description="Whose labels the nodes have.")
    pull_secrets: list[str] = Field([], description="Secrets to pull the image with.")
    queue: str = Field("", description="Kueue's local queue.")


def read_hosts(env: Mapping[str, str]) -> HostsConfig:
    """Read the variable that the compiled pipeline sets.

    Raises:
        UserError: It is not set, or not what `podium compile` writes.
    """
    try:
        return HostsConfig.model_validate_json(env[VARIABLE])
    except KeyError:
        raise UserError(f"{VARIABLE} is not set; podium launch is a task of a pipeline that podium compiled") from None
    except ValidationError as error:
        raise UserError(f"{VARIABLE}: {error.errors()[0]['msg']}; compile the pipeline again") from None


def workload(stage: str, executor_input: str, hosts: HostsConfig, here: Here, env: Mapping[str, str]) -> Workload:
    """Return the job of a task.

    Its pods read the same executor input as a task of one host does, but for the file of outputs, which is this
    task's: they read and write artifacts at their URIs.

    Raises:
        UserError: It is no executor input, or holds artifacts that other pods cannot reach.
    """
    message = _message(executor_input)
    inside = message | {"outputs": message["outputs"] | {"outputFile": "/tmp/executor_output.json"}}
    run = env.get("RUN") or here.owner["name"]
    return Workload(
        name=job_name(run, stage),
        image=hosts.image,
        command=["podium", stage, "--executor-input", json.dumps(inside)],
        resources=hosts.resources,
        where=f"platform.resources.{stage}",
        env=[*hosts.env, *({"name": name, "value": env[name]} for name in _HANDED_ON if env.get(name))],
        labels={RUN_LABEL: run[:63], "podium.dev/stage": stage},
        owner=here.owner,
        nodes=hosts.nodes,
        pull_secrets=hosts.pull_secrets,
        queue=hosts.queue,
    )


def job_name(run: str, stage: str) -> str:
    """Return the name of a stage's job in a run, the same for every attempt: a DNS label with room for hosts' numbers.

    Of a long name of a run its end is kept, where runs differ.
    """
    plain = "".join(letter if letter.isalnum() else "-" for letter in run.lower())
    return f"{plain[-_ROOM:].strip('-')}-{stage}"


def run(stage: str, executor_input: str, env: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Start a stage's job, or find it again, follow it to its end, and write the file of outputs.

    Raises:
        JobFailed: The job failed.
        UserError: What the task was given is wrong, or the cluster refuses the job.
    """
    hosts = read_hosts(env)
    here = this_pod(env)
    job = _RENDER[hosts.kind](workload(stage, executor_input, hosts, here, env))
    if is_ending(here):
        # A pod that is started in the place of one that just deleted the job.
        raise UserError(f"the run {here.workflow} is being ended; nothing is started")
    jobs, name = Jobs(here.namespace, hosts.kind), str(job["metadata"]["name"])
    with deleted_when_cancelled(here, lambda: jobs.cancel(name)):
        begin(jobs, job, say)
        Follower(jobs, name, say).to_end()
    write_outputs(_message(executor_input))


def write_outputs(message: Mapping[str, Any]) -> None:
    """Write KFP's file of outputs for artifacts that lie at their URIs: the metrics are what its pages show.

    Raises:
        UserError: The metrics cannot be read, or the file cannot be written.
    """
    outputs = message["outputs"]
    report = {}
    for name, item in outputs.get("artifacts", {}).items():
        artifact = item["artifacts"][0]
        shown = remote.read_bytes(f"{artifact['uri']}/metrics.json") if name == "metrics" else None
        metadata = artifact.get("metadata", {}) | (json.loads(shown) if shown else {})
        report[name] = {"artifacts": [{**artifact, "metadata": metadata}]}
    path = Path(outputs["outputFile"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"artifacts": report}, allow_nan=False))
    except OSError as error:
        raise unwritable(path, error) from error


def _message(executor_input: str) -> dict[str, Any]:
    """Read the executor input; other pods reach its artifacts by URI, so that it may hold no path of this one.

    Raises:
        UserError: It is none, or an artifact has no URI of an object store.
    """
    try:
        message: dict[str, Any] = json.loads(executor_input)
        uris = [
            item["artifacts"][0]["uri"]
            for side in (message.get("inputs", {}), message["outputs"])
            for item in side.get("artifacts", {}).values()
            if item.get("artifacts")
        ]
        message["outputs"]["outputFile"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"--executor-input is not what KFP passes for {{{{$}}}} ({error!r})") from None
    for uri in uris:
        if not uri.startswith(("gs://", "s3://")):
            raise UserError(
                f"artifact {uri}: pods of several hosts need gs:// or s3:// URIs; write platform.kubeflow.storage"
            )
    return message
