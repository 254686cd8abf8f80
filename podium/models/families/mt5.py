"""mT5: T5 1.1, whose head is never scaled."""

from podium.models.config import EncoderDecoderConfig
from podium.models.families.base import Family
from podium.models.families.options import Options
from podium.models.families.t5 import T5_DEFAULTS, T5Names, t5_config, t5_json


def _parse(options: Options, dtype: str) -> EncoderDecoderConfig:
    return t5_config(options, dtype, family="mt5", scales=False)


FAMILY = Family(
    parse=_parse,
    defaults=T5_DEFAULTS | {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
    write=t5_json,
    names=T5Names,
    architecture="MT5ForConditionalGeneration",
)
