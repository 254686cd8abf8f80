"""Settings of every test: eight CPU devices, strict dtypes, no rank promotion, warnings are errors."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Before the first import of jax and of anything that starts threads: tests never touch an accelerator or a network.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests compile many small programs and run each a few times: compiling is most of their time, optimisation more than
# half of that, and the emitters that go through MLIR half of the rest. Subprocesses inherit it. A test of what users'
# programs do asks for their options: support.tiny.OPTIMISED. A user's own flags come last, where XLA lets them win.
if "--xla_cpu_use_fusion_emitters" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join(
        ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false", os.environ.get("XLA_FLAGS", ""))
    ).strip()

# What one process has compiled, the others of the same run load: many start the same tiny stages.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED = tempfile.mkdtemp(prefix="podium-compiled-")
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# One seed, no time limit, no example database: a loaded machine and a fresh one see the same examples.
hypothesis.settings.register_profile("podium", deadline=None, derandomize=True, database=None, max_examples=40)
hypothesis.settings.load_profile("podium")

THIRD_PARTY_WARNINGS = (
    # torch, kfp, google and protobuf warn about their own insides; a warning of ours names a podium module.
    "ignore::DeprecationWarning:(?!podium).*",
    "ignore::PendingDeprecationWarning:(?!podium).*",
    "ignore::FutureWarning:(?!podium).*",
    "ignore::ImportWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    """Turn warnings into errors, except those that other libraries raise about themselves."""
    config.addinivalue_line("filterwarnings", "error")
    for line in THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: nobody reads them in a test's name, and pytest-xdist stops where names differ.

    Each of its processes collects the tests itself, and a compressed or signed parameter may hold the time of day.
    """
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data sets, or skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PODIUM_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: name its folder in PODIUM_DATA to run this test")
    return folder
