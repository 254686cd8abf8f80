"""The accelerators that a stage can ask for: what each target calls them, what they have, and how fast they can be.

Published figures are peaks. `EFFICIENCY` says which share of them a prediction counts on; it is an assumption, beside
which every predicted time says that it is one.
"""

from dataclasses import dataclass

GPU_RESOURCE = "nvidia.com/gpu"
TPU_RESOURCE = "google.com/tpu"
GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What one chip has.

    Attributes:
        per_host: Chips of one host; the largest number that one host can have.
        memory: Bytes of its memory that programs can use.
        peak: Operations a second in products of bfloat16.
        peak_float32: Operations a second in products of float32 at JAX's default precision.
        bandwidth: Bytes a second between the chip and its memory.
        link: Bytes a second that one link to a neighbour carries one way; of a GPU, all its links together.
        network: Bytes a second and chip, one way, between slices or hosts.
        latency: Seconds that one collective takes beside its bytes.
        sides: Sides of a slice's shape (2 or 3), 0 for a GPU.
        most: The longest side of a slice.
    """

    per_host: int
    memory: int
    peak: float
    peak_float32: float
    bandwidth: float
    link: float
    network: float
    latency: float
    sides: int = 0
    most: int = 0

    def peak_of(self, dtype: str) -> float:
        """Return the operations a second in products of a network that computes in `dtype`."""
        return self.peak if dtype == "bfloat16" else self.peak_float32

    def utilisation(self, operations: float, seconds: float, *, chips: int, dtype: str) -> float:
        """Return which share of their peak so many chips reach: MFU of useful operations, HFU of all executed ones."""
        return operations / (seconds * chips * self.peak_of(dtype))


@dataclass(frozen=True)
class Efficiency:
    """Shares of published peaks that predictions count on.

    products: of `peak` in large products, what well-tuned training reaches without its other parts; memory: of
    `bandwidth`; links: of `link` and `network`.
    """

    products: float = 0.6
    memory: float = 0.75
    links: float = 0.8


EFFICIENCY = Efficiency()


@dataclass(frozen=True)
class Instance:
    """The one instance type of AWS that has an accelerator, eight of them, and its EFA interfaces to other hosts."""

    name: str
    interfaces: int


@dataclass(frozen=True)
class Accelerator:
    """What each target calls one accelerator.

    `vertex` is None where a plain Vertex task cannot have it, `aws` where none or several types of instances have it.
    """

    resource: str
    gke: str
    vertex: str | None
    chip: Chip
    aws: Instance | None = None

    @property
    def is_tpu(self) -> bool:
        return self.resource == TPU_RESOURCE


def _gpu(
    gke: str,
    *,
    per_host: int,
    gb: float,
    peak: float,
    peak_float32: float,
    bandwidth: float,
    link: float,
    aws: Instance | None = None,
) -> Accelerator:
    """Describe an NVIDIA GPU; peak in 1e12 operations a second, the rest in GB and GB/s.

    JAX takes three quarters of a GPU's memory (XLA_PYTHON_CLIENT_MEM_FRACTION, 0.75 by default). Between hosts: 100
    Gbit a second and GPU, as Google's a3-highgpu-8g has (https://cloud.google.com/compute/docs/gpus). A collective of
    NCCL takes tens of microseconds; 20 are counted.
    """
    chip = Chip(
        per_host=per_host,
        memory=int(0.75 * gb * 1e9),
        peak=peak * 1e12,
        peak_float32=peak_float32 * 1e12,
        bandwidth=bandwidth * 1e9,
        link=link * 1e9,
        network=12.5e9,
        latency=20e-6,
    )
    return Accelerator(GPU_RESOURCE, gke, gke.upper().replace("-", "_"), chip, aws)


def _tpu(
    gke: str,
    *,
    per_host: int,
    gib: float,
    peak: float,
    bandwidth: float,
    link: float,
    network: float,
    sides: int,
    most: int,
) -> Accelerator:
    """Describe a TPU; peak in 1e12 operations a second, bandwidths in GB/s, memory in GiB.

    Memory is what libtpu 0.0.42 says to a program that is too large ("exceeds available HBM").

    Products of float32 run as one pass of bfloat16 at JAX's default precision. A collective starts in about a
    microsecond a hop (https://jax-ml.github.io/scaling-book/sharding); 5 are counted for one.
    """
    chip = Chip(
        per_host=per_host,
        memory=int(gib * GIB),
        peak=peak * 1e12,
        peak_float32=peak * 1e12,
        bandwidth=bandwidth * 1e9,
        link=link * 1e9,
        network=network * 1e9,
        latency=5e-6,
        sides=sides,
        most=most,
    )
    return Accelerator(TPU_RESOURCE, gke, None, chip)


# Names: GKE's node labels cloud.google.com/gke-accelerator and gke-tpu-accelerator; Vertex's AcceleratorType. TPUs from
# v4 on are no accelerator type of a Vertex pipeline task: there they are machine types of a CustomJob.
#
# AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html. T4, L4 and V100 are in many types.
#
# Figures of GPUs: NVIDIA's data sheets of T4, V100 (SXM2), L4, A100 (SXM4), H100 (SXM5) and H200 (SXM), dense, not
# sparse. float32 products are TF32 from the L4 and A100 on; T4 and V100 have no units for bfloat16 and compute it as
# float32. link is NVLink one way (half of what is published), PCIe for T4 (3.0 x16) and L4 (4.0 x16).
#
# Figures of TPUs: https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e. link is the interconnect's bandwidth a chip,
# one way, divided by its ports (6 in a three-dimensional torus, 4 in one of two): v4 2400 Gbit/s, v5e 1600, v5p 4800,
# v6e 3200. network: the data-centre network a chip, v5p 50 Gbit/s; v5e 6.4 and v6e 25.6 Tbit/s a pod of 256; v4's is
# not published by chip and taken as v5p's.
ACCELERATORS = {
    "nvidia-tesla-t4": _gpu("nvidia-tesla-t4", per_host=4, gb=16, peak=8.1, peak_float32=8.1, bandwidth=300, link=16),
    "nvidia-tesla-v100": _gpu(
        "nvidia-tesla-v100", per_host=8, gb=16, peak=15.7, peak_float32=15.7, bandwidth=900, link=150
    ),
    "nvidia-l4": _gpu("nvidia-l4", per_host=8, gb=24, peak=121, peak_float32=60, bandwidth=300, link=32),
    "nvidia-tesla-a100": _gpu(
        "nvidia-tesla-a100",
        per_host=16,
        gb=40,
        peak=312,
        peak_float32=156,
        bandwidth=1555,
        link=300,
        aws=Instance("p4d.24xlarge", 4),
    ),
    "nvidia-a100-80gb": _gpu(
        "nvidia-a100-80gb",
        per_host=8,
        gb=80,
        peak=312,
        peak_float32=156,
        bandwidth=2039,
        link=300,
        aws=Instance("p4de.24xlarge", 4),
    ),
    "nvidia-h100-80gb": _gpu(
        "nvidia-h100-80gb",
        per_host=8,
        gb=80,
        peak=989,
        peak_float32=494,
        bandwidth=3350,
        link=450,
        aws=Instance("p5.48xlarge", 32),
    ),
    "nvidia-h100-mega-80gb": _gpu(
        "nvidia-h100-mega-80gb", per_host=8, gb=80, peak=989, peak_float32=494, bandwidth=3350, link=450
    ),
    "nvidia-h200-141gb": _gpu(
        "nvidia-h200-141gb",
        per_host=8,
        gb=141,
        peak=989,
        peak_float32=494,
        bandwidth=4800,
        link=450,
        aws=Instance("p5en.48xlarge", 16),
    ),
    "v4": _tpu(
        "tpu-v4-podslice",
        per_host=4,
        gib=30.75,
        peak=275,
        bandwidth=1228,
        link=50,
        network=6.25,
        sides=3,
        most=16,
    ),
    "v5e": _tpu(
        "tpu-v5-lite-podslice",
        per_host=8,
        gib=15.75,
        peak=197,
        bandwidth=819,
        link=50,
        network=3.125,
        sides=2,
        most=16,
    ),
    "v5p": _tpu(
        "tpu-v5p-slice",
        per_host=4,
        gib=95.74,
        peak=459,
        bandwidth=2765,
        link=100,
        network=6.25,
        sides=3,
        most=24,
    ),
    "v6e": _tpu(
        "tpu-v6e-slice",
        per_host=8,
        gib=31.25,
        peak=918,
        bandwidth=1638,
        link=100,
        network=12.5,
        sides=2,
        most=16,
    ),
}

# By what JAX calls them (`device_kind`): a GPU as CUDA does, a TPU as jax/_src/pallas/mosaic/tpu_info.py of jax 0.10.2
# says. GPUs on PCIe or of another memory, and parts of one (MIG), have other names, and other peaks.
_KINDS = {
    "Tesla T4": "nvidia-tesla-t4",
    "Tesla V100-SXM2-16GB": "nvidia-tesla-v100",
    "NVIDIA L4": "nvidia-l4",
    "NVIDIA A100-SXM4-40GB": "nvidia-tesla-a100",
    "NVIDIA A100-SXM4-80GB": "nvidia-a100-80gb",
    "NVIDIA H100 80GB HBM3": "nvidia-h100-80gb",
    "NVIDIA H200": "nvidia-h200-141gb",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def chip_of(device_kind: str) -> Chip | None:
    """Return the figures of what JAX calls so; None where they are not known, as of a CPU."""
    name = _KINDS.get(device_kind)
    return None if name is None else ACCELERATORS[name].chip


def accelerator_name(written: str) -> str:
    """Return a name as the table has it: NVIDIA_L4, which is Vertex's way, is nvidia-l4."""
    return written.lower().replace("_", "-")
