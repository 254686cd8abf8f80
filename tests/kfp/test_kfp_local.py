"""The two names of KFP's own that the local run replaces are where they are looked for."""

import inspect

import kfp
import pytest
from kfp.local import executor_input_utils, pipeline_orchestrator, subprocess_task_handler, task_dispatcher

from podium.errors import UserError
from podium_pipelines.kfp_local import _replaced, check_version


def test_installed_kfp_is_the_one_that_is_known() -> None:
    check_version(kfp.__version__)
    assert kfp.__version__.startswith("2.17.")


@pytest.mark.parametrize("version", ["2.18.0", "2.16.1", "3.0", "2.170.0"])
def test_another_kfp_is_refused_with_what_to_install(version: str) -> None:
    with pytest.raises(UserError, match=rf"needs kfp 2.17 and found {version}; write: pip install 'kfp>=2.17,<2.18'"):
        check_version(version)


def test_the_replaced_names_are_looked_up_when_called() -> None:
    """Fail when KFP moves them: the replacement would then have no effect, and stock behaviour would come back."""
    assert inspect.isclass(subprocess_task_handler.SubprocessTaskHandler)
    assert callable(executor_input_utils.get_local_pipeline_resource_name)
    dispatch = inspect.getsource(task_dispatcher.run_single_task_implementation)
    assert "subprocess_task_handler.SubprocessTaskHandler" in dispatch
    orchestrate = inspect.getsource(pipeline_orchestrator._run_local_pipeline_implementation)
    assert "executor_input_utils.get_local_pipeline_resource_name(" in orchestrate


def test_a_name_is_put_back_even_after_a_failure() -> None:
    before = subprocess_task_handler.SubprocessTaskHandler
    with pytest.raises(KeyError), _replaced(subprocess_task_handler, "SubprocessTaskHandler", None):
        assert subprocess_task_handler.SubprocessTaskHandler is None
        raise KeyError
    assert subprocess_task_handler.SubprocessTaskHandler is before


def test_a_name_that_moved_is_an_error() -> None:
    with (
        pytest.raises(AttributeError, match=r"kfp\.local\.subprocess_task_handler.*MovedHandler"),
        _replaced(subprocess_task_handler, "MovedHandler", None),
    ):
        pass
