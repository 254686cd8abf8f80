"""Whole stages by several pods of a TrainJob or JobSet, in the built image: what one pod leaves, and what ends them."""

from pathlib import Path

import pytest

from support.cluster import DataVolume, Job, PodGang
from support.gang import WHOLE
from support.outcome import BOUND, apart

STAGES = ("prepare", "reward", "ppo")


@pytest.fixture(scope="module")
def one(data: DataVolume, results: Path) -> Path:
    """Return what one pod leaves of all stages."""
    return run(PodGang(data, 1, "one"), results)


def run(gang: PodGang, results: Path, stages: tuple[str, ...] = WHOLE) -> Path:
    """Run stages one after another; returns a copy of what process 0 wrote."""
    for stage in stages:
        gang.run(stage)
    found = gang.data.fetch(gang.name, results)
    return found if gang.common else found / "0"


def copied(gang: PodGang, whole: str, *stages: str) -> None:
    """Give a gang what another one's stages left."""
    names = " ".join(f"/data/{whole}/{stage}" for stage in stages)
    script = f"mkdir -p /data/{gang.name} && cp -r {names} /data/{gang.name}"
    gang.data.cluster.kubectl("exec", "files", "--", "sh", "-c", script)


def test_two_pods_that_share_a_folder_leave_what_one_leaves(data: DataVolume, one: Path, results: Path) -> None:
    two = run(PodGang(data, 2, "two"), results)
    assert apart(one, two) <= BOUND
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(two / "export" / "model")
    assert all(bool(value.isfinite().all()) for value in model.parameters())


def test_two_pods_with_a_folder_each_leave_what_one_leaves(data: DataVolume, one: Path, results: Path) -> None:
    two = run(PodGang(data, 2, "own", common=False), results)
    assert apart(one, two) <= BOUND
    # What is not the first process's is not written at all.
    assert [path.name for path in two.parent.iterdir() if any(path.iterdir())] == ["0"]


def test_two_pods_of_a_job_set_leave_what_one_leaves(data: DataVolume, one: Path, results: Path) -> None:
    gang = PodGang(data, 2, "set", kind="jobset")
    copied(gang, "one", "prepare")
    run(gang, results, ("reward",))
    assert apart(one / "reward", results / "set" / "reward") <= BOUND


@pytest.mark.parametrize(("leader", "gently"), [(False, True), (False, False), (True, False)])
def test_a_pod_that_goes_starts_all_again_from_their_checkpoint(
    data: DataVolume, one: Path, results: Path, *, leader: bool, gently: bool
) -> None:
    steps = "ppo.max_steps=12"
    whole = PodGang(data, 2, "twelve")
    if not (results / "twelve").exists():
        copied(whole, "one", "prepare", "reward")
        run(whole, results, ())
        whole.run("ppo", steps)
        data.fetch("twelve", results)
    gang = PodGang(data, 2, f"gone-{int(leader)}{int(gently)}")
    copied(gang, "one", "prepare", "reward")
    job = gang.start("ppo", steps, "ppo.save_steps=1")
    data.cluster.wait("a checkpoint", lambda: steps_saved(gang) >= 2, seconds=240)
    victim = job.pods()[0 if leader else 1]["metadata"]["name"]
    data.cluster.kubectl("delete", "pod", victim, "--wait=false", *(() if gently else ("--grace-period=0", "--force")))
    assert job.ended(400) == "complete", job.logs()
    assert job.restarts() >= 1
    assert "step 1/" not in log_of(job)
    mine, theirs = data.fetch(gang.name, results), results / "twelve"
    weights = Path("ppo", "policy", "model.safetensors")
    assert (mine / weights).read_bytes() == (theirs / weights).read_bytes()


def steps_saved(gang: PodGang) -> int:
    """Return how many steps of PPO its metrics hold."""
    script = f"cat /data/{gang.name}/ppo/*/metrics.jsonl /data/{gang.name}/ppo/.*/metrics.jsonl 2>/dev/null | wc -l"
    return int(gang.data.cluster.kubectl("exec", "files", "--", "sh", "-c", script))


def log_of(job: Job) -> str:
    """Return what the first host's last pod printed."""
    return job.log(job.pods()[0])


def test_a_mistake_of_the_user_ends_all_at_once(data: DataVolume, one: Path) -> None:
    job = PodGang(data, 2, "wrong").start("reward", "data.preferences=absent.jsonl", "reward.max_steps=-3")
    assert job.ended(120) == "failed"
    assert job.restarts() == 0
    assert "max_steps" in job.logs()
