"""Pairs and prompts for sentiment-smollm2.yaml from labelled sentences of film reviews, and a measure of its result.

    python examples/recorded/sentiment.py data SENTENCES FOLDER
    python examples/recorded/sentiment.py measure RUN...

`data` reads sentence_polarity_train.jsonl.gz and _test of SENTENCES (Pang and Lee 2005; rows with text and label, 1 is
positive) and writes pairs.jsonl, prompts.jsonl and eval_prompts.jsonl to FOLDER. A prompt asks to go on from a
sentence's first words. Half of the pairs stand behind the beginning of a positive sentence, half behind that of a
negative one, and the better answer always ends a positive sentence: what the words mean decides, not whether they fit.

`measure` counts the answers that VADER's lexicon (Hutto and Gilbert 2014, the package vaderSentiment) calls positive,
which no training saw, before and after, in each run folder.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

WORDS = 5
PAIRS, PROMPTS, EVAL_PROMPTS = 1200, 1000, 100


def sentences(file: Path, label: int) -> list[list[str]]:
    """Words of the sentences with this label that are long enough to be cut in two."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [words for row in rows if row["label"] == label and len(words := row["text"].split()) >= 2 * WORDS]


def question(words: list[str]) -> str:
    return f"Continue this sentence of a film review: {' '.join(words[:WORDS])}"


def pairs(positive: list[list[str]], negative: list[list[str]], dice: random.Random) -> Iterable[dict[str, str]]:
    """Yield PAIRS pairs; every sentence serves once."""
    for number in range(PAIRS):
        good, bad = positive[number], negative[number]
        start = dice.choice((good, bad))
        yield {"prompt": question(start), "chosen": " ".join(good[WORDS:]), "rejected": " ".join(bad[WORDS:])}


def write(file: Path, rows: Iterable[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def data(source: Path, folder: Path) -> None:
    """Write the three files."""
    dice = random.Random(0)
    parts = {
        (part, label): sentences(source / f"sentence_polarity_{part}.jsonl.gz", label)
        for part in ("train", "test")
        for label in (1, 0)
    }
    for part in parts.values():
        dice.shuffle(part)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "pairs.jsonl", pairs(parts["train", 1], parts["train", 0], dice))
    rest = parts["train", 1][PAIRS:] + parts["train", 0][PAIRS:]
    dice.shuffle(rest)
    write(folder / "prompts.jsonl", ({"prompt": question(words)} for words in rest[:PROMPTS]))
    held_out = parts["test", 1] + parts["test", 0]
    dice.shuffle(held_out)
    write(folder / "eval_prompts.jsonl", ({"prompt": question(words)} for words in held_out[:EVAL_PROMPTS]))


def measure(run: Path) -> None:
    """Print the share of positive answers before and after."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer()
    lines = next(run.glob("**/samples.jsonl")).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for side in ("baseline", "tuned"):
        scores = [lexicon.polarity_scores(row[side])["compound"] for row in rows]
        positive = sum(score > 0 for score in scores) / len(scores)
        print(f"{run} {side}: {positive:.0%} positive, mean {sum(scores) / len(scores):+.2f}, {len(scores)} answers")


if __name__ == "__main__":
    if sys.argv[1:2] == ["data"] and len(sys.argv) == 4:
        data(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["measure"] and len(sys.argv) > 2:
        for name in sys.argv[2:]:
            measure(Path(name))
    else:
        sys.exit(__doc__)
