"""Run a stage once: skip it where its outputs are complete, put away what another config left, end with manifests."""

import hashlib
import importlib
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from podium.config import (
    MODEL_FILES,
    STAGE_TABLE,
    TOKENIZER_FILES,
    PodiumConfig,
    StageSpec,
    deciding,
    paths,
    stage_config,
)
from podium.errors import UserError
from podium.models.weights.identity import model_digest
from podium.parallel import compiled, distributed
from podium.stages.batch import with_batch
from podium.stages.compiled import place_of_programs
from podium.stages.found import Output, look
from podium.stages.io import Result, StageIO
from podium.stages.manifest import (
    MODEL,
    REWARD_MODEL,
    WORK,
    Manifest,
    content_digest,
    task_key,
    versions,
    without_known_names,
    write_manifest,
)
from podium.stages.outputs import Earlier, differences, held, make_room, refuse_foreign
from podium.stages.places import refuse_overlaps
from podium.storage import remote
from podium.storage.failures import full_disk, is_full_disk

_MOST_DIFFERENCES = 3
# Stores that Orbax or TensorStore write themselves.
_KEEPS_WORK = ("gs://", "s3://")
# Seconds in which process 0 reads or writes all digests of large models.
_WRITING_S = 3600.0
Say = Callable[[str], None]


def run_stage(
    stage: str,
    config: PodiumConfig,
    io: StageIO,
    *,
    run: Callable[[PodiumConfig, StageIO], Result] | None = None,
    earlier: Earlier = "keep",
    say: Say = print,
) -> tuple[Result, bool]:
    """Run `podium.stages.<stage>.run`, or take what an equal run left; return its result and whether it was skipped.

    `run` stands in for the stage in tests. `earlier` says what becomes of the result of another config.

    Raises:
        UserError: An input or output cannot be used, or the disk is full; no manifest is written then.
    """
    settings = with_batch(stage, stage_config(config, stage))
    if settings.get(stage, {}) is None:
        raise UserError(f"podium {stage}: the configuration has no section {stage}; {stage}: {{}} takes its defaults")
    names = [name for name in STAGE_TABLE[stage].outputs if io.has_output(name)]
    refuse_overlaps(io, {name: io.place(name) for name in names}, _reads(stage, config, io))
    task = _Task(stage, settings, io.input_digests() | outside(stage, config, io), io, names)
    io.common_work = task.common_work if earlier == "orchestrated" else None
    known = without_known_names(settings, task.digests)
    distributed.agree({"config": known, "inputs": dict(task.digests), "versions": versions()}, _apart)
    try:
        with ExitStack() as stack:
            # Outputs are process 0's: it looks at them, holds them and writes them, the others compute with it.
            done = distributed.lead(lambda: task.begin(stack, earlier, say), limit=_WRITING_S)
            if done is not None:
                return Result(**done), True
            program = run or importlib.import_module(f"podium.stages.{stage}").run
            if not task.spec.uses_devices:
                # One process does it; the others wait for as long as it takes.
                alone = distributed.lead(lambda: task.finish(program(config, io)), limit=math.inf)
                return Result(**alone), False
            programs = place_of_programs(config, io, task.folders, say)
            with distributed.folder_of_followers() as folder:
                with compiled.kept_in(programs, say):
                    result = program(config, io if folder is None else io.aside(folder))
                return Result(**distributed.lead(lambda: task.finish(result), limit=_WRITING_S)), False
    except UserError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise full_disk(io.output(names[0]).parent if names else "this machine", error) from error
        raise


@dataclass(frozen=True)
class _Task:
    """A stage with everything that decides its results."""

    stage: str
    settings: Mapping[str, Any]
    digests: Mapping[str, str]
    io: StageIO
    names: list[str]

    @property
    def spec(self) -> StageSpec:
        return STAGE_TABLE[self.stage]

    @property
    def folders(self) -> list[str]:
        return [name for name in self.names if name not in self.spec.files]

    @cached_property
    def key(self) -> str:
        return task_key(self.stage, self.settings, self.digests)

    @property
    def common_work(self) -> str | None:
        """Where a stage of a run on a cluster keeps checkpoints: its pod's disk is gone with the pod, the store is not.

        STORAGE/checkpoints/RUN/STAGE, of which another task has another part. None without these two variables, or
        where the store is none that checkpoints can be kept in.
        """
        storage, run = os.environ.get("STORAGE"), os.environ.get("RUN")
        if not (storage and run and self.spec.trains and storage.startswith(_KEEPS_WORK)):
            return None
        return f"{storage.rstrip('/')}/checkpoints/{run}/{self.stage}/{self.key[:16]}"

    def look(self) -> list[Output]:
        """Return the outputs as they are now."""
        return look(self.io, self.names, self.spec.files)

    def finished(self) -> Result | None:
        """Return the stored result where every output is sound and was made from the same config and inputs."""
        folders = [output for output in self.look() if not output.is_file]
        if not folders or any(output.manifest is None or output.manifest.key != self.key for output in folders):
            return None
        last = folders[-1].manifest
        if last is None or any(output.damage() for output in folders):
            return None
        if any(not _same_file(self.io, name, last) for name in self.names if name in self.spec.files):
            return None
        return Result(dict(last.metrics), {name: dict(values) for name, values in last.metadata.items()})

    def begin(self, stack: ExitStack, earlier: Earlier, say: Say) -> dict[str, Any] | None:
        """Return the result where there is one; else hold the outputs while `stack` is open, and make room in them."""
        if earlier != "orchestrated":
            refuse_foreign(self.look())
        if (done := self.finished()) is not None:
            say(f"podium {self.stage}: complete for this config and these inputs; nothing to do")
            return asdict(done)
        stack.enter_context(held(self.look()))
        # Whoever held them may have finished just this.
        if (done := self.finished()) is not None:
            return asdict(done)
        _say_why(self, say)
        resume = self.settings.get(self.stage, {}).get("resume") != "never"
        if self.io.common_work and not resume:
            remote.remove(self.io.common_work)
        make_room(self.look(), self.key, resume=resume, earlier=earlier, say=say)
        return None

    def finish(self, result: Result) -> dict[str, Any]:
        """Write metrics, describe every output, copy them to their URIs, and remove work in progress."""
        if "metrics" in self.names:
            self.io.write_metrics(result.metrics)
        siblings = {name: self.io.output(name) for name in self.names if name in self.spec.files}
        missing = [name for name in self.names if not self.io.output(name).exists()]
        if missing:
            raise RuntimeError(f"stage {self.stage} wrote no output {', '.join(missing)}")
        for name in siblings:
            self.io.publish(name)
        for name in self.folders:
            write_manifest(
                self.io.output(name),
                stage=self.stage,
                config=self.settings,
                inputs=self.digests,
                siblings=siblings,
                metrics=result.metrics,
                metadata=result.metadata,
            )
            self.io.publish(name)
        # Last: until all of them are complete, a run that is killed here goes on from its last checkpoint.
        for name in self.folders:
            shutil.rmtree(self.io.output(name) / WORK, ignore_errors=True)
            if remote.is_remote(place := self.io.place(name)):
                remote.remove(f"{place.rstrip('/')}/{WORK}")
        if self.io.common_work:
            remote.remove(self.io.common_work)
        return asdict(result)


def _apart(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Say in what another process's task differs from that of process 0."""
    changed = [*differences(first["config"], other["config"])]
    changed += [f"{name} has other contents" for name in _other(first["inputs"], other["inputs"])]
    changed += [
        f"{name} {first['versions'].get(name)} -> {version}"
        for name, version in other["versions"].items()
        if first["versions"].get(name) != version
    ]
    return ", ".join(changed[:_MOST_DIFFERENCES])


def _say_why(task: _Task, say: Say) -> None:
    """Say why a result that is there is not taken as it is."""
    for output in task.look():
        if output.manifest is None:
            continue
        if output.manifest.key == task.key:
            if (damage := output.damage()) is not None:
                say(f"podium {task.stage}: {damage}; it is made again")
                return
            continue
        changed = [*differences(deciding(output.manifest.config), deciding(task.settings))]
        changed += [f"{one} has other contents" for one in _other(output.manifest.inputs, task.digests)]
        more = len(changed) - _MOST_DIFFERENCES
        shown = [*changed[:_MOST_DIFFERENCES], *([f"{more} more"] if more > 0 else [])]
        say(f"podium {task.stage}: {', '.join(shown) or 'another version of the stage'}: it is made again")
        return


def _other(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _same_file(io: StageIO, name: str, manifest: Manifest) -> bool:
    """Tell whether an output that is one file is as a sibling's manifest describes it."""
    place, entry = io.place(name), manifest.siblings.get(name)
    if entry is None:
        return False
    if remote.is_remote(place):
        content = remote.read_bytes(place)
        return content is not None and hashlib.sha256(content).hexdigest() == entry["sha256"]
    path = io.output(name)
    return path.is_file() and content_digest(path) == entry["sha256"]


def _models(stage: str, config: PodiumConfig, io: StageIO) -> dict[str, str]:
    """Return the models that a stage reads beside its inputs, by where the config names them."""
    # An input `model` stands in for the configured one.
    models = {} if "model" in io.inputs else {MODEL: config.model.name_or_path}
    if stage == "reward" and config.reward.model is not None:
        models[REWARD_MODEL] = config.reward.model.name_or_path
    return models


def _reads(stage: str, config: PodiumConfig, io: StageIO) -> dict[str, str]:
    """Return the places of files that a stage reads beside its inputs, by what names them."""
    models = _models(stage, config, io)
    found = {name: place for name, place in models.items() if remote.is_remote(place) or Path(place).exists()}
    if STAGE_TABLE[stage].reads_data_files:
        files = sorted({file for source in config.data.files for file in paths.matches(source.path) or [source.path]})
        found |= {f"data: {file}": file for file in files}
    return found


def outside(stage: str, config: PodiumConfig, io: StageIO) -> dict[str, str]:
    """Return digests of what a stage reads beside its inputs: data files, models by path or URI."""
    found = {}
    # The tokenizer is all that reading data takes of a model.
    weights = not STAGE_TABLE[stage].reads_data_files
    for name, place in _models(stage, config, io).items():
        if remote.is_remote(place):
            # Under another name: the place of a model in a store stays in the key, adapters are loaded from there.
            found[f"files of {name}"] = remote.version_of(place, MODEL_FILES if weights else TOKENIZER_FILES)
        elif Path(place).is_dir():
            found[name] = model_digest(Path(place), weights=weights)
    if STAGE_TABLE[stage].reads_data_files:
        found |= {source.path: _source_digest(source.path) for source in config.data.files}
    return found


def _source_digest(path: str) -> str:
    """Return what changes when a data file does; the stage itself reports one that is missing."""
    if remote.is_remote(path):
        return remote.version_of(path)
    # A folder, a pipe or a device in place of a file is none of them: the stage says so, without reading it.
    return ",".join(content_digest(Path(file)) for file in paths.matches(path))
