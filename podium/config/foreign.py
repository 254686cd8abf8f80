"""Settings of other RLHF tools that do not exist here, and what does what they are for."""

_ELSEWHERE = {
    "report_to": "each training stage writes TensorBoard event files beside its metrics",
    "logging_dir": "each stage keeps its event files in its own output",
    "tensorboard": "each training stage writes TensorBoard event files beside its metrics",
    "wandb_project": "each training stage writes TensorBoard event files beside its metrics",
    "run_name": "name the run's folder with podium run --out",
    "output_dir": "name the run's folder with podium run --out, or a stage's outputs with --output",
    "dpo": "the algorithm here is PPO with a reward model; see ppo",
    "grpo": "the algorithm here is PPO with a critic; see ppo",
    "rloo": "the algorithm here is PPO with a critic; see ppo",
    "kto": "the algorithm here is PPO with a reward model; see ppo",
    "orpo": "the algorithm here is PPO with a reward model; see ppo",
    "beta": "PPO's weight of the KL penalty is ppo.kl_coef",
    "deepspeed": "parameters are shared over devices by platform.mesh (fsdp)",
    "fsdp_config": "parameters are shared over devices by platform.mesh (fsdp)",
    "accelerate": "devices are laid out by platform.mesh",
    "bf16": "write model.dtype: bfloat16",
    "fp16": "networks compute in model.dtype: bfloat16 or float32",
    "tf32": "networks compute in model.dtype: bfloat16 or float32",
    "use_vllm": "the policy answers in the training process itself",
    "vllm_mode": "the policy answers in the training process itself",
    "load_in_4bit": "frozen weights are stored in model.dtype; lora trains few others",
    "load_in_8bit": "frozen weights are stored in model.dtype; lora trains few others",
    "quantization": "frozen weights are stored in model.dtype; lora trains few others",
    "attn_implementation": "attention is that of the platform: splash on a TPU, cuDNN on a GPU",
    "use_flash_attention_2": "attention is that of the platform: splash on a TPU, cuDNN on a GPU",
    "gradient_checkpointing": "write remat: full, or dots, in the training section",
    "trust_remote_code": "no code of a model is ever run",
    "push_to_hub": "export writes a folder, which `hf upload` takes",
    "hub_model_id": "export writes a folder, which `hf upload` takes",
    "optim": "the optimizer is AdamW",
    "lora_dropout": "adapters have no dropout",
    "per_device_eval_batch_size": "evaluation.batch_size counts responses over all devices",
    "eval_steps": "the held-out data are read when a stage ends",
    "eval_strategy": "the held-out data are read when a stage ends",
    "evaluation_strategy": "the held-out data are read when a stage ends",
    "save_strategy": "checkpoints come every save_steps",
    "save_total_limit": "a stage keeps its last checkpoints alone, and none when it is complete",
    "dataloader_num_workers": "data are small and read by the stage itself",
    "world_size": "devices are laid out by platform.mesh",
    "num_gpus": "write platform.resources.STAGE.accelerator and count",
}


def foreign(key: str) -> str | None:
    """Say that a setting of other tools does not exist here, and what does instead; None for any other name."""
    name = key.lower().replace("-", "_")
    return f"does not exist here: {_ELSEWHERE[name]}" if name in _ELSEWHERE else None
