"""Sft: demonstrations and a model in, the model fine-tuned on them out, with its held-out report.

Metrics: perplexity with perplexity_low and perplexity_high (its interval), perplexity_base (of the model before),
tokens (held-out response tokens), train_demonstrations.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from podium.config import PodiumConfig
from podium.data.records import read_demonstrations
from podium.evaluation import drift
from podium.evaluation.logprobs import answer_logprobs
from podium.evaluation.statistics import Estimate
from podium.models import Model, save
from podium.parallel import placement
from podium.rlhf.demonstrations import Demonstration, encode
from podium.rlhf.sft_training import SftRun, train_sft
from podium.stages.base import FINE_TUNED_FROM, load, work_key
from podium.stages.io import Result, StageIO
from podium.stages.meshes import stage_mesh
from podium.training.progress import Progress

CONFIDENCE = 0.95


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Train on demonstrations/train.jsonl, judge on demonstrations/eval.jsonl, write the model."""
    assert config.sft is not None, "the runner starts no stage without its section"
    folder, demonstrations = io.output("model"), io.input("demonstrations")
    train = read_demonstrations(demonstrations / "train.jsonl")
    mesh, _ = stage_mesh(config, io, "sft")
    base = load(config.model.name_or_path, dtype=config.model.dtype, mesh=mesh, revision=config.model.revision)
    records = read_demonstrations(demonstrations / "eval.jsonl")
    held_out = encode(records, base.tokenizer, config.data.max_length)
    size = config.sft.per_device_batch_size * placement.data_parallel(mesh)
    with jax.set_mesh(mesh):
        before = perplexity(base, held_out, size, "sft: before")
        model = train_sft(
            base,
            train,
            SftRun(
                config=config.sft,
                max_prompt_length=config.data.max_prompt_length,
                max_length=config.data.max_length,
                seed=config.seed,
                mesh=mesh,
                folder=folder,
                checkpoints=f"{io.work('model')}/checkpoints",
                fingerprint=work_key("sft", config, io, base),
                step_timeout=config.platform.step_timeout,
                profile=io.profile,
            ),
        )
        after = perplexity(model, held_out, size, "sft: after")
    report = _report(held_out, before, after)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    save(model.replace(metadata=model.metadata | {FINE_TUNED_FROM: base.base}), folder)
    metrics = _metrics(report) | {"train_demonstrations": float(len(train))}
    return Result(metrics=metrics, metadata={"model": {"base": config.model.name_or_path, **metrics}})


def perplexity(model: Model, demonstrations: Sequence[Demonstration], batch_size: int, label: str) -> Estimate:
    """Return exp of the mean negative log-likelihood of a response token, the end included; weights do not count."""
    tokens = [[len(one.response)] for one in demonstrations]
    with Progress(len(demonstrations), label, unit="demonstration") as progress:
        (sums,) = answer_logprobs(
            model,
            [one.prompt for one in demonstrations],
            [one.response for one in demonstrations],
            temperatures=(1.0,),
            batch_size=batch_size,
            progress=lambda done, _: progress.update(done),
        )
    return drift.perplexity(sums[:, None], np.reshape(tokens, (-1, 1)), CONFIDENCE)


def _report(held_out: Sequence[Demonstration], before: Estimate, after: Estimate) -> dict[str, Any]:
    """Return what report.json holds; {} where nothing is held out."""
    if not held_out:
        return {}
    return {
        "demonstrations": len(held_out),
        "tokens": sum(len(one.response) for one in held_out),
        "confidence": CONFIDENCE,
        "perplexity": after._asdict(),
        "perplexity_base": before._asdict(),
    }


def _metrics(report: dict[str, Any]) -> dict[str, float]:
    """Return the flat figures; one held-out demonstration gives no interval."""
    if not report:
        return {}
    result = {
        "perplexity": report["perplexity"]["value"],
        "perplexity_low": report["perplexity"]["low"],
        "perplexity_high": report["perplexity"]["high"],
        "perplexity_base": report["perplexity_base"]["value"],
        "tokens": float(report["tokens"]),
    }
    return {name: value for name, value in result.items() if value is not None}
