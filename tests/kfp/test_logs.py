"""logs: the lines of the stages, without what KFP and Argo print around them."""

import pytest

from podium.errors import UserError
from podium_pipelines.stage_output import own_lines, why
from support.fake_kubernetes import FakeKubernetes, pod
from support.json_server import Answer, Request
from support.services import Service, run_in

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

# A pod's log as KFP's launcher and Argo leave it. The line of XLA is the stage's own.
AROUND = """\
time=2026-01-01T00:00:00.123Z level=INFO msg="capturing logs" argo=true
I0101 00:00:00.500000      19 main.go:139] Setting log level to: '1'
I0101 00:00:00.600000      19 launcher_v2.go:1190] executorInput={
  "inputs": {
    "parameterValues": {}
  }
}
{stage}
I0101 00:00:09.000000      19 launcher_v2.go:1230] ExecutorOutput: {
  "artifacts": {
    "metrics": {}
  }
}
I0101 00:00:09.100000      19 launcher_v2.go:206] publish success.
{"time":"2026-01-01T00:00:10Z","level":"INFO","msg":"sub-process exited","argo":true}
Error: exit status 1
"""
STAGE = [
    "podium reward: 40 pairs",
    "I0000 00:00:00.000000   99 service.cc:158] XLA service initialized",
    '{"a": "line of JSON"}',
    "}",
    "time=now, says the stage",
    "Error: exit status 1 is what I read",
]
LOG = AROUND.replace("{stage}", "\n".join(STAGE))


def test_only_the_stage_s_own_lines_are_kept() -> None:
    assert list(own_lines(LOG.splitlines())) == STAGE


def test_the_last_lines_stand_for_a_reason_where_podium_said_none() -> None:
    lines = [f"line {number}" for number in range(20)]
    assert why(lines) == tuple(lines[-8:])
    assert why([*lines, "podium: error: no", "after"]) == ("podium: error: no",)
    assert why(["podium: error: long ago", *lines]) == tuple(lines[-8:])
    assert why([]) == ()


def pods(*, running: str = "Succeeded") -> list[dict[str, object]]:
    return [
        pod("d", "reward", driver=True, log="I0101 00:00:00.500000      19 driver.go:1] cache\n"),
        pod("a", "reward", "Failed", log=LOG),
        pod("b", "reward", running, log="again\n"),
        pod("c", "ppo", "Pending"),
        pod("e", "sample", running, log="answers\n"),
    ]


@pytest.mark.parametrize("follow", [False, True])
def test_each_stage_and_attempt_has_a_heading(kubeflow: Service, cluster: FakeKubernetes, follow: bool) -> None:
    run_in(kubeflow, "SUCCEEDED")
    cluster.pods = pods()
    shown = kubeflow.on("logs", "run-0", *(["--follow"] if follow else [])).stdout.splitlines()
    # What runs at the same time is read at the same time.
    assert sorted(shown) == sorted(["== reward", *STAGE, "== reward: attempt 2", "again", "== sample", "answers"])
    assert shown[shown.index("== reward: attempt 2") + 1] == "again"
    assert cluster.requests[0].query["labelSelector"] == "pipeline/runid=run-0"


def test_one_stage_and_everything(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "RUNNING")
    cluster.pods = pods()
    assert kubeflow.on("logs", "run-0", "--stage", "sample").stdout == "== sample\nanswers\n"
    lines = kubeflow.on("logs", "run-0", "--all").stdout.splitlines()
    assert lines[0] == "== reward: driver"
    assert lines[2 : 3 + len(LOG.splitlines())] == ["== reward", *LOG.splitlines()]


def test_following_goes_on_to_pods_that_start_later(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "RUNNING")
    kubeflow.fake.states = (*["RUNNING"] * 5, "SUCCEEDED")
    cluster.pods = [pod("c", "ppo", "Pending")]
    looks = 0

    def later(request: Request) -> Answer:
        nonlocal looks
        looks += 1
        if looks == 3:
            cluster.pods = [pod("c", "ppo", log="step 1\n")]
        return cluster.route(request)

    assert cluster.server is not None
    cluster.server.route = later
    assert kubeflow.on("logs", "run-0", "--follow").stdout == "== ppo\nstep 1\n"


def test_a_stage_that_there_is_not(kubeflow: Service) -> None:
    error = kubeflow.on("logs", "run-0", "--stage", "train").exception
    assert isinstance(error, UserError)
    assert str(error).startswith("--stage train: there is no such stage; write one of prepare, ")


def test_a_run_that_has_not_begun_has_no_lines_yet(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "RUNNING")
    result = kubeflow.on("logs", "run-0")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Note: nothing is printed yet: no stage has started\n"


def test_a_pod_that_was_taken_away_meanwhile_has_no_lines(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "SUCCEEDED")
    cluster.pods = [pod("gone", "reward"), pod("b", "sample", log="answers\n")]
    cluster.gone = ("gone",)
    for follow in ([], ["--follow"]):
        assert "answers" in kubeflow.on("logs", "run-0", *follow).stdout


def test_vertex_says_why_and_where_the_rest_is(vertex: Service) -> None:
    vertex.fake.states = ("PENDING", "FAILED")
    vertex.submit()
    vertex.fake.looks = dict.fromkeys(vertex.fake.jobs, 1)
    (name,) = vertex.fake.jobs
    lines = vertex.on("logs", name).stdout.splitlines()
    assert lines[:2] == ["== reward", "out of quota"]
    assert lines[2].startswith("All output: gcloud logging read ")
    assert name.rsplit("/", 1)[1] in lines[2]
    assert len(vertex.on("logs", name, "--stage", "prepare").stdout.splitlines()) == 1
