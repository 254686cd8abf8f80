"""`platform.env` and `platform.secrets`: the environment of every task and pod, and what pulls its image."""

from typing import Any

from kfp import dsl, kubernetes

from podium.config import PodiumConfig
from podium.errors import UserError


def apply_environment(task: dsl.PipelineTask, config: PodiumConfig, target: str) -> None:
    """Give a task the variables and secrets of the config, and what pulls its image.

    Raises:
        UserError: The target has no such secrets.
    """
    for name, value in config.platform.env.items():
        task.set_env_variable(name, value)
    if target == "kubeflow":
        if config.platform.kubeflow.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(config.platform.kubeflow.image_pull_secrets))
        for secret, keys in config.platform.secrets.items():
            kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env=dict(keys))
    elif target == "vertex" and config.platform.secrets:
        raise UserError(
            "platform.secrets: Vertex AI has no Kubernetes secrets; leave them out and give the service account the "
            "rights on what the tasks read"
        )


def pod_environment(config: PodiumConfig) -> list[dict[str, Any]]:
    """Return the same as a pod has it."""
    plain = [{"name": name, "value": value} for name, value in config.platform.env.items()]
    secret = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        for name, keys in config.platform.secrets.items()
        for key, variable in keys.items()
    ]
    return [*plain, *secret]
