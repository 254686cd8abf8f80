"""Which results of an earlier run a changed config, data file or model makes outdated, and why.

`podium run` asks before it starts a stage, with `podium changes REQUEST REPLY`, two files of JSON: it cannot import the
stages, which alone know what their results depend on, and may run them in a container.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from podium.config import STAGE_TABLE, PodiumConfig, deciding, edges_of, stage_config
from podium.config.data import FILE_FIELDS
from podium.stages.batch import with_batch
from podium.stages.found import Here, look
from podium.stages.io import StageIO
from podium.stages.manifest import task_key
from podium.stages.outputs import differences
from podium.stages.runner import outside
from podium.storage.files import write_text


def outdated(config: PodiumConfig, before: PodiumConfig | None, folder: Path) -> dict[str, list[str]]:
    """Return the stages whose results in a run folder are of no use to `config`, in order, each with the reasons.

    A stage that only comes after such a one has no reasons of its own. Work in progress counts as a result where it has
    checkpoints; `before` is the config of the last run, for its reasons. Results that are damaged, or are not there,
    have no part in this: the stage makes them again, and they are what they were.
    """
    found: dict[str, list[str]] = {}
    for stage, inputs in edges_of(config).items():
        outputs = look(StageIO.local(folder / stage), STAGE_TABLE[stage].outputs, STAGE_TABLE[stage].files)
        manifest = next((output.manifest for output in outputs if output.manifest is not None), None)
        begun = next((output.note for output in outputs if output.has_checkpoints), None)
        if manifest is None and begun is None:
            continue
        behind = any(place.partition("/")[0] in found for place in inputs.values())
        # An input that is not there will be made again, the same as before.
        known = manifest.inputs if manifest else {}
        digests = {name: _digest(folder / place) or known.get(name, "") for name, place in inputs.items()}
        digests |= outside(stage, config, StageIO({name: str(folder / place) for name, place in inputs.items()}, {}))
        settings = with_batch(stage, stage_config(config, stage))
        if not behind and task_key(stage, settings, digests) == (manifest.key if manifest else begun):
            continue
        old = manifest.config if manifest else with_batch(stage, stage_config(before, stage)) if before else settings
        reasons = [*differences(deciding(old), deciding(settings))]
        if manifest:
            reasons += _changed(config, manifest.inputs, digests, behind=behind)
        found[stage] = reasons if reasons or behind else [f"{stage} was begun for other inputs or settings"]
    return found


def _digest(artifact: Path) -> str:
    """Return the digest of an artifact, or "" of one that is not complete, or whose manifest is damaged."""
    manifest = Here(artifact.name, artifact, is_file=False).manifest
    return "" if manifest is None else manifest.digest


def _changed(config: PodiumConfig, before: Mapping[str, str], after: Mapping[str, str], *, behind: bool) -> list[str]:
    """Name what has the same name and other contents; `behind` a stage that is made again, only what comes from it."""
    # The name of the input that takes what sft wrote.
    sft = [
        f"sft {'added' if name in after else 'left out'}"
        for name in ("model", "base")
        if (name in before) != (name in after)
    ]
    if behind:
        return sft
    fields = {source.path: f"data.{field}" for field in FILE_FIELDS for source in getattr(config.data, field) or ()}
    names = {name: f"{fields[name]} ({name})" if name in fields else name for name in after}
    return sft + [f"{names[name]} changed on disk" for name in after if name in before and before[name] != after[name]]


def answer(request: Path, reply: Path) -> None:
    """Answer a request: {"config", "before", "folder"} -> what `outdated` gives."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    try:
        before = PodiumConfig.model_validate(asked["before"])
    except ValueError:  # of a version that had other keys
        before = None
    found = outdated(PodiumConfig.model_validate(asked["config"]), before, Path(asked["folder"]))
    write_text(reply, json.dumps(found))
