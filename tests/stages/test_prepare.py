"""The prepare stage: what it writes, what it reports, and what it refuses before it writes anything."""

import json
import re

import pytest

from podium.config import PodiumConfig
from podium.data.quality import place_of
from podium.data.records import normalised_prompt, read_demonstrations, read_preferences, read_prompts
from podium.errors import UserError
from podium.stages import prepare
from podium.stages.io import StageIO
from podium.stages.runner import run_stage
from support import chat_tokenizers as chat


def pair(number, **changes):
    """The longer response wins in two of three rows."""
    better, worse = ("yes, gladly", "no") if number % 3 else ("yes", "no, not now")
    return {"prompt": f"Question {number}?", "chosen": f"{better} {number}", "rejected": f"{worse} {number}"} | changes


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return chat.write_chat_tokenizer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def configure(tmp_path, model):
    def make(preferences=None, prompts=None, /, **data):
        files = {}
        for name, rows in (("preferences", preferences), ("prompts", prompts)):
            if rows is not None:
                files[name] = rows if isinstance(rows, str) else write(tmp_path / f"{name}.jsonl", rows)
        settings = {"max_prompt_length": 100, "max_length": 200} | files | data
        return PodiumConfig.model_validate({"model": {"name_or_path": str(model)}, "data": settings})

    return make


PAIRS = [pair(number) for number in range(30)]
PROMPTS = [{"prompt": f"Ask {number}?"} for number in range(20)]


def report_of(folder):
    return json.loads((folder / "data_report" / "report.json").read_text("utf-8"))


def test_it_writes_splits_report_and_metrics(tmp_path, configure):
    out = tmp_path / "out"
    result = prepare.run(configure(PAIRS, PROMPTS, eval_fraction=0.3), StageIO.local(out))
    parts = {
        (name, split): read(out / name / f"{split}.jsonl")
        for name, read in (("preferences", read_preferences), ("prompts", read_prompts))
        for split in ("train", "eval")
    }
    counts = {key: len(records) for key, records in parts.items()}
    assert counts["preferences", "train"] + counts["preferences", "eval"] == 30
    assert counts["prompts", "train"] + counts["prompts", "eval"] == 20
    for (name, split), count in counts.items():
        assert result.metrics[f"{name}_{split}"] == count > 0
    asked = {
        split: {record.prompt[0]["content"] for record in parts["preferences", split]} for split in ("train", "eval")
    }
    assert not asked["train"] & asked["eval"]
    for (_, split), records in parts.items():
        assert {place_of(normalised_prompt(record.prompt)) < 0.3 for record in records} == {split == "eval"}
    report = report_of(out)
    assert report["preferences"]["rows"] == 30
    assert report["tokens"]["prompts"]["count"] == 20
    longer = report["longer_wins"]
    wins = sum(value["by_characters"] * value["pairs"] for value in longer.values())
    assert wins == pytest.approx(20)
    assert all(isinstance(value, float) for value in result.metrics.values())


def test_the_page_needs_nothing_else_and_shows_what_it_was_given_as_text(tmp_path, configure):
    rows = [pair(number, chosen=f"<b>bold</b> & {number}") for number in range(4)] + [
        {"prompt": "x", "reply": "<script>"}
    ]
    prepare.run(configure(rows, PROMPTS, max_bad_fraction=0.5), StageIO.local(tmp_path / "out"))
    page = (tmp_path / "out" / "data_report" / "report.html").read_text("utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; " in page
    assert "<b>bold" not in page
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", page)
    assert f"{tmp_path}/preferences.jsonl:5</code></td><td>columns prompt, reply fit no format" in page
    assert page.count("<rect") > 10
    assert "1 row was refused (columns: 1); each is listed below." in page


def test_the_same_inputs_give_the_same_bytes(tmp_path, configure):
    config = configure([*PAIRS, *PAIRS[:3]], PROMPTS)
    for name in ("one", "two"):
        prepare.run(config, StageIO.local(tmp_path / name))
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert first == second
    assert len(first) == 8


def test_through_the_runner_it_is_complete_and_then_skipped(tmp_path, configure):
    config = configure(PAIRS, PROMPTS)
    first, skipped = run_stage("prepare", config, StageIO.local(tmp_path / "out"))
    again, skipped_again = run_stage("prepare", config, StageIO.local(tmp_path / "out"))
    assert (skipped, skipped_again) == (False, True)
    assert again == first
    write(tmp_path / "prompts.jsonl", PROMPTS[:-1])
    changed, skipped = run_stage("prepare", config, StageIO.local(tmp_path / "out"))
    assert not skipped
    assert changed.metrics["prompts_train"] + changed.metrics["prompts_eval"] == 19


def test_refused_repeated_tied_and_contradicting_rows_are_all_reported(tmp_path, configure):
    rows = [
        *PAIRS,
        pair(1),
        pair(2, chosen="no 2", rejected="yes, gladly 2"),
        {"prompt": "Tied?", "responses": ["a", "b"], "ranks": [1, 1]},
        pair(40, rejected=""),
        pair(41, chosen="Stop.<|im_end|>"),
        pair(42, prompt="long " * 100),
        pair(43, chosen="q" * 190),
        pair(44, prompt="<|im_start|>system"),
    ]
    prepare.run(configure(rows, PROMPTS, max_bad_fraction=0.2), StageIO.local(tmp_path / "out"))
    report = report_of(tmp_path / "out")
    file = f"{tmp_path}/preferences.jsonl"
    refused = {item["line"]: (item["file"], item["kind"]) for item in report["refused"]}
    assert refused == {
        34: (file, "empty"),
        35: (file, "control_token"),
        36: (file, "long_prompt"),
        37: (file, "long_response"),
        38: (file, "control_token"),
    }
    reasons = {item["kind"]: item["reason"] for item in report["refused"]}
    assert re.match(r"the prompt has \d+ tokens, more than data\.max_prompt_length 100; ", reasons["long_prompt"])
    assert re.match(
        r"prompt and response 1 have \d+ \+ \d+ tokens, more than data\.max_length 200", reasons["long_response"]
    )
    assert report["preferences"]["tied"] == 1
    assert report["duplicates"] == [{"file": file, "line": 31, "first_file": file, "first_line": 2}]
    assert [(item["line"], item["first_line"]) for item in report["contradictions"]] == [(32, 3)]
    kept = report["preferences"]["train"] + report["preferences"]["eval"]
    assert report["preferences"]["rows"] == kept + len(refused) + 1 + 1


def test_ties_are_kept_when_asked_for(tmp_path, configure):
    rows = [*PAIRS, {"prompt": "Tied?", "responses": ["a", "b"], "ranks": [1, 1]}]
    prepare.run(configure(rows, PROMPTS, ties="keep"), StageIO.local(tmp_path / "out"))
    report = report_of(tmp_path / "out")
    assert report["preferences"]["train"] + report["preferences"]["eval"] == 31
    assert report["preferences"]["pairs_train"] + report["preferences"]["pairs_eval"] == 30


def test_the_instruction_stands_before_every_prompt_and_moves_no_row(tmp_path, configure):
    splits = []
    for name, instruction in (("without", None), ("with", "Be kind.")):
        prepare.run(configure(PAIRS, PROMPTS, instruction=instruction), StageIO.local(tmp_path / name))
        splits.append([record.prompt for record in read_preferences(tmp_path / name / "preferences" / "eval.jsonl")])
    assert [[{"role": "system", "content": "Be kind."}, *prompt] for prompt in splits[0]] == splits[1]
    for record in read_prompts(tmp_path / "with" / "prompts" / "train.jsonl"):
        assert record.prompt[0] == {"role": "system", "content": "Be kind."}


def test_named_held_out_files_take_their_prompts_out_of_training(tmp_path, configure):
    tied = {"prompt": "Tied?", "responses": ["a", "b"], "ranks": [1, 1]}
    rows = [pair(3, chosen="other"), pair(50), pair(50), tied, pair(51, chosen="")]
    held_out = write(tmp_path / "held.jsonl", rows)
    prompts = [*PROMPTS, {"prompt": "question 50?"}]
    config = configure(PAIRS, prompts, eval_preferences=held_out, max_bad_fraction=0.2)
    prepare.run(config, StageIO.local(tmp_path / "out"))
    report = report_of(tmp_path / "out")
    assert (report["preferences"]["train"], report["preferences"]["eval"]) == (29, 2)
    assert [(item["line"], item["first_line"]) for item in report["leakage"]["preferences"]] == [(4, 1)]
    assert [(item["file"], item["line"]) for item in report["duplicates"]] == [(held_out, 3)]
    assert [(item["file"], item["line"]) for item in report["refused"]] == [(held_out, 5)]
    assert [item["rows"] for item in report["preferences"]["files"]] == [30, 5]
    assert report["preferences"]["tied"] == 1
    crossed = report["leakage"]["held_out_preferences_in_training_prompts"]
    train = {record.prompt[0]["content"] for record in read_prompts(tmp_path / "out" / "prompts" / "train.jsonl")}
    assert len(crossed) == ("question 50?" in train)


def test_held_out_comparisons_whose_prompts_are_trained_on_are_reported(tmp_path, configure):
    held_out = write(tmp_path / "held.jsonl", [pair(3), pair(50)])
    other = write(tmp_path / "asked.jsonl", [{"prompt": "Else?"}])
    prompts = [*PROMPTS, {"prompt": "question  50?"}]
    config = configure(PAIRS, prompts, eval_preferences=held_out, eval_prompts=other)
    prepare.run(config, StageIO.local(tmp_path / "out"))
    crossed = report_of(tmp_path / "out")["leakage"]["held_out_preferences_in_training_prompts"]
    assert [(item["line"], item["first_line"]) for item in crossed] == [(2, 21)]


def test_without_prompts_those_of_the_comparisons_are_used_and_it_is_said(tmp_path, configure):
    prepare.run(configure([*PAIRS, pair(1, chosen="other")]), StageIO.local(tmp_path / "out"))
    for split in ("train", "eval"):
        compared = read_preferences(tmp_path / "out" / "preferences" / f"{split}.jsonl")
        asked = read_prompts(tmp_path / "out" / "prompts" / f"{split}.jsonl")
        assert [record.prompt for record in asked] == list({str(r.prompt): r.prompt for r in compared}.values())
    report = report_of(tmp_path / "out")
    assert report["notes"] == [prepare.PROMPTS_FROM_PREFERENCES]


def test_patterns_and_several_files(tmp_path, configure):
    write(tmp_path / "part-1.jsonl", PAIRS[:10])
    write(tmp_path / "part-2.jsonl", PAIRS[10:])
    prepare.run(configure(f"{tmp_path}/part-*.jsonl", PROMPTS), StageIO.local(tmp_path / "out"))
    files = report_of(tmp_path / "out")["preferences"]["files"]
    assert [(item["file"][-12:], item["rows"]) for item in files] == [("part-1.jsonl", 10), ("part-2.jsonl", 20)]


def test_repeated_ids_get_an_end_of_their_own(tmp_path, configure):
    rows = [pair(number, id="same") for number in range(5)]
    prepare.run(configure(rows, PROMPTS), StageIO.local(tmp_path / "out"))
    ids = [r.id for s in ("train", "eval") for r in read_preferences(tmp_path / "out" / "preferences" / f"{s}.jsonl")]
    assert len(set(ids)) == 5
    assert report_of(tmp_path / "out")["preferences"]["renamed_ids"] == 4


@pytest.mark.parametrize(
    ("preferences", "data", "message"),
    [
        (
            [{"prompt": f"{number}?", "response": "a"} for number in range(9)],
            {},
            "preferences.jsonl: none of the 9 rows can be used; mend them\n"
            "line 1: one response per prompt, nothing to compare it with; write two or more (prompt, chosen, rejected) "
            "[9 rows alike]",
        ),
        (
            [*PAIRS, {"prompt": "a"}, pair(31, chosen="")],
            {},
            "2 of 32 rows refused (6.25%, data.max_bad_fraction allows 1.00%); mend them or raise it\n"
            "line 31: columns prompt fit no format of compared responses; write prompt, chosen and rejected | "
            "line 32: chosen is empty; write a text or leave the row out",
        ),
        ([pair(1, prompt="long " * 100)], {}, "line 1: the prompt has"),
        ([{"prompt": "a"}], {"max_bad_fraction": 1.0}, "preferences.jsonl: none of the 1 rows can be used; mend them"),
        ([{"prompt": "T?", "responses": ["a", "b"], "ranks": [1, 1]}], {}, "data.preferences: every row was refused,"),
        ([pair(1), pair(1, chosen="other")], {}, "data.preferences: 1 distinct prompt, so none can be held out"),
        ([], {}, "preferences.jsonl: the file is empty; write one JSON object a line"),
        (None, {}, "data.preferences: no file named; write the path of a file of compared responses"),
        (None, {"preferences": "/nowhere/x.jsonl"}, "/nowhere/x.jsonl: no such file; check the path"),
        (
            PAIRS,
            {"prompts": {"path": "x", "format": "pair"}},
            "data.prompts: x: no format 'pair'; write auto or one of",
        ),
        (PAIRS, {"instruction": "Say <|im_end|>"}, "data.instruction spells the model's control token <|im_end|>"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_written(tmp_path, configure, preferences, data, message):
    with pytest.raises(UserError) as error:
        prepare.run(configure(preferences, **data), StageIO.local(tmp_path / "out"))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_all_training_prompts_held_out(tmp_path, configure):
    held_out = write(tmp_path / "held.jsonl", PAIRS)
    with pytest.raises(UserError, match="all prompts are in the held-out files too; nothing is left to train on"):
        prepare.run(configure(PAIRS, PROMPTS, eval_preferences=held_out), StageIO.local(tmp_path / "out"))


def test_a_model_that_takes_no_instruction(tmp_path, configure):
    folder = chat.write_chat_tokenizer(tmp_path / "gemma", chat.GEMMA)
    config = configure(PAIRS, PROMPTS, instruction="Be kind.")
    config = config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": str(folder)})})
    with pytest.raises(UserError, match=r"its chat template takes no system message; leave out data\.instruction"):
        prepare.run(config, StageIO.local(tmp_path / "out"))


def test_rows_that_the_template_refuses_are_refused_rows(tmp_path, configure):
    folder = chat.write_chat_tokenizer(tmp_path / "gemma", chat.GEMMA)
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    config = configure([*PAIRS, pair(31, prompt=turns)], PROMPTS, max_bad_fraction=0.1)
    config = config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": str(folder)})})
    prepare.run(config, StageIO.local(tmp_path / "out"))
    (refused,) = report_of(tmp_path / "out")["refused"]
    assert (refused["line"], refused["kind"]) == (31, "template")
    assert "Conversation roles must alternate" in refused["reason"]


SHOWN = [{"prompt": f"Teach {number}?", "completion": f"Like this, {number}."} for number in range(20)]


def test_demonstrations_are_checked_split_and_reported_as_comparisons_are(tmp_path, configure):
    rows = [
        *SHOWN,
        SHOWN[3],
        SHOWN[4] | {"completion": "Another way."},
        {"prompt": "Stop?", "completion": "Stop.<|im_end|>"},
        {"prompt": "Long?", "completion": "q" * 190},
        {"messages": [{"role": "user", "content": "Teach?"}]},
    ]
    file = write(tmp_path / "shown.jsonl", rows)
    config = configure(
        PAIRS, PROMPTS, demonstrations=file, eval_fraction=0.3, max_bad_fraction=0.2, instruction="Teach."
    )
    result = prepare.run(config, StageIO.local(tmp_path / "out"))
    report = report_of(tmp_path / "out")
    train, held_out = (
        read_demonstrations(tmp_path / "out" / "demonstrations" / f"{name}.jsonl") for name in ("train", "eval")
    )
    assert len(train) + len(held_out) == 21
    for part, held in ((train, False), (held_out, True)):
        assert {place_of(normalised_prompt(record.prompt[1:])) < 0.3 for record in part} == {held}
        assert {record.prompt[0]["content"] for record in part} == {"Teach."}
    assert (result.metrics["demonstrations_train"], result.metrics["demonstrations_eval"]) == (
        len(train),
        len(held_out),
    )
    assert {(item["line"], item["kind"]) for item in report["refused"]} == {
        (23, "control_token"),
        (24, "long_response"),
        (25, "response"),
    }
    reasons = {item["kind"]: item["reason"] for item in report["refused"]}
    assert reasons["control_token"].startswith("the response spells the model's control token <|im_end|>")
    assert re.match(
        r"prompt and the response have \d+ \+ \d+ tokens, more than data\.max_len", reasons["long_response"]
    )
    assert report["duplicates"] == [{"file": file, "line": 21, "first_file": file, "first_line": 4}]
    assert [item["file"] for item in report["demonstrations"]["files"]] == [file]


def test_named_held_out_demonstrations_and_those_that_give_the_evaluation_away(tmp_path, configure):
    held_out = write(tmp_path / "held.jsonl", [SHOWN[2], {"prompt": "New?", "completion": "Yes."}])
    asked = write(tmp_path / "asked.jsonl", [{"prompt": "TEACH 5?"}, {"prompt": "Else?"}])
    shown = write(tmp_path / "shown.jsonl", SHOWN)
    config = configure(PAIRS, PROMPTS, demonstrations=shown, eval_demonstrations=held_out, eval_prompts=asked)
    prepare.run(config, StageIO.local(tmp_path / "out"))
    report = report_of(tmp_path / "out")
    assert (report["demonstrations"]["train"], report["demonstrations"]["eval"]) == (19, 2)
    leakage = report["leakage"]
    assert [(item["line"], item["first_line"]) for item in leakage["demonstrations"]] == [(3, 1)]
    (taught,) = leakage["held_out_prompts_in_training_demonstrations"]
    assert (taught["file"], taught["line"], taught["first_line"]) == (asked, 1, 6)


def test_without_demonstrations_their_files_are_empty_and_their_output_may_be_left_out(tmp_path, configure):
    prepare.run(configure(PAIRS, PROMPTS), StageIO.local(tmp_path / "out"))
    files = sorted((tmp_path / "out" / "demonstrations").iterdir())
    assert [(path.name, path.read_text()) for path in files] == [("eval.jsonl", ""), ("train.jsonl", "")]
    places = {name: str(tmp_path / "some" / name) for name in ("preferences", "prompts", "data_report")}
    prepare.run(configure(PAIRS, PROMPTS), StageIO({}, places))
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == sorted(places)
    shown = write(tmp_path / "shown.jsonl", SHOWN)
    places = {name: str(tmp_path / "none" / name) for name in places}
    with pytest.raises(UserError, match="output demonstrations is missing; write --output demonstrations=PATH"):
        prepare.run(configure(PAIRS, PROMPTS, demonstrations=shown), StageIO({}, places))
    assert not (tmp_path / "none").exists()


def test_demonstrations_alone_are_enough(tmp_path, configure):
    config = configure(demonstrations=write(tmp_path / "shown.jsonl", SHOWN))
    result = prepare.run(config, StageIO.local(tmp_path / "out"))
    assert result.metrics["demonstrations_train"] > 0 == result.metrics["preferences_train"]
    assert (tmp_path / "out" / "prompts" / "train.jsonl").read_text() == ""
    page = (tmp_path / "out" / "data_report" / "report.html").read_text("utf-8")
    assert "Does the longer response win" not in page


@pytest.mark.parametrize("part", ["preferences", "prompts", "demonstrations"])
def test_files_held_out_from_nothing_are_refused(tmp_path, configure, part):
    other = "preferences" if part == "demonstrations" else "demonstrations"
    files = {other: write(tmp_path / "a.jsonl", PAIRS if other == "preferences" else SHOWN), f"eval_{part}": "b.jsonl"}
    with pytest.raises(UserError, match=rf"data\.eval_{part}: held out from nothing; name files in data\.{part} too"):
        prepare.run(configure(**files), StageIO.local(tmp_path / "out"))


def test_real_comparisons(tmp_path, data_dir):
    data = {
        "preferences": [str(data_dir / "kwise" / name) for name in ("oasst.jsonl", "topical_chat.jsonl")],
        "prompts": str(data_dir / "kwise" / "oasst.jsonl"),
        "max_prompt_length": 4000,
        "max_length": 8000,
        "max_bad_fraction": 0.02,
    }
    model = {"name_or_path": str(data_dir / "model-stories260k")}
    config = PodiumConfig.model_validate({"model": model, "data": data})
    result = prepare.run(config, StageIO.local(tmp_path / "out"))
    assert result.metrics["preferences_train"] + result.metrics["preferences_eval"] == 206
    assert result.metrics["refused"] == 1
    assert 0.5 < result.metrics["longer_wins_characters_train"] < 0.7


def told(capsys):
    return [line.removeprefix("Note: ") for line in capsys.readouterr().err.splitlines() if line.startswith("Note: ")]


def test_rows_with_a_prompt_that_is_held_out_too_are_told(tmp_path, configure, capsys):
    """Seen to fail: of 1,280 rows 980 went without a word on the terminal."""
    held_out = write(tmp_path / "held.jsonl", [pair(number, rejected="never") for number in range(25)])
    prepare.run(configure(PAIRS, PROMPTS, eval_preferences=held_out), StageIO.local(tmp_path / "out"))
    wanted = "data.preferences: 25 of 55 rows are left out: 25 with a prompt that a held-out file has too"
    assert told(capsys) == [f"{wanted}; data_report lists them"]


@pytest.mark.parametrize(("repeated", "tied"), [(3, 0), (0, 3), (1, 1)])
def test_more_than_a_twentieth_left_out_is_told_whatever_the_reason(tmp_path, configure, capsys, repeated, tied):
    equal = {"responses": ["a", "b"], "ranks": [1, 1]}
    rows = [pair(number) for number in range(38 - repeated - tied)]
    rows += rows[:repeated] + [{"prompt": f"Tie {number}?", **equal} for number in range(tied)]
    prepare.run(configure(rows, PROMPTS), StageIO.local(tmp_path / "out"))
    lines, count = told(capsys), repeated + tied
    reasons = [f"{tied} tied"] * (tied > 0) + [f"{repeated} repeated"] * (repeated > 0)
    assert lines == [f"data.preferences: {count} of 38 rows are left out: {', '.join(reasons)}; data_report lists them"]
    prepare.run(
        configure([*rows, *(pair(number) for number in range(100, 110))], PROMPTS), StageIO.local(tmp_path / "2")
    )
    assert bool(told(capsys)) == (count > 2)


def test_refused_rows_are_told_by_kind(tmp_path, configure, capsys):
    rows = [*PAIRS, {"prompt": "x"}, pair(99, prompt="word " * 200), pair(98, tools=[{"name": "look"}])]
    prepare.run(configure(rows, PROMPTS, max_bad_fraction=0.2), StageIO.local(tmp_path / "out"))
    (line,) = told(capsys)
    assert line.startswith("data.preferences: 3 of 33 rows are left out: 3 refused (")
    assert all(f"{kind} 1" in line for kind in ("columns", "long prompt", "tools"))


def test_what_nobody_reads_is_named(tmp_path, configure, capsys):
    rows = [pair(number, subset="x", tags=["y"]) for number in range(30)]
    rows[3]["prompt"] = [{"role": "user", "content": "Why 3?", "name": "ann"}]
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]
    shown = [{"messages": [*turns, {"role": "user", "content": f"{n}?"}, turns[1]]} for n in range(9)]
    shown += [{"prompt": f"Why {n}?", "response": "So."} for n in range(11)]
    config = configure(rows, demonstrations=write(tmp_path / "shown.jsonl", shown))
    prepare.run(config, StageIO.local(tmp_path / "out"))
    assert told(capsys) == [
        "data.prompts names no file: PPO gets the prompts of the comparisons, in the same split.",
        "data.preferences: kept as metadata, no part of what a model reads: subset, tags",
        "data.preferences: keys of messages that are not read: name",
        "data.demonstrations: 9 of 20 conversations hold earlier replies; only the last reply of each is learned",
    ]
