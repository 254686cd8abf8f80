"""Run inside an image: what has to be there is, what has no place in it is not, and nothing is compiled at a start."""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

PLUGINS = {"cuda": "jax_cuda12_plugin", "tpu": "libtpu"}
UNCHECKED_HASH = 1  # PEP 552: by hash, and the source is not looked at


def is_there(name: str) -> bool:
    """Say whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def check_launcher() -> None:
    """Start a stage on several hosts, and hold nothing numerical."""
    importlib.import_module("podium_pipelines.multihost.task")
    assert not [name for name in ("jax", "kfp", "numpy", "torch") if is_there(name)]


def check_trainer(kind: str) -> None:
    """Import every stage, compute with JAX, and hold the accelerator's plugin and no other."""
    import jax

    import podium.stages

    for module in pkgutil.iter_modules(podium.stages.__path__):
        importlib.import_module(f"podium.stages.{module.name}")
    assert float(jax.jit(lambda x: x + 1)(jax.numpy.float32(1))) == 2
    assert {name for name in PLUGINS if is_there(PLUGINS[name])} == PLUGINS.keys() & {kind}
    assert not [name for name in ("kfp", "torch", "pytest") if is_there(name)]


def checked_bytecode() -> list[str]:
    """Return the loaded modules whose bytecode is not there, or would be compared with the source."""
    files = {module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)}
    wrong = []
    for file in sorted(name for name in files if name.endswith(".py")):
        bytecode = Path(importlib.util.cache_from_source(file))
        if not bytecode.exists() or bytecode.read_bytes()[4] != UNCHECKED_HASH:
            wrong.append(file)
    return wrong


kind = sys.argv[1]
if kind == "launcher":
    check_launcher()
else:
    check_trainer(kind)
for name in ("gcsfs", "s3fs"):
    importlib.import_module(name)
wrong = checked_bytecode()
assert not wrong, f"{len(wrong)} modules are compiled at each start, such as {wrong[0]}"
