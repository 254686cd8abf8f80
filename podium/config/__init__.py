"""The configuration of every phase: YAML in, one frozen model out, JSON Schema beside it."""

from podium.config.data import DataConfig, Source
from podium.config.load import load_config, load_config_data, load_config_text
from podium.config.model import MODEL_FILES, TOKENIZER_FILES, LoraConfig, ModelConfig
from podium.config.platform import STAGES, KubeflowConfig, MeshConfig, PlatformConfig, Resources, VertexConfig
from podium.config.ppo import CriticConfig, PpoConfig
from podium.config.root import PodiumConfig, deciding, json_schema, stage_config, stages_of
from podium.config.stages import EvaluationConfig, ExportConfig, GatesConfig, RewardConfig, SampleConfig, SftConfig

__all__ = [
    "MODEL_FILES",
    "STAGES",
    "TOKENIZER_FILES",
    "CriticConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "GatesConfig",
    "KubeflowConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "PlatformConfig",
    "PodiumConfig",
    "PpoConfig",
    "Resources",
    "RewardConfig",
    "SampleConfig",
    "SftConfig",
    "Source",
    "VertexConfig",
    "deciding",
    "json_schema",
    "load_config",
    "load_config_data",
    "load_config_text",
    "stage_config",
    "stages_of",
]
