"""Answer a case's prompts with `podium.generation.generate`: `podium_generate.py CASE.json RESULT.json`."""

import dataclasses
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cases
from cases import Case

from podium.parallel.runtime import configure

configure()
cases.limit_threads()

import jax  # noqa: E402 - pages and processors are chosen before JAX starts
from podium_side import PAD, transformer_config  # noqa: E402

from podium.generation import generate  # noqa: E402
from podium.models import Model, load  # noqa: E402
from podium.models.family import init_params  # noqa: E402


def endless_model(case: Case) -> Model:
    """The case's model, none of whose tokens ends an answer."""
    if case.weights:
        model = load(cases.MODELS / case.weights)
        return model.replace(tokenizer=dataclasses.replace(model.tokenizer, eos_ids=()))
    config = transformer_config(case)
    tokenizer: Any = SimpleNamespace(pad_id=PAD, eos_ids=(), decode=str)
    return Model(config=config, params=init_params(config, jax.random.key(0))[0], tokenizer=tokenizer)


def run(case: Case) -> tuple[list[float], list[list[int]]]:
    """Seconds of each timed call, and the tokens of the last."""
    model, prompts = endless_model(case), cases.tokens(case, case.batch, case.prompt)
    seconds = []
    for _ in range(case.warm_up + case.steps):
        start = time.perf_counter()
        done = generate(model, prompts, max_new_tokens=case.response, temperature=0.0, seed=0, batch_size=case.batch)
        seconds.append(time.perf_counter() - start)
    return seconds[case.warm_up :], done.ids


def main(case_file: str, result_file: str) -> None:
    seconds, ids = run(cases.from_dict(json.loads(Path(case_file).read_text())))
    versions = {name: version(name) for name in ("podium", "jax", "jaxlib")}
    Path(result_file).write_text(json.dumps({"seconds": seconds, "ids": ids, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
