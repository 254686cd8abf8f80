"""Run an encoder-decoder case with TRL 0.11's PPOTrainer, the last that has one: generate, score, step.

`trl_encoder_decoder.py CASE.json RESULT.json` writes the seconds of each timed step.
"""

import itertools
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import cases
from cases import Case

cases.limit_threads()

import torch  # noqa: E402 - the processors are chosen before torch starts
from transformers import T5Config, T5ForConditionalGeneration, T5Model  # noqa: E402
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer  # noqa: E402
from trl_side import tokenizer  # noqa: E402

START = 0


class RewardModel(torch.nn.Module):
    """A T5 with a scalar head, read at the decoder's last token."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.trunk = T5Model(config)
        self.head = torch.nn.Linear(config.d_model, 1)

    def forward(self, queries: list[torch.Tensor], responses: list[torch.Tensor]) -> torch.Tensor:
        """Scores [batch]; a response begins with the decoder's start token, as `generate` returns it."""
        read = self.trunk(input_ids=torch.stack(queries), decoder_input_ids=torch.stack(responses))
        return self.head(read.last_hidden_state[:, -1])[:, 0]


def t5_config(case: Case) -> T5Config:
    shape = case.shape
    return T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.embed,
        d_kv=shape.head_dim,
        d_ff=shape.mlp,
        num_layers=shape.layers,
        num_decoder_layers=shape.decoder_layers,
        num_heads=shape.heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=None,
    )


def ppo_times(case: Case) -> list[float]:
    t5 = t5_config(case)
    config = PPOConfig(
        batch_size=case.batch,
        mini_batch_size=case.batch,
        ppo_epochs=case.epochs,
        learning_rate=3e-6,
        adap_kl_ctrl=False,
        init_kl_coef=0.05,
    )
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(T5ForConditionalGeneration(t5))
    reward_model = RewardModel(t5).eval()
    trainer = PPOTrainer(config, model, tokenizer=tokenizer(case))
    prompts = [torch.tensor(row) for row in cases.tokens(case, 4 * case.batch, case.prompt)]
    times = []
    for step in range(case.warm_up + case.steps):
        first = step % 4 * case.batch
        queries = prompts[first : first + case.batch]
        responses = trainer.generate(
            queries, batch_size=case.batch, max_new_tokens=case.response, do_sample=True, top_k=0, top_p=1.0
        )
        assert all(len(response) == 1 + case.response for response in responses)
        with torch.no_grad():
            scores = reward_model(queries, responses)
        trainer.step(queries, responses, list(scores))
        times.append(time.time())
    return times


def main(case_file: str, result_file: str) -> None:
    torch.set_num_threads(cases.THREADS)
    case = cases.from_dict(json.loads(Path(case_file).read_text()))
    seconds = [after - before for before, after in itertools.pairwise(ppo_times(case))]
    versions = {name: version(name) for name in ("trl", "torch", "transformers", "accelerate")}
    Path(result_file).write_text(json.dumps({"seconds": seconds[case.warm_up - 1 :], "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
