"""The configuration of every phase: YAML in, one frozen model out, JSON Schema beside it."""

from typing import TYPE_CHECKING

from podium import lazy

if TYPE_CHECKING:
    from podium.config.data import DataConfig, Source
    from podium.config.load import load_config, load_config_data, load_config_text
    from podium.config.model import MODEL_FILES, TOKENIZER_FILES, LoraConfig, ModelConfig
    from podium.config.platform import KubeflowConfig, MeshConfig, PlatformConfig, Resources, VertexConfig
    from podium.config.ppo import CriticConfig, PpoConfig
    from podium.config.root import PodiumConfig, deciding, edges_of, json_schema, stage_config, stages_of
    from podium.config.stage_table import STAGE_TABLE, STAGES, StageSpec
    from podium.config.stages import EvaluationConfig, ExportConfig, GatesConfig, RewardConfig, SampleConfig, SftConfig

__all__ = [
    "MODEL_FILES",
    "STAGES",
    "STAGE_TABLE",
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
    "StageSpec",
    "VertexConfig",
    "deciding",
    "edges_of",
    "json_schema",
    "load_config",
    "load_config_data",
    "load_config_text",
    "stage_config",
    "stages_of",
]

# Who wants the stage table does not wait for pydantic.
__getattr__ = lazy.attributes(
    __name__,
    {
        "CriticConfig": "ppo",
        "DataConfig": "data",
        "EvaluationConfig": "stages",
        "ExportConfig": "stages",
        "GatesConfig": "stages",
        "KubeflowConfig": "platform",
        "LoraConfig": "model",
        "MODEL_FILES": "model",
        "MeshConfig": "platform",
        "ModelConfig": "model",
        "PlatformConfig": "platform",
        "PodiumConfig": "root",
        "PpoConfig": "ppo",
        "Resources": "platform",
        "RewardConfig": "stages",
        "STAGES": "stage_table",
        "STAGE_TABLE": "stage_table",
        "SampleConfig": "stages",
        "SftConfig": "stages",
        "Source": "data",
        "StageSpec": "stage_table",
        "TOKENIZER_FILES": "model",
        "VertexConfig": "platform",
        "deciding": "root",
        "edges_of": "root",
        "json_schema": "root",
        "load_config": "load",
        "load_config_data": "load",
        "load_config_text": "load",
        "stage_config": "root",
        "stages_of": "root",
    },
)
