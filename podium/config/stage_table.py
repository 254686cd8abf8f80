"""The stages, one row each: what a stage does, which settings it reads, and the artifacts that it takes and makes.

Commands, runner, pipeline, components' tests and docs are made from this table or held to it.
"""

from dataclasses import dataclass
from typing import Literal

# The names once more, for type checkers and the JSON Schema, which take no table for a type; a test compares.
StageName = Literal["prepare", "sft", "reward", "sample", "ppo", "evaluate", "export", "gates"]
ArtifactType = Literal["Dataset", "Model", "Metrics", "HTML", "Artifact"]


@dataclass(frozen=True)
class Input:
    """An artifact that a stage takes: output `output` of stage `stage`."""

    name: str
    stage: str
    output: str
    optional: bool = False


@dataclass(frozen=True)
class Output:
    """An artifact that a stage makes: a folder, or one file. A command may leave out one that is not `required`."""

    name: str
    type: ArtifactType
    required: bool = True

    @property
    def is_file(self) -> bool:
        """A page is one file; everything else is a folder, which has room for a manifest."""
        return self.type == "HTML"


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        summary: What it does, as its help begins.
        sections: Sections of the config, or single values of them as SECTION.KEY, on which its results depend.
        takes: Its inputs.
        makes: Its outputs, in the order in which they are finished.
        uses_devices: It computes on the mesh.
        trains: It computes in steps, which are saved.
        reads_data_files: It reads the files that config.data names, and of the model the tokenizer alone.
        reads_model: It reads the configured model, unless an input holds what sft made of it.
        after: Stages that it waits for although it takes nothing from them.
    """

    summary: str
    sections: tuple[str, ...]
    takes: tuple[Input, ...]
    makes: tuple[Output, ...]
    uses_devices: bool = True
    trains: bool = False
    reads_data_files: bool = False
    reads_model: bool = True
    after: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that it cannot do without."""
        return tuple(one.name for one in self.takes if not one.optional)

    @property
    def optional(self) -> tuple[str, ...]:
        """Names of the inputs that may be left out."""
        return tuple(one.name for one in self.takes if one.optional)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return tuple(one.name for one in self.makes)

    @property
    def files(self) -> frozenset[str]:
        """Names of the outputs that are one file each."""
        return frozenset(one.name for one in self.makes if one.is_file)

    @property
    def from_sft(self) -> str | None:
        """Name of the optional input that takes what sft wrote, in place of the configured model."""
        return next((one.name for one in self.takes if one.stage == "sft"), None)


def _from_sft(name: str = "model") -> Input:
    return Input(name, "sft", "model", optional=True)


_METRICS = Output("metrics", "Metrics", required=False)
_PROMPTS = Input("prompts", "prepare", "prompts")
_REWARD_MODEL = Input("reward_model", "reward", "reward_model")
_POLICY = Input("policy", "ppo", "policy")

# In the order of a run on one machine.
STAGE_TABLE: dict[str, StageSpec] = {
    "prepare": StageSpec(
        "Read, check and split the data files. They hold preferences, prompts and demonstrations.",
        sections=("model", "data"),
        takes=(),
        makes=(
            Output("preferences", "Dataset"),
            Output("prompts", "Dataset"),
            Output("demonstrations", "Dataset", required=False),
            Output("data_report", "Artifact"),
            _METRICS,
        ),
        uses_devices=False,
        reads_data_files=True,
    ),
    "sft": StageSpec(
        "Fine-tune the model on demonstrations. The later stages can start from what it writes.",
        sections=("model", "data", "sft"),
        takes=(Input("demonstrations", "prepare", "demonstrations"),),
        makes=(Output("model", "Model"), _METRICS),
        trains=True,
    ),
    "reward": StageSpec(
        "Train a reward model on preferences.",
        # Its report gives the accuracy on responses cut at that length.
        sections=("model", "data", "reward", "ppo.max_new_tokens"),
        takes=(Input("preferences", "prepare", "preferences"), _from_sft()),
        makes=(Output("reward_model", "Model"), _METRICS),
        trains=True,
    ),
    "sample": StageSpec(
        "Answer prompts with the starting policy. The answers are the baseline of the evaluation.",
        sections=("model", "data", "sample"),
        takes=(_PROMPTS, _from_sft()),
        makes=(Output("candidates", "Dataset"), _METRICS),
    ),
    "ppo": StageSpec(
        "Tune the policy against the reward model with PPO.",
        sections=("model", "data", "ppo"),
        takes=(_PROMPTS, _REWARD_MODEL, _from_sft()),
        makes=(Output("policy", "Model"), Output("rollouts", "Dataset"), _METRICS),
        trains=True,
    ),
    "evaluate": StageSpec(
        "Compare the tuned policy with the baseline. Both answer the held-out prompts.",
        sections=("model", "data", "sample", "ppo", "evaluation"),
        takes=(
            _POLICY,
            Input("candidates", "sample", "candidates"),
            _REWARD_MODEL,
            _from_sft(),
            Input("data_report", "prepare", "data_report", optional=True),
        ),
        makes=(Output("report", "HTML"), _METRICS, Output("samples", "Dataset")),
    ),
    "export": StageSpec(
        "Write the tuned policy as a Hugging Face folder.",
        sections=("model", "export"),
        # Its output is called model.
        takes=(_POLICY, _from_sft("base"), Input("samples", "evaluate", "samples", optional=True)),
        makes=(Output("model", "Model"),),
        uses_devices=False,
    ),
    "gates": StageSpec(
        "Say whether a run met the thresholds of evaluation.gates; exit with 3 where it did not.",
        sections=("model", "evaluation"),
        takes=(Input("samples", "evaluate", "samples"), Input("report", "evaluate", "report", optional=True)),
        makes=(_METRICS,),
        uses_devices=False,
        reads_model=False,
        # A run whose gates failed has its model.
        after=("export",),
    ),
}
STAGES = tuple(STAGE_TABLE)
