"""One typed Kubeflow component per phase of RLHF."""

from podium_components._command import PROGRAM
from podium_components.stages import evaluate, export, gates, ppo, prepare, reward, sample, sft

__all__ = ["PROGRAM", "evaluate", "export", "gates", "ppo", "prepare", "reward", "sample", "sft"]
