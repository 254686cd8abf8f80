"""The phases of RLHF as typed Kubeflow components.

Every component takes its config as one dict, so a knob is named once, in `podium.config`; the other arguments are
the artifacts that pass between phases. KFP reads the annotations when it decorates: no postponed ones here. An artifact
whose default is None may be left out.
"""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from podium_components._command import stage_container


@dsl.container_component
def prepare(
    preferences: Output[Dataset],
    prompts: Output[Dataset],
    demonstrations: Output[Dataset],
    data_report: Output[Artifact],
    metrics: Output[Metrics],
    config: dict,
    data_version: str = "",
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Read, check and split files of preferences, prompts and demonstrations.

    Args:
        preferences: Canonical preference records, train.jsonl and eval.jsonl.
        prompts: Canonical prompt records, train.jsonl and eval.jsonl.
        demonstrations: Canonical demonstrations, train.jsonl and eval.jsonl; empty where the config names none.
        data_report: Folder with report.html and report.json, every refused row with its reason.
        metrics: Counts of kept and refused rows.
        config: This stage's part of the resolved Podium config.
        data_version: Version of the data files; another one makes KFP read them again instead of using its cache.
        model_version: The same of the configured model, whose tokenizer is read.
    """
    return stage_container("prepare")


@dsl.container_component
def sft(
    demonstrations: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    config: dict,
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Fine-tune the model on demonstrations.

    Args:
        demonstrations: What `prepare` wrote.
        model: The fine-tuned model, all weights, with metrics.jsonl and report.json.
        metrics: Held-out perplexity with its interval, and that of the model before.
        config: This stage's part of the resolved Podium config.
        model_version: Version of the configured model; another one makes KFP run the task again.
    """
    return stage_container("sft")


@dsl.container_component
def reward(
    preferences: Input[Dataset],
    reward_model: Output[Model],
    metrics: Output[Metrics],
    config: dict,
    model: Input[Model] = None,
    model_version: str = "",
    reward_model_version: str = "",
) -> dsl.ContainerSpec:
    """Train a reward model on preferences.

    Args:
        preferences: What `prepare` wrote.
        reward_model: Weights, tokenizer, head, gain and bias, with metrics.jsonl and report.json.
        metrics: Held-out accuracy with its interval, the longer-wins baseline, calibration.
        config: This stage's part of the resolved Podium config.
        model: What `sft` wrote; without it, the model that the config names.
        model_version: Version of the configured model; another one makes KFP run the task again.
        reward_model_version: The same of reward.model.
    """
    return stage_container("reward")


@dsl.container_component
def sample(
    prompts: Input[Dataset],
    candidates: Output[Dataset],
    metrics: Output[Metrics],
    config: dict,
    model: Input[Model] = None,
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Answer prompts with the starting policy: the baseline that evaluation compares with.

    Args:
        prompts: What `prepare` wrote.
        candidates: candidates.jsonl, the responses to each prompt.
        metrics: Number, length and ending of the responses.
        config: This stage's part of the resolved Podium config.
        model: What `sft` wrote; without it, the model that the config names.
        model_version: Version of the configured model; another one makes KFP run the task again.
    """
    return stage_container("sample")


@dsl.container_component
def ppo(
    prompts: Input[Dataset],
    reward_model: Input[Model],
    policy: Output[Model],
    rollouts: Output[Dataset],
    metrics: Output[Metrics],
    config: dict,
    model: Input[Model] = None,
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Tune the policy against the reward model with PPO.

    Args:
        prompts: What `prepare` wrote.
        reward_model: What `reward` trained.
        policy: The tuned model, full weights or LoRA adapter, with metrics.jsonl.
        rollouts: rollouts.jsonl, sampled responses with score and KL.
        metrics: The last step's rewards, KL and losses.
        config: This stage's part of the resolved Podium config.
        model: What `sft` wrote; without it, the model that the config names.
        model_version: Version of the configured model; another one makes KFP run the task again.
    """
    return stage_container("ppo")


@dsl.container_component
def evaluate(
    policy: Input[Model],
    candidates: Input[Dataset],
    reward_model: Input[Model],
    report: Output[HTML],
    metrics: Output[Metrics],
    samples: Output[Dataset],
    config: dict,
    model: Input[Model] = None,
    data_report: Input[Artifact] = None,
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Compare the tuned policy with the baseline answers on held-out prompts.

    Args:
        policy: What `ppo` tuned.
        candidates: The baseline answers that `sample` wrote.
        reward_model: What `reward` trained.
        report: One HTML file that needs no network.
        metrics: Win rate, reward gain and KL with their intervals.
        samples: samples.jsonl, both answers side by side with their rewards, and results.json.
        config: This stage's part of the resolved Podium config.
        model: What `sft` wrote; without it, the model that the config names.
        data_report: What `prepare` found in the data; the report has a section on it.
        model_version: Version of the configured model; another one makes KFP run the task again.
    """
    return stage_container("evaluate")


@dsl.container_component
def export(
    policy: Input[Model],
    model: Output[Model],
    config: dict,
    base: Input[Model] = None,
    samples: Input[Dataset] = None,
    model_version: str = "",
) -> dsl.ContainerSpec:
    """Write the tuned policy as a Hugging Face folder.

    Args:
        policy: What `ppo` tuned.
        model: Safetensors, tokenizer, chat template and generation config.
        config: This stage's part of the resolved Podium config.
        base: What `sft` wrote, where the policy is an adapter on it.
        samples: What `evaluate` found; the model card carries its verdict.
        model_version: Version of the configured model; another one makes KFP run the task again.
    """
    return stage_container("export")


@dsl.container_component
def gates(
    samples: Input[Dataset],
    metrics: Output[Metrics],
    config: dict,
    report: Input[HTML] = None,
) -> dsl.ContainerSpec:
    """Fail the run where it missed the thresholds of its config.

    Args:
        samples: What `evaluate` wrote, with the outcome of each gate.
        metrics: Which gates passed.
        config: This stage's part of the resolved Podium config.
        report: What `evaluate` wrote; it is kept beside the verdict under STORAGE/runs/RUN, where those are given.
    """
    return stage_container("gates")
