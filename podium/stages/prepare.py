"""Prepare: files of preferences, prompts and demonstrations in any accepted format to canonical, checked, split data.

A report says what was found. Parts of the data that no file was named for are empty.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from podium.config import PodiumConfig
from podium.config.data import DataConfig, Source
from podium.data import quality, report
from podium.data.collect import Collected, Limits, Located, Record, collect, with_unique_ids
from podium.data.demonstrations import DEMONSTRATION_FORMATS, read_demonstration
from podium.data.formats import FORMATS, check_format, read_preference
from podium.data.notices import notices
from podium.data.prompts import PROMPT_FORMATS, read_prompt
from podium.data.records import DemonstrationRecord, PreferenceRecord, PromptRecord, digest, write_jsonl
from podium.errors import UserError
from podium.models.tokenizing import load_tokenizer_of
from podium.stages.io import Result, StageIO

# By the fields of config.data that name their files; held-out ones are eval_NAME.
PARTS: Mapping[str, Mapping[str, object]] = {
    "preferences": FORMATS,
    "prompts": PROMPT_FORMATS,
    "demonstrations": DEMONSTRATION_FORMATS,
}
PROMPTS_FROM_PREFERENCES = "data.prompts names no file: PPO gets the prompts of the comparisons, in the same split."


@dataclass(frozen=True)
class Prepared:
    """What the stage writes."""

    parts: Mapping[str, report.Part]
    report: dict[str, Any]
    page: str
    notices: Sequence[str]


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Read the files that config.data names and write preferences, prompts, demonstrations and data_report.

    Raises UserError, before anything is written, for a file or a data set that cannot be used. Demonstrations may do
    without an output where there are none.
    """
    if config.data.demonstrations:
        io.place("demonstrations")
    outputs = [name for name in PARTS if name != "demonstrations" or io.has_output(name)]
    prepared = prepare(config)
    folders = {name: io.output(name) for name in (*outputs, "data_report")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for name in outputs:
        _write_part(folders[name], prepared.parts[name])
    (folders["data_report"] / "report.json").write_text(
        json.dumps(prepared.report, ensure_ascii=False, indent=1) + "\n", "utf-8"
    )
    (folders["data_report"] / "report.html").write_text(prepared.page, "utf-8")
    for line in prepared.notices:
        print(f"Note: {line}", file=sys.stderr, flush=True)
    metadata = {name: _metadata(prepared, name) for name in outputs}
    return Result(metrics=report.metrics(prepared.report), metadata=metadata)


def prepare(config: PodiumConfig) -> Prepared:
    """Read, check, split and judge the data, without writing anything."""
    data = config.data
    _check_sources(data)
    tokenizer = load_tokenizer_of(config.model.name_or_path, config.model.revision)
    limits = Limits.of(data, tokenizer)
    preferences, tied = _preferences(data, limits)
    prompts, notes = _prompts(data, limits, preferences)
    demonstrations = _demonstrations(data, limits)
    findings = report.Findings(
        preferences=preferences,
        prompts=prompts,
        demonstrations=demonstrations,
        tied=tied,
        contradictions=quality.contradictions([*preferences.train, *preferences.eval]),
        held_out_in_prompts=quality.shared_prompts(preferences.eval, prompts.train),
        held_out_in_demonstrations=quality.shared_prompts(prompts.eval, demonstrations.train),
        longer_wins={
            "train": quality.longer_wins(preferences.train),
            "eval": quality.longer_wins(preferences.eval),
        },
        settings=_settings(config),
        notes=notes,
    )
    summary = report.summarise(findings)
    parts = dict(zip(PARTS, findings.parts, strict=True))
    return Prepared(parts, summary, report.render(summary, findings), notices(findings))


def _check_sources(data: DataConfig) -> None:
    if not data.preferences and not data.demonstrations:
        raise UserError("data.preferences: no file named; write the path of a file of compared responses")
    for part, formats in PARTS.items():
        # Without prompts of their own, those of the comparisons are used.
        used = getattr(data, part) or (data.preferences if part == "prompts" else ())
        if getattr(data, f"eval_{part}") and not used:
            raise UserError(f"data.eval_{part}: held out from nothing; name files in data.{part} too")
        for name in (part, f"eval_{part}"):
            for source in getattr(data, name) or ():
                check_format(source.format, formats, f"data.{name}: {source.path}")


def _preferences(data: DataConfig, limits: Limits) -> tuple[report.Part, int]:
    def read(sources: Sequence[Source]) -> tuple[Collected[PreferenceRecord], int]:
        result = collect(sources, read_preference, limits, max_bad_fraction=data.max_bad_fraction)
        kept = [row for row in result.rows if data.ties == "keep" or len(set(row.record.ranks)) > 1]
        return replace(result, rows=kept), len(result.rows) - len(kept)

    if not data.preferences:
        return report.EMPTY, 0
    train, tied_train = read(data.preferences)
    held_out, tied_eval = read(data.eval_preferences) if data.eval_preferences else (None, 0)
    return _part(train, held_out, data.eval_fraction, "data.preferences"), tied_train + tied_eval


def _prompts(data: DataConfig, limits: Limits, preferences: report.Part) -> tuple[report.Part, list[str]]:
    def read(sources: Sequence[Source]) -> Collected[PromptRecord]:
        return collect(sources, read_prompt, limits, max_bad_fraction=data.max_bad_fraction)

    held_out = read(data.eval_prompts) if data.eval_prompts else None
    if data.prompts:
        return _part(read(data.prompts), held_out, data.eval_fraction, "data.prompts"), []
    if not data.preferences:
        return report.EMPTY, []
    train, split_off = (Collected(_asked(rows), [], []) for rows in (preferences.train, preferences.eval))
    return _part(train, held_out or split_off, data.eval_fraction, "data.prompts"), [PROMPTS_FROM_PREFERENCES]


def _demonstrations(data: DataConfig, limits: Limits) -> report.Part:
    def read(sources: Sequence[Source]) -> Collected[DemonstrationRecord]:
        return collect(sources, read_demonstration, limits, max_bad_fraction=data.max_bad_fraction)

    if not data.demonstrations:
        return report.EMPTY
    held_out = read(data.eval_demonstrations) if data.eval_demonstrations else None
    return _part(read(data.demonstrations), held_out, data.eval_fraction, "data.demonstrations")


def _asked(rows: Sequence[Located[PreferenceRecord]]) -> list[Located[PromptRecord]]:
    """Return the distinct prompts of comparisons as prompt records."""
    first: dict[str, Located[PreferenceRecord]] = {}
    for row in rows:
        first.setdefault(digest(row.record.prompt), row)
    return [
        Located(
            record=PromptRecord(id=name, prompt=row.record.prompt, source=row.record.source),
            file=row.file,
            line=row.line,
            key=row.key,
            prompt_tokens=row.prompt_tokens,
            response_tokens=(),
        )
        for name, row in first.items()
    ]


def _part(
    result: Collected[Record], held_out: Collected[Record] | None, eval_fraction: float, name: str
) -> report.Part:
    """Drop repeated rows and split; training rows whose prompt is in a named held-out file are left out."""
    if not result.rows:
        raise UserError(f"{name}: every row was refused, repeated or tied; the data set is empty")
    everything = result if held_out is None else _joined(result, held_out)
    rows, duplicates = quality.drop_duplicates(result.rows)
    if held_out is None:
        train, evaluation = quality.split(rows, eval_fraction, name)
        leaked = []
    else:
        evaluation, repeated = quality.drop_duplicates(held_out.rows)
        duplicates = [*duplicates, *repeated]
        leaked = quality.shared_prompts(rows, evaluation)
        keys = {row.key for row in evaluation}
        train = [row for row in rows if row.key not in keys]
    if not train or not evaluation:
        raise UserError(f"{name}: all prompts are in the held-out files too; nothing is left to train on")
    unique, renamed = with_unique_ids([*train, *evaluation])
    return report.Part(everything, unique[: len(train)], unique[len(train) :], duplicates, leaked, renamed)


def _joined(first: Collected[Record], second: Collected[Record]) -> Collected[Record]:
    return Collected(
        [*first.rows, *second.rows],
        [*first.refused, *second.refused],
        [*first.files, *second.files],
        tuple(sorted({*first.columns, *second.columns})),
        tuple(sorted({*first.message_keys, *second.message_keys})),
    )


def _settings(config: PodiumConfig) -> dict[str, Any]:
    data = config.data
    names = ("max_prompt_length", "max_length", "max_bad_fraction", "eval_fraction", "ties", "instruction")
    return {"model": config.model.name_or_path, **{name: getattr(data, name) for name in names}}


def _write_part(folder: Path, part: report.Part) -> None:
    for name, rows in (("train", part.train), ("eval", part.eval)):
        records: list[BaseModel] = [row.record for row in rows]
        write_jsonl(folder / f"{name}.jsonl", records)


def _metadata(prepared: Prepared, name: str) -> dict[str, Any]:
    part = prepared.report[name]
    return {"format": "podium-jsonl", "train": part["train"], "eval": part["eval"]}
