"""Answer a case's prompts with the `generate` of transformers: `transformers_generate.py CASE.json RESULT.json`."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cases
from cases import Case

cases.limit_threads()

import torch  # noqa: E402 - the processors are chosen before torch starts
from transformers import LlamaForCausalLM  # noqa: E402
from trl_side import llama_config  # noqa: E402


def generate(case: Case) -> tuple[list[float], list[list[int]]]:
    """Seconds of each timed call, and the tokens of the last."""
    if case.weights:
        model: Any = LlamaForCausalLM.from_pretrained(cases.MODELS / case.weights, dtype=torch.float32)
    else:
        model = LlamaForCausalLM(llama_config(case))
    model.generation_config.eos_token_id = None
    prompts = torch.tensor(cases.tokens(case, case.batch, case.prompt))
    seconds = []
    for _ in range(case.warm_up + case.steps):
        start = time.perf_counter()
        written = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=case.response, do_sample=False
        )
        seconds.append(time.perf_counter() - start)
    return seconds[case.warm_up :], written[:, case.prompt :].tolist()


def main(case_file: str, result_file: str) -> None:
    torch.set_num_threads(cases.THREADS)
    seconds, ids = generate(cases.from_dict(json.loads(Path(case_file).read_text())))
    versions = {name: version(name) for name in ("torch", "transformers")}
    Path(result_file).write_text(json.dumps({"seconds": seconds, "ids": ids, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
