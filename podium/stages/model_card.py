"""The README of an exported model, in the form of a Hugging Face model card."""

from dataclasses import dataclass
from typing import Any

import yaml

from podium.evaluation.wording import number
from podium.models import LoraSpec
from podium.models.verification import Agreement
from podium.stages.manifest import Manifest
from podium.version import __version__

# What a reader asks first of a PPO run; the names are those of docs/rlhf.md.
_FIGURES = {
    "objective/scores_raw": "Mean reward of the sampled answers",
    "objective/scores": "Mean reward, penalties for answers without an end included",
    "objective/rlhf_reward": "Mean reward less the KL penalty",
    "objective/kl": "KL from the starting model, nats per answer",
    "objective/response_length": "Mean length of an answer, tokens",
    "policy/approxkl_avg": "KL of the last step's updates, nats per token",
}


@dataclass(frozen=True)
class Subject:
    """What is exported: the base it was tuned from, the form it is in, what was trained, and what loads it."""

    base: str
    fine_tuned: bool
    format: str
    dtype: str
    lora: LoraSpec | None
    chat: bool
    auto_class: str


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: whether the gates passed, None where none was configured, and its summary in Markdown."""

    gates_passed: bool | None
    summary: str


def model_card(
    subject: Subject, manifest: Manifest | None, result: Agreement | None, evaluation: Evaluation | None = None
) -> str:
    """Write the card from what the policy's manifest and the evaluation record; what is not recorded is said so."""
    parts = [
        f"---\n{_front_matter(subject)}---",
        f"# {subject.base}, aligned with human preferences",
        _summary(subject),
        f"## Evaluation\n\n{_evaluation(evaluation)}",
        f"## Use\n\n```python\n{_usage(subject)}\n```",
        f"## Training\n\n{_training(manifest)}",
        f"## Check\n\n{_check(subject, result)}",
        "## Limits\n\nTuned towards a reward model, which is an imperfect picture of its raters' preferences; the "
        "figures above are its judgement of answers to the run's held-out prompts. Outside of such prompts nothing "
        "was measured. The licence of the base model and of the data apply.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(subject: Subject) -> str:
    content: dict[str, Any] = {"base_model": subject.base}
    content["library_name"] = "peft" if subject.format == "adapter" else "transformers"
    if subject.chat:
        content["pipeline_tag"] = "text-generation"
    return yaml.safe_dump(content | {"tags": ["rlhf", "ppo", "podium"]}, sort_keys=False)


def _summary(subject: Subject) -> str:
    trained = "all weights were trained"
    if subject.lora is not None:
        lora = subject.lora
        where = "all layers" if lora.layers is None else f"the last {lora.layers} layers"
        trained = f"a LoRA adapter (r={lora.r}, alpha={lora.alpha:g}, {', '.join(lora.target_modules)}; {where}) was"
        trained += " trained" + (", and is merged into these weights" if subject.format == "merged" else "")
    form = "This folder holds the adapter alone" if subject.format == "adapter" else "This folder holds the whole model"
    first = "fine-tuned on demonstrations, then " if subject.fine_tuned else ""
    return f"{subject.base} {first}tuned by PPO against a reward model: {trained}. {form}, in {subject.dtype}."


def _evaluation(result: Evaluation | None) -> str:
    if result is None:
        return "This model was exported without an evaluation: nothing is known of what was gained."
    gates = {True: "All gates of the run passed.", False: "**This model failed the gates of its run.**", None: ""}
    return "\n\n".join(part for part in (gates[result.gates_passed], result.summary.strip()) if part)


def _usage(subject: Subject) -> str:
    loader = subject.auto_class
    lines = [f"from transformers import {loader}, AutoTokenizer", ""]
    lines.append('tokenizer = AutoTokenizer.from_pretrained("PATH")')
    if subject.format == "adapter":
        lines[1:1] = ["from peft import PeftModel"]
        lines.append(f'base = {loader}.from_pretrained("{subject.base}")')
        lines.append('model = PeftModel.from_pretrained(base, "PATH")')
    else:
        lines.append(f'model = {loader}.from_pretrained("PATH")')
    if subject.chat:
        lines.append('chat = [{"role": "user", "content": "Hello"}]')
        lines.append("inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt')")
    else:
        lines.append("inputs = tokenizer('Hello', return_tensors='pt')")
    lines.append("print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))")
    return "\n".join(lines)


def _training(manifest: Manifest | None) -> str:
    if manifest is None:
        return "The policy came without a manifest: how it was trained is not recorded here."
    figures = [(label, manifest.metrics[name]) for name, label in _FIGURES.items() if name in manifest.metrics]
    table = "\n".join(
        ["| Last logged step of PPO | |", "|---|---|", *(f"| {label} | {number(value)} |" for label, value in figures)]
    )
    settings = {name: value for name, value in manifest.config.items() if name in ("seed", "ppo")}
    written = f"Settings:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```"
    inputs = "\n".join(f"- {name}: sha256 {digest}" for name, digest in sorted(manifest.inputs.items()))
    parts = [f"Podium {__version__}, stage {manifest.stage}.", table if figures else "", written]
    return "\n\n".join([part for part in parts if part] + ([f"Inputs:\n\n{inputs}"] if inputs else []))


def _check(subject: Subject, result: Agreement | None) -> str:
    if result is None:
        return "These files were not compared with the trained policy by another implementation."
    return (
        f"transformers loads this folder and gives the trained policy's logits on a response of {result.tokens} "
        f"tokens: largest difference {result.max_difference:.2g}, {result.kl:.2g} nats per token apart, the same "
        f"likeliest token at {result.same_choice:.0%} of the places (weights stored in {subject.dtype})."
    )
