"""Sample: prompts and a model in, K candidate answers per prompt out.

With `model` the starting policy, its answers to the held-out prompts are the baseline that `evaluate` compares with.

Metrics: num_prompts, num_responses, length (mean tokens), finish_rate (share that ended before the limit).
"""

from collections.abc import Sequence

import jax

from podium.config import PodiumConfig
from podium.data.records import Message, PromptRecord, read_prompts
from podium.errors import UserError
from podium.evaluation.candidates import Candidates, Response, SamplingRecord, write_candidates
from podium.generation import Completions, generate
from podium.models import Model
from podium.stages.base import base_model, base_name
from podium.stages.io import Result, StageIO
from podium.stages.meshes import stage_mesh
from podium.training.progress import Progress


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Answer the prompts of config.sample.split with the starting model and write candidates.jsonl."""
    prompts = _prompts(config, io)
    sample = config.sample
    settings = SamplingRecord(
        max_new_tokens=sample.max_new_tokens,
        temperature=sample.temperature,
        top_k=sample.top_k,
        top_p=sample.top_p,
        seed=config.seed,
    )
    mesh, _ = stage_mesh(config, io, "sample")
    with jax.set_mesh(mesh):
        model = base_model(config, io, mesh)
        answers = answer(
            model,
            [record.prompt for record in prompts],
            settings,
            generations=sample.num_generations,
            batch_size=sample.batch_size,
            label="sample",
        )
    rows = [
        Candidates(
            id=record.id,
            prompt=record.prompt,
            responses=responses,
            model=base_name(config, io),
            model_digest=model.base_digest,
            sampling=settings,
        )
        for record, responses in zip(prompts, responses_of(answers, sample.num_generations), strict=True)
    ]
    write_candidates(io.output("candidates"), rows)
    metadata = {"rows": len(rows), "model": base_name(config, io), **settings.model_dump()}
    return Result(metrics=_metrics(answers, len(rows)), metadata={"candidates": metadata})


def answer(
    model: Model,
    prompts: Sequence[list[Message]],
    settings: SamplingRecord,
    *,
    generations: int,
    batch_size: int,
    label: str,
) -> Completions:
    """Answer every prompt `generations` times, all answers to a prompt in a row.

    The random stream of an answer depends on the seed and its place alone. Two models that answer the same prompts
    under the same settings therefore draw the same random numbers, and their comparison has less noise: a model
    compared with itself gives the same texts.
    """
    encoded = [model.tokenizer.encode_prompt(prompt) for prompt in prompts]
    repeated = [ids for ids in encoded for _ in range(generations)]
    with Progress(len(repeated), label, unit="answer") as progress:
        return generate(
            model,
            repeated,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=settings.seed,
            batch_size=batch_size,
            progress=lambda done, _: progress.update(done),
        )


def responses_of(answers: Completions, generations: int) -> list[list[Response]]:
    """Group answers by prompt, as candidates.jsonl has them."""
    flat = [
        Response(text=text, num_tokens=tokens, finish_reason=reason, token_ids=ids)
        for text, tokens, reason, ids in zip(
            answers.texts, answers.num_tokens, answers.finish_reasons, answers.ids, strict=True
        )
    ]
    return [flat[start : start + generations] for start in range(0, len(flat), generations)]


def _prompts(config: PodiumConfig, io: StageIO) -> list[PromptRecord]:
    path = io.input("prompts") / f"{config.sample.split}.jsonl"
    prompts = read_prompts(path)[: config.sample.max_prompts]
    if not prompts:
        raise UserError(f"{path}: holds no prompts; give data.prompts more rows or choose another sample.split")
    return prompts


def _metrics(answers: Completions, prompts: int) -> dict[str, float]:
    count = len(answers.texts)
    return {
        "num_prompts": float(prompts),
        "num_responses": float(count),
        "length": sum(answers.num_tokens) / count,
        "finish_rate": answers.finish_reasons.count("stop") / count,
    }
