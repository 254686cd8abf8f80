"""What Argo says of stages that have no pod: a quota, or a rule of the namespace, keeps it from being made."""

from collections.abc import Iterable, Mapping
from typing import Any

from podium.config import STAGES


def by_stage(workflows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the message of each stage that has one.

    A stage is the node WORKFLOW.root.STAGE, with WORKFLOW.root.STAGE.executor below it and WORKFLOW.root.STAGE-driver
    before it; a try has its number behind, as in executor(0). The lowest node has the cause.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for workflow in workflows:
        for node in (workflow.get("status", {}).get("nodes") or {}).values():
            parts = [part.partition("(")[0].removesuffix("-driver") for part in node.get("name", "").split(".")]
            stage = next((part for part in parts[1:] if part in STAGES), None)
            if stage is not None and node.get("message"):
                found.setdefault(stage, []).append((len(parts), node["message"]))
    return {stage: max(said)[1] for stage, said in found.items()}
