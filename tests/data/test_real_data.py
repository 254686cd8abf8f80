"""Real files, where they are: every row is read or refused for a known reason."""

from collections import Counter

import pytest

from podium.data.demonstrations import read_demonstration
from podium.data.fields import Refused
from podium.data.formats import read_preference
from podium.data.prompts import read_prompt
from podium.data.sources import read_rows


def read_all(path, read):
    records, refused = [], Counter()
    for row in read_rows(str(path)):
        try:
            records.append(read(row.values))
        except Refused as reason:
            refused[reason.kind] += 1
    return records, refused


@pytest.mark.parametrize(
    ("name", "records", "refused"),
    [
        ("hh-rlhf/train.jsonl.gz", 3273, {"diverging_conversations": 9}),
        ("hh-rlhf/test.jsonl.gz", 618, {"diverging_conversations": 3}),
        ("kwise/qa_feedback.jsonl.gz", 387, {}),
        ("kwise/oasst.jsonl", 156, {}),
        ("kwise/topical_chat.jsonl", 50, {"identical": 1}),
        ("kwise/pandalm.jsonl", 88, {"empty": 1}),
        ("politeness-pairs/pairs.jsonl", 1094, {}),
    ],
)
def test_comparisons(data_dir, name, records, refused):
    found, reasons = read_all(data_dir / name, read_preference)
    assert (len(found), reasons) == (records, refused)
    assert all(record.prompt[-1]["role"] == "user" for record in found)


def test_replies_of_transcripts_hold_no_turns(data_dir):
    found, _ = read_all(data_dir / "hh-rlhf/test.jsonl.gz", read_preference)
    texts = [text for record in found for text in (*record.responses, *(turn["content"] for turn in record.prompt))]
    assert not any("\n\nHuman:" in text or "\n\nAssistant:" in text for text in texts)
    assert max(len(record.prompt) for record in found) > 5


def test_ranks_are_the_order_of_the_completions(data_dir):
    found, _ = read_all(data_dir / "kwise/oasst.jsonl", read_preference)
    assert {len(record.responses) for record in found} == {2, 3, 4, 5, 6, 8, 9}
    assert all(record.ranks == sorted(record.ranks) and record.ranks[0] == 1 for record in found)


@pytest.mark.parametrize(("name", "records"), [("dialogue", 3583), ("continuation", 2088)])
def test_prompts(data_dir, name, records):
    found, reasons = read_all(data_dir / f"ppo-prompts/{name}.jsonl.gz", read_prompt)
    assert (len(found), reasons) == (records, {})
    assert len({record.id for record in found}) == records


def test_demonstrations(data_dir):
    found, reasons = read_all(data_dir / "sft/demonstrations.jsonl.gz", read_demonstration)
    assert (len(found), reasons) == (3219, {})
    assert len({record.id for record in found}) == 3219
    assert all(record.prompt[-1]["role"] == "user" and record.response.strip() for record in found)
    assert {len(record.prompt) for record in found} > {1, 3}
