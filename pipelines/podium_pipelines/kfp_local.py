"""Let KFP's local orchestrator run container components as processes, in stable folders.

KFP 2.17 runs container components only under Docker and puts every run in a new time-stamped folder. Two names of
its own, looked up at call time, decide that; this module is the only place that replaces them (docs/decisions/0001).
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kfp
from kfp import components, local
from kfp.local import executor_input_utils, status, subprocess_task_handler

from podium.errors import UserError

SUPPORTED = "2.17."

Task = Callable[[str, Sequence[str], Mapping[str, str]], None]


def check_version(version: str) -> None:
    """Refuse a KFP whose internals this module does not know.

    Raises:
        UserError: The version is not 2.17.
    """
    if not version.startswith(SUPPORTED):
        raise UserError(f"podium run needs kfp 2.17 and found {version}; write: pip install 'kfp>=2.17,<2.18'")


def run_spec(spec: Path, root: Path, log: Path, task: Task) -> None:
    """Run a compiled pipeline with KFP's local orchestrator.

    Outputs go to `root`/TASK/OUTPUT, the same place in every run. `task` gets image, command and environment of each
    container and raises when it fails. KFP's own messages go to `log`.
    """
    check_version(kfp.__version__)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(contextlib.redirect_stdout(stack.enter_context(log.open("w", encoding="utf-8"))))
        stack.enter_context(_replaced(subprocess_task_handler, "SubprocessTaskHandler", _handler(task)))
        stack.enter_context(_replaced(executor_input_utils, "get_local_pipeline_resource_name", lambda name: ""))
        workspace = root / ".workspace"
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), workspace_root=str(workspace))
        components.load_component_from_file(str(spec))()


def _handler(task: Task) -> Callable[..., Any]:
    class Handler:
        def __init__(
            self,
            image: str,
            full_command: list[str],
            pipeline_root: str,
            runner: Any,
            env_vars: dict[str, str] | None = None,
        ) -> None:
            self.image, self.command, self.env = image, full_command, env_vars or {}

        def run(self) -> status.Status:
            task(self.image, self.command, self.env)
            return status.Status.SUCCESS

    return Handler


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)  # AttributeError, with both names in it, if KFP moved it
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
