"""What `platform.resources` becomes on each target, and what it is refused for."""

from typing import Any

import pytest
import yaml

from podium.config import PodiumConfig
from podium.errors import UserError
from podium_pipelines.compiler import compile_text


def compiled(target: Any, **wanted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return container resources and Kubernetes settings of the ppo task."""
    config = PodiumConfig.model_validate(
        {"model": {"name_or_path": "gs://b/m"}, "platform": {"resources": {"ppo": wanted}}}
    )
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
        ("kubeflow", {"hosts": 4}, "platform.resources.ppo.hosts is 4: a task on several hosts is not supported yet"),
        ("vertex", {"hosts": 2}, "platform.resources.ppo.hosts is 2: a task on several hosts is not supported yet"),
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
