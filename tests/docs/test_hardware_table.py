"""README's table of memory follows from the shapes of published models."""

import re

import pytest

from support import documents

# Bytes of a parameter: one frozen float32 copy; or policy and critic with gradient and moments, and two frozen ones.
ADAPTERS, ALL_WEIGHTS = 4, 2 * 16 + 2 * 4
# The sums that the Hugging Face Hub shows for the safetensors files; test_published_sizes.py builds them.
PARAMETERS = {
    "SmolLM2-135M": 134_515_008,
    "google/flan-t5-large": 783_150_080,
    "google/gemma-2b": 2_506_172_416,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "google/flan-t5-xxl": 11_135_332_352,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "google/gemma-2-27b": 27_227_128_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
}
ROW = re.compile(r"^\| (\S+) \| ([\d.,]+) \| ([\d.,]+) \| .+ \|$", re.MULTILINE)


def test_every_row_is_the_bytes_of_its_parameters() -> None:
    rows = {name: figures for name, *figures in ROW.findall((documents.ROOT / "README.md").read_text("utf-8"))}
    assert rows.keys() == PARAMETERS.keys()
    for name, figures in rows.items():
        shown = [float(figure.replace(",", "")) for figure in figures]
        expected = [PARAMETERS[name] * size / 1e9 for size in (ADAPTERS, ALL_WEIGHTS)]
        assert shown == pytest.approx(expected, rel=0.02, abs=0.05), name
