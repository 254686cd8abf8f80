"""What can be known before a run is submitted: each finding stops the submission or is a note."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml

from podium.config import KubeflowConfig, PlatformConfig
from podium.errors import UserError
from podium.storage import remote
from podium_components._image import default_image
from podium_pipelines.cluster import Cluster, ClusterRefused
from podium_pipelines.multihost.names import JOBSET, RUNTIME, TRAINER
from podium_pipelines.run_results import folder_of

_SKIP = "--skip-preflight submits all the same"
# Kubeflow's name for its own store, which has no address outside the cluster.
_INSIDE = "minio"
_LAUNCHER = "kfp-launcher"
# What podium status and logs read, as verb, resource and subresource.
_READ = (("list", "pods", ""), ("get", "pods", "log"), ("list", "events", ""))


@dataclass(frozen=True)
class Finding:
    """Something to say before a submission; `stops`: the run would fail."""

    text: str
    stops: bool = False


def require(findings: Iterable[Finding], say: Callable[[str], None]) -> None:
    """Say the notes.

    Raises:
        UserError: Something stops the submission; all of it is named.
    """
    stopping = []
    for finding in findings:
        if finding.stops:
            stopping.append(finding.text)
        else:
            say(finding.text)
    if stopping:
        raise UserError("\n".join([*stopping, _SKIP]))


def of_image(image: str | None) -> Iterator[Finding]:
    """Look at the image."""
    if image is None:
        yield Finding(f"platform.image is not set: the nodes pull {default_image()}, where their registry has it")


def of_storage(key: str, storage: str | None, name: str) -> Iterator[Finding]:
    """Write and remove a tiny object where the run leaves its results: with this user's rights, not the tasks'."""
    scheme = urlsplit(storage or "").scheme
    if storage is None or scheme == _INSIDE:
        return
    place = f"{folder_of(storage, name)}/.podium-submit"
    try:
        remote.write_bytes(place, b"podium submit looks whether it can write here\n")
    except UserError as error:
        if isinstance(error.__cause__, ImportError):
            yield Finding(f"{key}: whether it can be written is not looked at: {error}")
        else:
            yield Finding(f"{key}: {error}", stops=True)
        return
    # Who may write need not be allowed to remove.
    with contextlib.suppress(UserError):
        remote.remove(place)


def of_version(place: str, found: str, made_for: str) -> Iterator[Finding]:
    """Compare the version of Kubeflow Pipelines, where it says one, with that of the client."""
    theirs, ours = found.split(".")[:2], made_for.split(".")[:2]
    if not theirs[0].isdigit() or theirs == ours:
        return
    text = f"{place} is Kubeflow Pipelines {found}"
    if theirs[0] != ours[0]:
        yield Finding(f"{text}; podium needs version {ours[0]}", stops=True)
    else:
        yield Finding(f"{text}; podium is made for {'.'.join(ours)}")


def of_cluster(settings: KubeflowConfig) -> Iterator[Finding]:
    """Look at the namespace, this user's rights in it, and what the launcher of KFP knows of the bucket."""
    try:
        cluster = Cluster()
        yield from _of_namespace(cluster, settings.namespace)
        yield from _of_rights(cluster, settings.namespace)
        yield from _of_launcher(cluster, settings)
    except ClusterRefused as error:
        yield Finding(f"what the cluster would say of this run is not looked at: {error}")


def of_hosts(platform: PlatformConfig) -> Iterator[Finding]:
    """Look whether the cluster can start the stages that take several hosts."""
    several = [stage for stage, wanted in platform.resources.items() if wanted.hosts > 1]
    if not several:
        return
    where, settings = f"platform.resources.{several[0]}.hosts", platform.kubeflow
    needs, group = ("JobSet", JOBSET) if settings.launcher == "jobset" else ("Kubeflow Trainer", TRAINER)
    try:
        cluster = Cluster()
        if not cluster.has_kind(*group):
            yield Finding(
                f"{where}: the cluster of your kubeconfig, {cluster.host}, has no {'/'.join(group)}; install {needs}",
                stops=True,
            )
        elif group == TRAINER and not cluster.has_object(*group, settings.namespace, "trainingruntimes", RUNTIME):
            yield Finding(
                f"{where}: the namespace {settings.namespace} has no TrainingRuntime {RUNTIME}; "
                f"write: podium manifests --namespace {settings.namespace} | kubectl apply -f -",
                stops=True,
            )
    except ClusterRefused as error:
        yield Finding(f"{where}: whether the cluster has {needs} is not looked at: {error}")


def _of_namespace(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    # To read a namespace is a right of its own, which tells nothing where it lacks.
    with contextlib.suppress(ClusterRefused):
        if not cluster.has_namespace(namespace):
            yield Finding(
                f"platform.kubeflow.namespace: there is no namespace {namespace} in the cluster of your kubeconfig, "
                f"{cluster.host}; mend it, or take the context of the cluster that Kubeflow Pipelines is in",
                stops=True,
            )


def _of_rights(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    denied = [
        " ".join(filter(None, (verb, resource, sub)))
        for verb, resource, sub in _READ
        if not cluster.may(namespace, verb, resource, sub)
    ]
    if denied:
        yield Finding(
            f"you may not {', '.join(denied)} in the namespace {namespace}: podium status will not say why a stage "
            "fails or waits, nor podium logs what it printed"
        )


def _of_launcher(cluster: Cluster, settings: KubeflowConfig) -> Iterator[Finding]:
    """Look whether the launcher has credentials for s3://, without which a step fails when its work is done."""
    storage, namespace = settings.storage or "", settings.namespace
    scheme = urlsplit(storage).scheme
    # The parameters of an address stand for a provider.
    if scheme != "s3" or urlsplit(storage).query:
        return
    where = f"the ConfigMap {_LAUNCHER} of the namespace {namespace}"
    try:
        data = cluster.config_map(namespace, _LAUNCHER)
    except ClusterRefused as error:
        yield Finding(f"whether {where} has a provider for {scheme}:// is not known: {error}")
        return
    if scheme in _providers(data.get("providers", "")):
        return
    text = f"platform.kubeflow.storage is {storage}, and {where} has no provider for {scheme}://"
    if settings.service_account:
        yield Finding(f"{text}: steps must get their credentials by the account {settings.service_account}")
    else:
        yield Finding(
            f"{text}: without credentials of another kind each step fails when its work is done; add the provider, "
            "or name an account with rights in platform.kubeflow.service_account",
            stops=True,
        )


def _providers(text: str) -> Iterable[str]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return ()
    return [str(name) for name, value in found.items() if value] if isinstance(found, dict) else ()
