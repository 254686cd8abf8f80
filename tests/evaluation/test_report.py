"""The report: everything in one file, nothing loaded, a model's text only ever text, figures as in results.json."""

import base64
import copy
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from podium.data.quality import LongerWins
from podium.data.report import EMPTY, Findings, summarise
from podium.data.sources import Refusal
from podium.evaluation import figures, report, results, samples, table
from podium.evaluation.report import Page
from support.evaluation_run import HOSTILE, page

VOID = {"meta", "input", "br", "img", "link"}


class Reader(HTMLParser):
    """Collect tags with attributes, visible text, scripts; check that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        target = self.scripts if self.open and self.open[-1] == "script" else self.text
        target.append(data)


@pytest.fixture(scope="module")
def good() -> Page:
    return page()


@pytest.fixture(scope="module")
def reader(good: Page) -> Reader:
    return Reader(report.html(good))


def plain(reader: Reader) -> str:
    return "".join(reader.text).replace("\u00a0", " ")


def test_sections_stand_in_order_and_every_link_leads_to_one(reader: Reader, good: Page) -> None:
    ids = [attrs["id"] for tag, attrs in reader.tags if tag == "section"]
    assert ids == [name for name, _ in report.SECTIONS]
    headings = [*re.findall(r"<h2>(.*?)</h2>", report.html(good))]
    assert headings == list(report.SECTION_TITLES[1:]) and f"{report.SECTION_TITLES[0]}: " in plain(reader)
    links = [attrs["href"] for tag, attrs in reader.tags if tag == "a"]
    assert links == [f"#{name}" for name in ids[1:]]


def test_nothing_is_loaded(reader: Reader, good: Page) -> None:
    for tag, attrs in reader.tags:
        assert not {"src", "srcset", "action", "data", "background"} & set(attrs), tag
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
    text = report.html(good)
    assert not re.search(r"url\(|@import|https?://|//\w", text.replace(report.SCRIPT, ""))
    policy = next(attrs["content"] for tag, attrs in reader.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none';")


def test_the_policy_allows_this_script_and_no_other(reader: Reader) -> None:
    (script,) = reader.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in reader.tags if attrs.get("http-equiv"))
    assert f"script-src 'sha256-{digest}'" in policy
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)


def test_hostile_text_stays_text() -> None:
    text = report.html(page(30, hostile=True))
    reader = Reader(text)
    assert len(reader.scripts) == 1 and reader.scripts[0] == report.SCRIPT
    assert not any(tag == "img" for tag, _ in reader.tags)
    shown = plain(reader)
    assert '<script>alert("x")</script>' in shown, "the reader sees what the model wrote"
    assert "<U+202E>" in shown and "\u202e" not in text and "\x1b" not in text.replace(report.SCRIPT, "")
    assert HOSTILE not in text


def test_figures_equal_the_results(reader: Reader, good: Page) -> None:
    shown = plain(reader)
    assert good.results["summary"]["headline"] in shown
    for reason in good.results["summary"]["reasons"]:
        assert reason["text"] in shown
    for row in table.rows(good.results):
        assert all(row[key] in shown for key in ("label", "baseline", "tuned", "change"))
    assert f"{good.results['reward_model']['pairs']} held-out pairs" in shown


def test_samples_are_worst_first_with_sort_keys_equal_to_the_rows(reader: Reader, good: Page) -> None:
    shown = [attrs for tag, attrs in reader.tags if "data-change" in attrs]
    changes = [float(attrs["data-change"]) for attrs in shown]
    assert len(shown) == 40 and changes == sorted(changes)
    every = sorted(samples.change(row) for row in good.rows)
    assert (changes[0], changes[-1]) == (pytest.approx(every[0], rel=1e-5), pytest.approx(every[-1], rel=1e-5))
    keys = set(re.findall(r'value="(\w+) -?1"', report.html(good)))
    assert all(f"data-{key}" in shown[0] for key in keys) and len(keys) == 4


def test_works_without_script_and_tools_are_hidden_then(reader: Reader) -> None:
    tools = next(attrs for tag, attrs in reader.tags if attrs.get("class") == "tools")
    assert "hidden" in tools
    assert not any("hidden" in attrs for _, attrs in reader.tags if attrs.get("class") == "sample")


def test_the_same_input_gives_the_same_bytes() -> None:
    assert report.html(page(20)) == report.html(page(20))


def test_missing_parts_are_said_not_left_blank() -> None:
    made = page(12)
    bare = copy.deepcopy(dict(made.results)) | {"reward_model": None}
    text = report.html(
        Page(results=bare, rows=made.rows, sample_rows=5, curves=[], config={"seed": 1}, inputs={}, data=None)
    )
    shown = plain(Reader(text))
    assert "The policy came without training metrics." in shown
    assert "The reward model came without a held-out report." in shown
    assert "The data report was not handed to this stage" in shown


def test_the_data_section_reads_what_prepare_writes(good: Page) -> None:
    longer = LongerWins(pairs=0, by_characters=0.25, by_tokens=0.5)
    refused = Refusal("a.jsonl", 3, "too_long", "400 tokens")
    part = replace(EMPTY, collected=replace(EMPTY.collected, refused=[refused]))
    nothing: dict[str, Any] = dict.fromkeys(
        ("contradictions", "held_out_in_prompts", "held_out_in_demonstrations", "notes"), ()
    )
    findings = Findings(part, EMPTY, EMPTY, 0, longer_wins={"train": longer, "eval": longer}, settings={}, **nothing)
    shown = plain(Reader(report.html(replace(good, data=json.loads(json.dumps(summarise(findings)))))))
    assert "Pairs the longer answer wins" in shown and "50.0 %" in shown
    assert "too long" in shown and "Demonstrations" not in shown


def test_the_header_says_which_run_this_is(good: Page) -> None:
    (about,) = re.findall(r'<p class="about">(.*?)</p>', report.html(good))
    assert re.findall(r"<b>(.*?)</b>", about) == [
        "courteous-1",
        "2026-11-26 18:04 UTC",
        "12 min 34 s",
        "8 x TPU v5 lite",
    ]
    assert 'class="about"' not in report.html(replace(good, run=report.Run()))


def test_no_key_of_a_file_stands_where_a_person_reads() -> None:
    """Names such as min_win_rate and objective/scores belong into results.json and the section on how to repeat it."""
    made = page(40, generations=2)
    _, shown = report.html(made).split("<main>")
    words = plain(Reader(shown[: shown.index('<section id="reproduce"')]))
    assert not re.findall(r"\b\w+_\w+\b|\bobjective/\w+", words)
    assert not re.findall(r"\b\w+_\w+\b", report.markdown(made.results))


def test_shares_are_percent_and_every_axis_has_its_unit(good: Page) -> None:
    drawn = figures.training_charts(good.curves) + figures.comparison_charts(good.results, good.rows)
    drawn += figures.judge_charts(good.results["reward_model"])
    labels = {title: re.findall(r'<text class="label"[^>]*>(.*?)</text>', svg) for title, svg in drawn}
    alone = {"Mean reward", "Accuracy beside the length rule"}
    assert all(len(found) == (1 if title in alone else 2) and all(found) for title, found in labels.items()), labels
    summary = good.results["summary"]
    assert not re.search(r"\b0\.\d+ \[0\.\d+, 0\.\d+\], at", " ".join(r["text"] for r in summary["reasons"]))


def test_training_reward_is_drawn_raw_and_penalised_apart(good: Page) -> None:
    title, svg = figures.training_charts(good.curves)[0]
    assert title == "Reward of the rollouts"
    assert re.findall(r"<title>(.*?)</title>", svg) == ["reward model", "with penalties", "with KL penalty"]
    equal = [row | {"objective/scores": row["objective/scores_raw"]} for row in good.curves]
    assert "with penalties" not in figures.training_charts(equal)[0][1]
    old = [{name: value for name, value in row.items() if name != "objective/scores_raw"} for row in good.curves]
    assert re.findall(r"<title>(.*?)</title>", figures.training_charts(old)[0][1]) == ["score", "with KL penalty"]


def test_training_charts_follow_the_metrics_that_exist(good: Page) -> None:
    assert len(figures.training_charts(good.curves)) == 5
    only = [{"step": row["step"], "objective/kl": row["objective/kl"], "objective/scores": None} for row in good.curves]
    assert [title for title, _ in figures.training_charts(only)] == ["KL from the reference"]


def test_three_hundred_long_answers_fit_in_two_megabytes() -> None:
    made = page(300, sample_rows=300)
    for row in made.rows:
        row["tuned"] = row["baseline"] = '"&<' * 5000
    text = report.html(made)
    assert len(text.encode()) < 2_000_000
    shown = plain(Reader(text))
    assert "more characters in samples.jsonl" in shown
    assert re.search(r"\d+ of 300 answers", shown)


def test_rows_are_spread_over_the_order_of_change() -> None:
    rows = [{"id": f"{n}", "generation": 0, "reward_baseline": 0.0, "reward_tuned": float(n)} for n in range(100)]
    picked = [row["reward_tuned"] for row in samples.spread(rows, 5)]
    assert picked == [0.0, 25.0, 50.0, 74.0, 99.0]
    assert [row["reward_tuned"] for row in samples.examples(rows)] == [16.0, 50.0, 83.0]
    assert samples.spread(rows, 0) == [] and len(samples.spread(rows, 200)) == 100
    assert [row["id"] for row in samples.examples(rows[:2])] == ["0", "1"]


def test_a_system_message_of_all_prompts_is_said_once() -> None:
    made = page(6)
    for row in made.rows:
        row["prompt"].insert(0, {"role": "system", "content": "Be <brief>."})
    shown = plain(Reader(report.html(made)))
    assert shown.count("Be <brief>.") == 1 and "user:" not in shown
    made.rows[0]["prompt"][0]["content"] = "Be long."
    shown = plain(Reader(report.html(made)))
    assert shown.count("system: Be <brief>.") == 5 and shown.count("system: Be long.") == 1


def test_markdown_has_headline_reasons_and_the_table(good: Page) -> None:
    text = report.markdown(good.results)
    assert text.startswith(f"**{good.results['summary']['headline']}**")
    assert text.count("\n- **") == len(good.results["summary"]["reasons"])
    assert sum(line.startswith("| ") and line.count("|") == 5 for line in text.splitlines()) >= 10


def test_twins_on_disk_agree(good: Page, tmp_path: Path) -> None:
    results.write(tmp_path, good.results, good.rows, report.markdown(good.results))
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["summary"]["headline"] in (tmp_path / "summary.md").read_text()
    assert stored["reward"] == good.results["reward"]
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert rows == list(good.rows)
    assert len(stored["summary"]["examples"]) == 3
    assert set(stored["summary"]["examples"][0]) == {
        "prompt", "baseline", "tuned", "reward_baseline", "reward_tuned",
    }  # fmt: skip
    assert unescape(stored["summary"]["examples"][0]["prompt"])
