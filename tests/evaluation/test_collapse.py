"""Signs of collapse: what each measures, and answers of one mould that every other figure calls a success.

Seen to fail: without the signs among the reasons the collapsed policy is green.
"""

import json

import numpy as np
import pytest

from podium.evaluation import collapse, report, signs, text
from support.evaluation_run import page, sentences

ENDS = [
    "a parcel over to the nearest shop", "you the link again", "it all back tomorrow", "my best wishes to the team",
    "the deals on electric cars", "that to your bank", "some paint and a brush", "an answer when the moon is full",
]  # fmt: skip
MIDDLES = ["check the latest deals on", "make sure that I'm sure of", "go and have a look at", "be happy to talk about"]


def fixed(texts: list[str]) -> list[list[str]]:
    return [texts[n : n + 2] for n in range(0, len(texts), 2)]


def of_one_mould() -> list[list[str]]:
    """98 answers: 46 begin "I'll just send", 12 more "I'll just", the others as they come."""
    rng = np.random.default_rng(4)
    own = [f"I'll just send {rng.choice(ENDS)}. {line}" for line in sentences(rng, 46, 12)]
    own += [f"I'll just {rng.choice(MIDDLES)} it. {line}" for line in sentences(rng, 12, 12)]
    own += sentences(rng, 40, 16)
    return fixed([own[n] for n in rng.permutation(98)])


def untrained() -> list[list[str]]:
    """98 answers of which 21 begin alike, as a small chat model's do."""
    rng = np.random.default_rng(5)
    own = [f"I'm sorry for {line}" for line in sentences(rng, 21, 16)] + sentences(rng, 77, 20)
    return fixed([own[n] for n in rng.permutation(98)])


def test_a_policy_with_one_phrase_is_red_whatever_its_reward() -> None:
    """A gain of +1.02 at 20 nats, won on most prompts, in fluent text: before, eight green lines and `Better`."""
    made = page(49, generations=2, gain=1.02, kl=20.0, before=untrained(), after=of_one_mould())
    summary = made.results["summary"]
    greens = [reason["text"] for reason in summary["reasons"] if reason["level"] == "green"]
    assert any("Mean reward rose" in line for line in greens) and any("wins more often" in line for line in greens)
    reds = [
        reason["text"] for reason in summary["reasons"] if reason["level"] == "red" and "Gate" not in reason["text"]
    ]
    assert (
        len(reds) == 1 and reds[0].startswith('46.9 % of the answers begin "I\'ll just send"') and "21.4 %" in reds[0]
    )
    assert summary["verdict"] == "red" and summary["headline"].startswith("Reward up, answers collapsed on 49")
    shown = report.html(made)
    assert "red, do not ship this" in shown and "&#34;I&#39;ll just send&#34;" in shown
    assert (
        json.loads(json.dumps(made.results, allow_nan=False))["collapse"]["opening"]["words"]["tuned"]
        == "I'll just send"
    )


def test_the_same_reward_with_answers_as_varied_as_before_is_green() -> None:
    rng = np.random.default_rng(6)
    made = page(49, generations=2, gain=1.02, kl=3.0, before=untrained(), after=fixed(sentences(rng, 98, 18)))
    assert made.results["summary"]["verdict"] == "green"
    assert {sign["level"] for sign in made.results["summary"]["signs"]} == {"green"}


def levels(prompts: list[str], before: list[list[str]], after: list[list[str]]) -> dict[str, str]:
    found = signs.signs(collapse.measure(prompts, before, after, 0.95))
    return {sign.label: sign.level for sign in found if sign.level != "green"}


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [" ".join(sentences(np.random.default_rng(n), 1, 14)) for n in range(40)]


@pytest.fixture(scope="module")
def before() -> list[list[str]]:
    return [[line] for line in sentences(np.random.default_rng(100), 40, 16)]


@pytest.fixture
def after() -> list[list[str]]:
    return [[line] for line in sentences(np.random.default_rng(101), 40, 16)]


def test_two_draws_of_one_policy_show_nothing(
    prompts: list[str], before: list[list[str]], after: list[list[str]]
) -> None:
    assert levels(prompts, before, after) == {}
    assert levels(prompts, before, before) == {}


def test_each_sign_is_seen_alone(prompts: list[str], before: list[list[str]], after: list[list[str]]) -> None:
    """A third of the answers is changed in one way each."""
    first = range(14)
    copies = [[prompts[n]] if n in first else row for n, row in enumerate(after)]
    assert levels(prompts, before, copies) == {"Answers that copy the prompt": "red"}
    doubles = [after[n % 7] if n in first else row for n, row in enumerate(after)]
    assert levels(prompts, before, doubles)["Answers given to several prompts"] == "red"
    loops = [
        [" ".join([row[0].split()[n] for n in (0, 1, 2, 3)] * 4)] if n in first else row for n, row in enumerate(after)
    ]
    assert levels(prompts, before, loops)["Repetition within an answer"] == "red"
    starts = [[f"Thanks for asking {row[0]}"] if n in first else row for n, row in enumerate(after)]
    assert levels(prompts, before, starts) == {"Most common opening": "red"}
    few = ["order", "parcel", "shop", "card", "bank", "day"]
    vocabulary = [[" ".join(np.random.default_rng(n).choice(few, 16))] for n in range(40)]
    assert levels(prompts, before, vocabulary)["Different word pairs"] == "red"


def test_a_word_that_the_answers_share_is_amber(
    prompts: list[str], before: list[list[str]], after: list[list[str]]
) -> None:
    """16 of 20 tuned answers say kindly, wherever in the answer; of the untrained ones none or one does."""
    polite = [
        [" ".join([*(words := row[0].split())[: 2 + n % 9], "kindly", *words[2 + n % 9 :]])] if n < 16 else row
        for n, row in enumerate(after[:20])
    ]
    assert levels(prompts[:20], before[:20], polite) == {"A phrase that most answers took up": "amber"}
    found = collapse.shared_phrase(before[:20], polite, 0.95)
    assert found is not None and found["words"] == "kindly" and found["tuned"]["value"] == pytest.approx(0.8)
    once = [["kindly " + before[0][0]], *before[1:20]]
    assert levels(prompts[:20], once, polite) == {"A phrase that most answers took up": "amber"}


def test_a_word_that_the_untrained_model_uses_too_is_no_sign(
    prompts: list[str], before: list[list[str]], after: list[list[str]]
) -> None:
    """From 30 % to 75 % of the answers: a change of style, such as saying `you` more often."""
    some = [[f"{row[0]} you"] if n < 12 else row for n, row in enumerate(before)]
    more = [[f"{row[0]} you"] if n < 30 else row for n, row in enumerate(after)]
    assert levels(prompts, some, more) == {}


def test_few_answers_are_never_surely_red(prompts: list[str]) -> None:
    """Of four answers two begin alike where none did: 25 points more, and that may be chance."""
    alike = [["We will see about this"], ["We will see to that"], ["A letter came today"], ["It is in the post"]]
    apart = [["Our team is on it"], ["Look on the page"], ["A letter came today"], ["It is in the post"]]
    (sign,) = [one for one in signs.signs(collapse.measure(prompts[:4], apart, alike, 0.95)) if one.level != "green"]
    assert sign.level == "amber" and sign.text.endswith("(may be chance).")


def test_answers_that_only_became_shorter_are_not_more_varied(before: list[list[str]]) -> None:
    """Over whole answers the share of different pairs rises by cutting; at equal length it cannot."""
    short = [[" ".join(row[0].split()[:5])] for row in before]

    def over_whole_answers(side: list[list[str]]) -> float:
        grams = [gram for row in side for gram in text.ngrams(text.words(row[0]), 2)]
        return len(set(grams)) / len(grams)

    assert over_whole_answers(short) > over_whole_answers(before) + 0.03
    found = collapse.distinct(before, short, 0.95)
    assert found["change"]["value"] == 0.0 and found["grams"] == 40 * 4


def test_distinct_pairs_and_their_interval_equal_a_slow_recomputation() -> None:
    """The interval repeats the count without each prompt; the second row's longer answer is cut to two words."""
    left = [["a b c", "a b"], ["a b"], ["c d e f"]]
    right = [["a b d", "b c"], ["x y z z z"], ["a b d e"]]
    found = collapse.distinct(left, right, 0.95)
    cut = [["a b", "b d", "b c"], ["x y"], ["a b", "b d", "d e"]]
    assert found["grams"] == 7 and found["tuned"]["value"] == pytest.approx(5 / 7)
    assert found["baseline"]["value"] == pytest.approx(5 / 7), "a b, b c, c d, d e, e f of seven"
    parts = [[pair for m, row in enumerate(cut) if m != n for pair in row] for n in range(3)]
    without = np.array([len(set(part)) / len(part) for part in parts])
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found["tuned"]["high"] - found["tuned"]["value"] == pytest.approx(4.302653 * error, rel=1e-6)


def test_shares_count_prompts_once_and_the_same_answer_to_one_prompt_is_no_duplicate() -> None:
    found = collapse.measure(
        ["p", "q"], [["one", "two"], ["three", "four"]], [["Yes  it is", "yes it is"], ["yes it is", "no"]], 0.95
    )
    assert found["duplicates"]["tuned"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert (
        found["opening"]["tuned"]["value"] == pytest.approx(0.75) and found["opening"]["words"]["tuned"] == "Yes it is"
    )
    alone = collapse.measure(["p"], [["one", "two"]], [["yes", "yes"]], 0.95)
    assert alone["duplicates"]["tuned"]["value"] == 0.0


def test_empty_answers_are_a_collapse_and_break_nothing(prompts: list[str], before: list[list[str]]) -> None:
    found = levels(prompts, before, [[""] for _ in before])
    assert found["Most common opening"] == "red" and found["Answers given to several prompts"] == "red"
