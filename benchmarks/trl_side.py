"""Run one case with TRL's own trainer and write the seconds of each timed step: `trl_side.py CASE.json RESULT.json`."""

import itertools
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cases
from cases import Case

cases.limit_threads()

import torch  # noqa: E402 - the processors are chosen before torch starts
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Clock(TrainerCallback):
    """Note when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.time())


def llama_config(case: Case) -> LlamaConfig:
    shape = case.shape
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.embed,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.mlp,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        num_labels=1,
    )


def tokenizer(case: Case) -> PreTrainedTokenizerFast:
    """One word per id; padding and end stand outside the model's vocabulary, so that nothing samples them."""
    words = {f"w{index}": index for index in range(case.shape.vocabulary)}
    backend = Tokenizer(models.WordLevel({**words, "[PAD]": len(words), "[EOS]": len(words) + 1}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]", unk_token="w0", padding_side="left"
    )


def common(case: Case, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": case.batch,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def ppo_times(case: Case, folder: str) -> list[float]:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    config = PPOConfig(
        **common(case, folder),
        total_episodes=(case.warm_up + case.steps) * case.batch,
        response_length=case.response,
        temperature=1.0,
        num_ppo_epochs=case.epochs,
        num_mini_batches=1,
        num_sample_generations=0,
        logging_steps=1,
        lr_scheduler_type="constant",
    )
    llama = llama_config(case)
    adapters: dict[str, Any] = {}
    if case.lora:
        adapters = {"peft_config": lora_config(case)}
    clock = Clock()
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer(case),
        model=LlamaForCausalLM(llama),
        ref_model=None if case.lora else LlamaForCausalLM(llama),
        reward_model=LlamaForSequenceClassification(llama),
        value_model=LlamaForSequenceClassification(llama),
        train_dataset=Dataset.from_dict({"input_ids": cases.tokens(case, 4 * case.batch, case.prompt)}),
        callbacks=[clock],
        **adapters,
    )
    trainer.train()
    return clock.times


def lora_config(case: Case) -> Any:
    from peft import LoraConfig

    assert case.lora is not None
    layers = None
    if case.lora.layers is not None:
        layers = list(range(case.shape.layers - case.lora.layers, case.shape.layers))
    return LoraConfig(
        r=case.lora.r,
        lora_alpha=case.lora.alpha,
        target_modules=PROJECTIONS,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def reward_times(case: Case, folder: str) -> list[float]:
    from trl import RewardConfig, RewardTrainer

    config = RewardConfig(
        **common(case, folder), max_steps=case.warm_up + case.steps, learning_rate=1e-4, logging_steps=10
    )
    rows = cases.pairs(case, 4 * case.batch)
    columns = {
        "chosen_ids": [prompt + chosen for prompt, chosen, _ in rows],
        "rejected_ids": [prompt + rejected for prompt, _, rejected in rows],
    }
    clock = Clock()
    RewardTrainer(
        model=LlamaForSequenceClassification(llama_config(case)),
        args=config,
        processing_class=tokenizer(case),
        train_dataset=Dataset.from_dict(columns),
        callbacks=[clock],
    ).train()
    return clock.times


def main(case_file: str, result_file: str) -> None:
    torch.set_num_threads(cases.THREADS)
    case = cases.from_dict(json.loads(Path(case_file).read_text()))
    with tempfile.TemporaryDirectory() as folder:
        times = (ppo_times if case.kind == "ppo" else reward_times)(case, folder)
    seconds = [after - before for before, after in itertools.pairwise(times)]
    versions = {name: version(name) for name in ("trl", "torch", "transformers", "peft", "accelerate")}
    Path(result_file).write_text(json.dumps({"seconds": seconds[case.warm_up - 1 :], "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
