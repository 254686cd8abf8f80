"""What a plan is asked, and its answer: from the cache, or from a process that measures. Imports nothing heavy."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config import PodiumConfig
from podium.errors import UserError, expanded, install
from podium.planning.topology import Topology
from podium.storage.files import write_text
from podium.version import __version__

Say = Callable[[str], None]
# What libtpu reads before JAX starts: there is no TPU to look for, nobody to ask about it, and two processes may
# compile at once.
FOR_TPU = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Flags for a processor's or a GPU's compiler change no program for a TPU; one that it does not know would end it.
_DROPPED = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
# Every layout of an array that XLA could not keep is a copy of it on every chip.
_RELAID = "Involuntary full rematerialization"


@dataclass(frozen=True)
class Request:
    """A stage of a config on some chips. models: the content of config.json, by "policy" and "reward"."""

    stage: str
    config: PodiumConfig
    models: Mapping[str, Mapping[str, Any]]
    topology: Topology
    sweep: bool = False

    def data(self) -> dict[str, Any]:
        """Give it as the process reads it."""
        return {
            "stage": self.stage,
            "config": self.config.model_dump(mode="json"),
            "models": dict(self.models),
            "topology": self.topology.name,
            "shape": list(self.topology.shape),
            "slices": self.topology.slices,
            "sweep": self.sweep,
        }

    def digest(self) -> str:
        """Name what the answer depends on: settings that reach the program, models, chips, and what computes it."""
        data = self.data()
        config = data.pop("config")
        parts = {name: config[name] for name in ("model", "reward", self.stage)}
        parts |= {"mesh": config["platform"]["mesh"]}
        parts |= {name: config["data"][name] for name in ("max_prompt_length", "max_length")}
        # Their contents are in `models`, wherever they lie.
        parts["model"] = {"dtype": parts["model"]["dtype"]}
        libraries = {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")}
        text = json.dumps([data, parts, libraries, __version__, _sources()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _version(distribution: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def _sources() -> str:
    """Digest the package's own source: between two versions, what it compiles changes with it."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return where answers are kept: PODIUM_CACHE, XDG_CACHE_HOME/podium or ~/.cache/podium, and there `plans`."""
    if own := os.environ.get("PODIUM_CACHE"):
        return Path(own) / "plans"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expanded("~") / ".cache") / "podium" / "plans"


def answer(request: Request, say: Say) -> dict[str, Any]:
    """Answer from the cache, else measure and keep the answer. Raises UserError for what cannot be planned."""
    file = cache_folder() / f"{request.digest()}.json"
    # One that was cut off, or is of no use for another reason, is made again.
    with contextlib.suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept | {"cached": True}
    found = _measure(request, say)
    # A plan is worth having where no cache can be kept.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(found))
    return found | {"cached": False}


def _measure(request: Request, say: Say) -> dict[str, Any]:
    """Let a process of its own measure: the compiler's environment must be there before JAX starts."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED} | {"JAX_PLATFORMS": "cpu"}
    if request.topology.is_tpu:
        if _version("libtpu") is None:
            raise UserError(f"planning for TPUs needs their compiler, libtpu, which is not installed; {install('tpu')}")
        environment |= FOR_TPU
    command = [sys.executable, "-m", "podium.planning.worker"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment) as process:
            try:
                last = _listen(process, request, say)
            finally:
                process.kill()
        log.seek(0)
        return _checked(last, process.returncode, log.read())


def _listen(process: "subprocess.Popen[str]", request: Request, say: Say) -> dict[str, Any]:
    """Send the request, pass on what is said, return the last line."""
    assert process.stdin is not None and process.stdout is not None, "pipes were asked for"
    with contextlib.suppress(BrokenPipeError):
        json.dump(request.data(), process.stdin)
        process.stdin.close()
    last: dict[str, Any] = {}
    for line in process.stdout:
        last = json.loads(line)
        if "say" in last:
            say(last["say"])
    process.wait()
    return last


def _checked(last: dict[str, Any], code: int, log: str) -> dict[str, Any]:
    if "error" in last:
        raise UserError(last["error"])
    if "measured" in last or "sweep" in last:
        return last | {"relaid": log.count(_RELAID)}
    if code == -9:
        raise UserError("the planning process was killed (signal 9), most likely for want of memory; free some")
    raise RuntimeError(f"the planning process ended with {code} and no answer:\n{log[-4000:]}")
