"""Where stages run: mesh, image, resources, and the settings of the two cloud targets."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from podium.config.base import AxisSize, Positive, PositiveFloat, Section, fail
from podium.config.places import Image, Location, Service, Store
from podium.config.stage_table import StageName


def _as_text(value: Any) -> Any:
    """Accept 4 where "4" is due: a quantity without a unit needs no quotes."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d+(\.\d+)?(m|[kKMGTPE]i?)?$")]


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class RolloutMeshConfig(Section):
    """Devices along each axis while the policy answers."""

    data: AxisSize = Field(-1, description="Parts that the batch is cut into (-1: the rest).")
    tensor: Positive = Field(1, description="Devices that share each layer's heads and widths.")


class MeshConfig(Section):
    """Devices along each axis of the mesh; -1 on one axis of data, fsdp and tensor takes the devices that are left."""

    slice: AxisSize = Field(-1, description="TPU slices joined over the data-centre network (-1: all there are).")
    data: AxisSize = Field(1, description="Copies of the model that share the batch (devices; -1: the rest).")
    fsdp: AxisSize = Field(-1, description="Devices that share parameters and batch (-1: the rest).")
    tensor: AxisSize = Field(1, description="Devices that share each layer's heads and widths (-1: the rest).")
    rollout: RolloutMeshConfig | None = Field(
        None,
        description="Another layout of the same devices for the answers that PPO samples; null: that of training.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        for axis, size in {"slice": self.slice, **sizes}.items():
            if size == 0:
                fail(axis, "an axis of 0 devices holds nothing; write 1, more, or -1 for the rest")
        rest = [axis for axis, size in sizes.items() if size == -1]
        if len(rest) > 1:
            fail(rest[-1], f"{' and '.join(rest)} are both -1; only one axis can take the rest")
        return self


def _auto_or_sizes(value: Any) -> Any:
    """Check sizes alone: of a choice between two forms, pydantic would report what is wrong with both."""
    if isinstance(value, dict):
        return MeshConfig.model_validate(value)
    if value == "auto" or isinstance(value, MeshConfig):
        return value
    fail("", "write auto, or devices along axes, such as {data: 1, fsdp: -1, tensor: 1}")


MeshChoice = Annotated[Literal["auto"] | MeshConfig, BeforeValidator(_auto_or_sizes)]


class Toleration(Section):
    """A taint of nodes that pods tolerate, as Kubernetes writes it."""

    key: str = Field(description="Key of the taint.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="Exists: any value; Equal: `value`.")
    value: str | None = Field(None, description="Value of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; null: any."
    )


class Resources(Section):
    """What one stage asks of its host or hosts."""

    cpu: Quantity | None = Field(None, description='Processors per host, as Kubernetes writes them: "4" or "500m".')
    memory: Quantity | None = Field(None, description='Memory per host, as Kubernetes writes it: "16Gi".')
    accelerator: str | None = Field(None, description="Accelerator type, such as nvidia-l4 or v5p.")
    count: Positive | None = Field(None, description="Accelerator chips per host.")
    topology: str | None = Field(None, description="TPU slice shape, such as 4x4x8 (chips along each side).")
    hosts: Positive = Field(1, description="Hosts that work on the stage together.")
    spot: bool = Field(False, description="Run on machines that may be taken back.")
    node_selector: dict[str, str] = Field({}, description="Further labels of the nodes on Kubernetes.")
    tolerations: list[Toleration] = Field([], description="Further taints of the nodes that are tolerated.")
    shared_memory: Quantity | None = Field(
        None, description='Most that /dev/shm may hold, as Kubernetes writes it: "16Gi"; null: the node\'s default.'
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.topology is not None and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", self.topology):
            fail("topology", f"{self.topology!r} is not a shape; write 2x2 or 4x4x8")
        if self.accelerator is None and (self.count is not None or self.topology is not None):
            fail("accelerator", "count and topology need the accelerator they speak of, such as v5p")
        return self


class VertexConfig(Section):
    """Settings of Vertex AI Pipelines."""

    project: str | None = Field(None, description="Google Cloud project; null takes the client's default.")
    region: str = Field("us-central1", description="Region of the pipeline and its jobs.")
    staging_bucket: Store | None = Field(None, description="gs:// URI under which runs keep their artifacts.")
    service_account: str | None = Field(None, description="Account the run acts as.")
    network: str | None = Field(None, description="Full name of the VPC network to peer with.")
    encryption_key: str | None = Field(None, description="Full name of the Cloud KMS key for everything written.")
    api_endpoint: Service | None = Field(None, description="Another service address; null takes the region's.")
    api_transport: Literal["grpc", "rest"] = Field("grpc", description="How the client speaks to the service.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.staging_bucket is not None and not self.staging_bucket.startswith("gs://"):
            fail("staging_bucket", f"{self.staging_bucket!r} is no bucket; write gs://BUCKET or gs://BUCKET/FOLDER")
        return self


class KubeflowConfig(Section):
    """Settings of Kubeflow Pipelines."""

    host: Service | None = Field(None, description="Address of the pipelines API; null takes the client's default.")
    namespace: str = Field("kubeflow", description="Namespace the run belongs to.")
    experiment: str = Field("podium", description="Experiment the run is listed under.")
    service_account: str | None = Field(None, description="Kubernetes account that the tasks act as.")
    storage: Store | None = Field(None, description="URI under which runs keep their artifacts; null: the server's.")
    image_pull_secrets: list[str] = Field([], description="Secrets of the namespace that tasks pull their images with.")
    queue: str | None = Field(
        None, description="Kueue's local queue that admits the hosts of a stage with hosts above 1; null: none."
    )
    nodes: Literal["gke", "eks", "any"] = Field(
        "gke",
        description="Whose labels say which accelerator a node has: GKE's, EKS's (the type of instance), or nobody's, "
        "so that resources.STAGE.node_selector alone chooses nodes.",
    )
    launcher_image: Image | None = Field(
        None, description="Image of tasks that start a stage on several hosts; null: the one of this version."
    )
    launcher: Literal["trainjob", "jobset"] = Field(
        "trainjob",
        description="What the pods of a stage with hosts above 1 belong to: a TrainJob of Kubeflow Trainer, or a "
        "JobSet, which also joins several TPU slices.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.host is not None and not self.host.startswith(("http://", "https://")):
            fail("host", f"{self.host!r} has no scheme; write http://{self.host} or https://{self.host}")
        return self


class PlatformConfig(Section):
    """Where and on what the stages run."""

    target: Literal["local", "kubeflow", "vertex"] = Field("local", description="Where compile and submit aim.")
    mesh: MeshChoice = Field(
        "auto",
        description="Devices along each axis, or auto: chosen from model, chips, their memory and rows; on one device "
        "and on CPUs {data: 1, fsdp: -1, tensor: 1}.",
    )
    start_timeout: PositiveFloat = Field(300.0, description="Seconds in which all processes of a stage must have met.")
    heartbeat_timeout: Positive = Field(
        100, description="Seconds without a sign of life after which a process counts as dead, and the others end."
    )
    step_timeout: PositiveFloat | None = Field(
        None,
        description="Seconds that a call of steps may take with several processes, before all end and may be started "
        "again; null: ten times the median, at least 600.",
    )
    compilation_cache: Location = Field(
        "auto",
        description="Where compiled programs are kept for a stage that is started again: a folder or URI (gs:// or "
        "s3://) that all its processes see; none; or auto: STORAGE/cache where STORAGE is set, else beside the "
        "checkpoints until the stage is complete.",
    )
    image: Image | None = Field(None, description="Trainer image; null takes the one released with this version.")
    env: dict[VariableName, str] = Field({}, description="Environment variables of every task, by name.")
    secrets: dict[str, dict[str, VariableName]] = Field(
        {},
        description="Kubernetes secrets that every task is given: {SECRET: {KEY: VARIABLE}} puts the secret's key into "
        "that environment variable.",
    )
    resources: dict[StageName, Resources] = Field({}, description="What each stage asks for, by stage name.")
    vertex: VertexConfig = Field(VertexConfig(), description="Settings of Vertex AI Pipelines.")
    kubeflow: KubeflowConfig = Field(KubeflowConfig(), description="Settings of Kubeflow Pipelines.")
