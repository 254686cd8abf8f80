"""The README of an exported model, in the form of a Hugging Face model card."""

from dataclasses import dataclass
from typing import Any

import yaml

from podium.models import LoraSpec
from podium.models.verification import Agreement
from podium.stages.manifest import Manifest
from podium.version import __version__

# What a reader asks first of a PPO run, under the names of docs/rlhf.md.
_FIGURES = ("objective/scores", "objective/kl", "objective/rlhf_reward", "policy/approxkl_avg", "objective/length")


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


def model_card(subject: Subject, manifest: Manifest | None, found: Agreement | None) -> str:
    """Write the card from what the policy's manifest records; without a manifest it says that nothing is recorded."""
    parts = [
        f"---\n{_front_matter(subject)}---",
        f"# {subject.base}, aligned with human preferences",
        _summary(subject),
        f"## Use\n\n```python\n{_usage(subject)}\n```",
        f"## Training\n\n{_training(manifest)}",
        f"## Check\n\n{_check(subject, found)}",
        "## Limits\n\nTuned towards a reward model, which is an imperfect picture of its raters' preferences. The "
        "evaluation report of the run says how far the tuned answers were preferred, on which prompts, and at what "
        "distance from the starting model; outside of such prompts nothing was measured. The licence of the base "
        "model and of the data apply.",
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
    figures = [(name, manifest.metrics[name]) for name in _FIGURES if name in manifest.metrics]
    table = "\n".join(
        ["| last logged step | |", "|---|---|", *(f"| `{name}` | {value:.4g} |" for name, value in figures)]
    )
    settings = {name: value for name, value in manifest.config.items() if name in ("seed", "ppo")}
    written = f"Settings:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```"
    inputs = "\n".join(f"- {name}: sha256 {digest}" for name, digest in sorted(manifest.inputs.items()))
    parts = [f"Podium {__version__}, stage {manifest.stage}.", table if figures else "", written]
    return "\n\n".join([part for part in parts if part] + ([f"Inputs:\n\n{inputs}"] if inputs else []))


def _check(subject: Subject, found: Agreement | None) -> str:
    if found is None:
        return "These files were not compared with the trained policy by another implementation."
    return (
        f"transformers loads this folder and gives the trained policy's logits on a response of {found.tokens} tokens: "
        f"largest difference {found.max_difference:.2g}, {found.kl:.2g} nats per token apart, the same likeliest token "
        f"at {found.same_choice:.0%} of the places (weights stored in {subject.dtype})."
    )
