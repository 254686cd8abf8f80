"""Export: the tuned policy in, a Hugging Face folder out that other programs load and that gives the same answers.

Metrics, where the folder was compared with transformers: verify/max_difference (of logits), verify/kl (mean nats per
token), verify/same_choice (share of places with the same likeliest token), verify/tokens.
"""

from pathlib import Path

import numpy as np

from podium.config import PodiumConfig
from podium.data.records import Message
from podium.data.tokenizer import Tokenizer, load_tokenizer
from podium.errors import UserError
from podium.evaluation import results
from podium.models import Model, export
from podium.models.families.config_json import auto_class
from podium.models.verification import MAX_KL, Agreement, agreement, missing_package, our_logits, their_logits
from podium.stages.base import FINE_TUNED_FROM, base_folder, load
from podium.stages.io import Result, StageIO, read_manifest
from podium.stages.model_card import Evaluation, Subject, model_card

# Digits, two spaces, an accent and a dash: where tokenizers differ.
QUESTION: list[Message] = [{"role": "user", "content": "In 1969, who walked  on the Moon first? Réponds, please."}]
ANSWER = "Neil Armstrong — on July 20, 1969."


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Write the policy in config.export.format, with a model card, and compare its logits with transformers'.

    Raises UserError for what cannot be done as configured, RuntimeError when the folder is not the same model.
    """
    settings = config.export
    missing = missing_package(adapter=settings.format == "adapter")
    if settings.verify == "always" and missing:
        raise UserError(f"export.verify: always needs the package {missing}; install it, or write auto")
    source, folder = io.input("policy"), io.output("model")
    evaluation = _evaluation(io)
    model = load(source, base=base_folder(config, io, source, "base"))
    export(model, folder, format=settings.format, dtype=settings.dtype)
    _check_tokenizer(model.tokenizer, folder)
    subject, result = _subject(model, config), None
    if settings.verify != "never" and not missing:
        probe = _probe(model)
        expected = our_logits(model, *probe)
        # transformers is about to hold these weights as well.
        del model
        result = _compare(expected, folder, *probe)
    card = model_card(subject, read_manifest(source), result, evaluation)
    (folder / "README.md").write_text(card, encoding="utf-8")
    metrics = {} if result is None else {f"verify/{name}": float(value) for name, value in vars(result).items()}
    metadata = {
        "format": settings.format,
        "dtype": settings.dtype,
        "base": subject.base,
        "verified": result is not None,
    }
    if evaluation is not None and evaluation.gates_passed is not None:
        metadata["gates_passed"] = evaluation.gates_passed
    return Result(metrics=metrics, metadata={"model": metadata})


def _evaluation(io: StageIO) -> Evaluation | None:
    if "samples" not in io.inputs:
        return None
    result = results.read(io.input("samples"))
    summary = (io.input("samples") / results.SUMMARY_FILE).read_text(encoding="utf-8")
    return Evaluation(result["gates_passed"] if result["gates"] else None, summary)


def _subject(model: Model, config: PodiumConfig) -> Subject:
    origin = model.metadata.get(FINE_TUNED_FROM)
    # An adapter goes on top of the fine-tuned model, whatever that one comes from.
    base = origin if origin and config.export.format == "merged" else model.base
    return Subject(
        # A path of this machine means nothing elsewhere: the last part of it is the model's name.
        base=Path(base).name if Path(base).exists() else base,
        fine_tuned=origin is not None,
        format=config.export.format,
        dtype=config.export.dtype,
        lora=model.lora,
        chat=model.tokenizer.has_template,
        auto_class=auto_class(model.config),
    )


def _check_tokenizer(ours: Tokenizer, folder: Path) -> None:
    """Read the exported tokenizer back: a lost chat template or end token is noticed here and not by a server."""
    theirs = load_tokenizer(folder, apart=ours.apart)
    same = (
        ours.encode_prompt(QUESTION) == theirs.encode_prompt(QUESTION)
        and ours.encode_response(ANSWER) == theirs.encode_response(ANSWER)
        and (ours.eos_ids, ours.pad_id, ours.vocab_size) == (theirs.eos_ids, theirs.pad_id, theirs.vocab_size)
    )
    if not same:
        raise RuntimeError(f"{folder}: the exported tokenizer gives other ids than the policy's")


def _probe(model: Model) -> tuple[list[int], list[int]]:
    """A prompt and a response, cut to what the model has places for."""
    prompt, response = model.tokenizer.encode_prompt(QUESTION), model.tokenizer.encode_response(ANSWER)
    places = model.config.max_position
    if places is not None:
        prompt = prompt[: places // 2]
        response = response[: places - len(prompt)]
    return prompt, response


def _compare(expected: np.ndarray, folder: Path, prompt: list[int], response: list[int]) -> Agreement:
    result = agreement(expected, their_logits(folder, prompt, response))
    if not result.holds:
        raise RuntimeError(
            f"{folder}: transformers gives other answers than the policy: {result.kl:.3g} nats per token apart "
            f"(allowed {MAX_KL}), logits by up to {result.max_difference:.3g}"
        )
    return result
