"""The accelerators that a stage can ask for, and what each target calls them."""

from dataclasses import dataclass

GPU_RESOURCE = "nvidia.com/gpu"
TPU_RESOURCE = "google.com/tpu"


@dataclass(frozen=True)
class Accelerator:
    """What each target calls one accelerator; `vertex` is None where a plain Vertex task cannot have it."""

    resource: str
    gke: str
    vertex: str | None


def _gpu(gke: str) -> Accelerator:
    return Accelerator(GPU_RESOURCE, gke, gke.upper().replace("-", "_"))


# GKE's node labels cloud.google.com/gke-accelerator and gke-tpu-accelerator; Vertex's AcceleratorType. TPUs from v4
# on are no accelerator type of a Vertex pipeline task: there they are machine types of a CustomJob.
ACCELERATORS = {
    "nvidia-tesla-t4": _gpu("nvidia-tesla-t4"),
    "nvidia-tesla-v100": _gpu("nvidia-tesla-v100"),
    "nvidia-l4": _gpu("nvidia-l4"),
    "nvidia-tesla-a100": _gpu("nvidia-tesla-a100"),
    "nvidia-a100-80gb": _gpu("nvidia-a100-80gb"),
    "nvidia-h100-80gb": _gpu("nvidia-h100-80gb"),
    "nvidia-h100-mega-80gb": _gpu("nvidia-h100-mega-80gb"),
    "nvidia-h200-141gb": _gpu("nvidia-h200-141gb"),
    "v4": Accelerator(TPU_RESOURCE, "tpu-v4-podslice", None),
    "v5e": Accelerator(TPU_RESOURCE, "tpu-v5-lite-podslice", None),
    "v5p": Accelerator(TPU_RESOURCE, "tpu-v5p-slice", None),
    "v6e": Accelerator(TPU_RESOURCE, "tpu-v6e-slice", None),
}


def accelerator_name(written: str) -> str:
    """Return a name as the table has it: NVIDIA_L4, which is Vertex's way, is nvidia-l4."""
    return written.lower().replace("_", "-")
