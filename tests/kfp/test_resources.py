"""What `platform.resources` becomes on each target, and what it is refused for."""

from typing import Any

import pytest
import yaml

from podium.config import PodiumConfig, Resources
from podium.errors import UserError
from podium_pipelines.compiler import compile_text
from podium_pipelines.placement import placement


def compiled(
    target: Any, kubeflow: dict[str, Any] | None = None, **wanted: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return container resources and Kubernetes settings of the ppo task."""
    platform = {"resources": {"ppo": wanted}, "kubeflow": kubeflow or {}}
    config = PodiumConfig.model_validate({"model": {"name_or_path": "gs://b/m"}, "platform": platform})
    spec, *rest = yaml.safe_load_all(compile_text(config, target))
    container = spec["deploymentSpec"]["executors"]["exec-ppo"]["container"]
    platform = rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-ppo"] if rest else {}
    return container.get("resources", {}), platform


def test_processors_and_memory_are_limits_on_both_clusters() -> None:
    for target in ("kubeflow", "vertex"):
        resources, _ = compiled(target, cpu="500m", memory="16Gi")
        assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("500m", "16Gi")


def test_a_laptop_gets_no_limits() -> None:
    assert compiled("local", cpu="8", accelerator="v5e", topology="2x2", count=4) == ({}, {})


@pytest.mark.parametrize("name", ["nvidia-l4", "NVIDIA_L4"])
def test_a_gpu_has_each_target_s_name(name: str) -> None:
    vertex, _ = compiled("vertex", accelerator=name, count=2)
    assert vertex["accelerator"]["resourceType"] == "NVIDIA_L4"
    assert vertex["accelerator"]["resourceCount"] == "2"
    kubeflow, platform = compiled("kubeflow", accelerator=name, count=2)
    assert kubeflow["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert platform == {
        "nodeSelector": {"labels": {"cloud.google.com/gke-accelerator": "nvidia-l4"}},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


def test_a_spot_tpu_lands_on_its_slice() -> None:
    resources, platform = compiled("kubeflow", accelerator="v5p", topology="2x2x1", count=4, spot=True)
    assert resources["accelerator"]["resourceType"] == "google.com/tpu"
    assert resources["accelerator"]["resourceCount"] == "4"
    assert platform["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x1",
        "cloud.google.com/gke-spot": "true",
    }
    assert [item["key"] for item in platform["tolerations"]] == ["cloud.google.com/gke-spot", "google.com/tpu"]


@pytest.mark.parametrize(
    ("target", "wanted", "message"),
    [
        ("kubeflow", {"hosts": 4}, "platform.resources.ppo.hosts is 4: hosts hand each other files through a store"),
        (
            "vertex",
            {"hosts": 2},
            "platform.resources.ppo.hosts is 2: on Vertex a task on several hosts is not supported",
        ),
        ("vertex", {"shared_memory": "1Gi"}, "platform.resources.ppo.shared_memory: Vertex AI has no nodes of yours"),
        ("kubeflow", {"accelerator": "v99"}, "platform.resources.ppo.accelerator: 'v99' is unknown; write one of nvid"),
        ("kubeflow", {"accelerator": "v5e", "count": 4}, "platform.resources.ppo.topology is missing"),
        (
            "vertex",
            {"accelerator": "v5e"},
            "platform.resources.ppo.accelerator: a Vertex pipeline task cannot have TPU",
        ),
        ("vertex", {"spot": True}, "platform.resources.ppo.spot: a Vertex pipeline task cannot run on spot machines"),
        (
            "kubeflow",
            {"cpu": "2Gi"},
            "platform.resources.ppo.cpu: '2Gi' is not accepted; write a number of processor",
        ),
        ("vertex", {"memory": "500m"}, "platform.resources.ppo.memory: '500m' is not accepted; write a size such as"),
    ],
)
def test_what_a_target_cannot_give_is_refused_at_compile(target: str, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        compiled(target, **wanted)
    assert str(caught.value).startswith(message)


def test_on_eks_a_whole_machine_is_named_by_its_type() -> None:
    _, platform = compiled("kubeflow", {"nodes": "eks"}, accelerator="nvidia-h100-80gb", count=8, spot=True)
    assert platform["nodeSelector"]["labels"] == {
        "eks.amazonaws.com/capacityType": "SPOT",
        "node.kubernetes.io/instance-type": "p5.48xlarge",
    }
    several = Resources(accelerator="nvidia-h100-80gb", count=8, hosts=2)
    assert placement(several, "here", "eks").limits == {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"}


def test_nodes_of_nobody_s_labels_are_named_by_the_config() -> None:
    wanted: dict[str, Any] = {
        "accelerator": "nvidia-l4",
        "node_selector": {"pool": "ours"},
        "tolerations": [{"key": "ours", "effect": "NoExecute"}],
        "shared_memory": "8Gi",
    }
    _, platform = compiled("kubeflow", {"nodes": "any", "image_pull_secrets": ["registry"]}, **wanted)
    assert platform["nodeSelector"]["labels"] == {"pool": "ours"}
    assert platform["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "ours", "operator": "Exists", "effect": "NoExecute"},
    ]
    (memory,) = platform["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")
    assert [one["secretName"] for one in platform["imagePullSecret"]] == ["registry"]


@pytest.mark.parametrize(
    ("nodes", "wanted", "said"),
    [
        ("eks", {"accelerator": "v5e", "topology": "2x2", "count": 4}, "EKS has no TPUs"),
        ("eks", {"accelerator": "nvidia-l4"}, "node_selector, such as {node.kubernetes.io/instance-type"),
        ("any", {"spot": True}, "platform.kubeflow.nodes is any"),
    ],
)
def test_what_nodes_do_not_have_is_refused(nodes: str, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"platform\.resources\.ppo") as caught:
        compiled("kubeflow", {"nodes": nodes}, **wanted)
    assert said in str(caught.value)


def test_a_node_selector_stands_for_a_type_that_several_instances_have() -> None:
    chosen = {"node.kubernetes.io/instance-type": "g6.12xlarge"}
    _, platform = compiled("kubeflow", {"nodes": "eks"}, accelerator="nvidia-l4", count=4, node_selector=chosen)
    assert platform["nodeSelector"]["labels"] == chosen
