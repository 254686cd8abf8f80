"""Small tokenizers with the chat templates that real models use."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Does not know add_generation_prompt, as the first ChatML templates.
CHATML_WITHOUT_PROMPT = CHATML.partition("{% if add_generation_prompt")[0]
# Llama 2: white space around the reply, no header before it, system messages lost.
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Gemma and Llama 3: the reply is stripped; Gemma refuses system messages and turns that do not alternate.
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DATED = "{{ strftime_now('%Y') + '-' }}" + CHATML
# The generation prompt opens a block that the template does not write into a finished turn.
THINKING = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif")
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|spare|>")
CORPUS = ("The answer is in the question, and the question is in the answer.\n", "Hello there, how are you? I am well.")


def write_chat_tokenizer(
    folder: Path,
    template: str | None = CHATML,
    *,
    words: bool = False,
    pad: str | None = "<|im_end|>",
    more: tuple[str, ...] = (),
) -> Path:
    """Write a byte-level BPE tokenizer; `words` gives one that puts a word start before each text, as sentencepiece.

    Its end token is <|endoftext|>, its padding by default the end of turn; `more` are further special tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _word_start_tokenizer() if words else _byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in more])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|spare|>", "eos_token": "<|endoftext|>"}
    if pad is not None:
        config["pad_token"] = pad
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def _byte_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[AddedToken(token, special=True) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _word_start_tokenizer() -> Tokenizer:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(code) for code in range(33, 127)] + ["▁", "▁t", "▁th", "▁the", "he", "\n", "\n\n"]
    vocabulary = {piece: number for number, piece in enumerate((*SPECIALS, *pieces, *letters))}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("h", "e"), ("\n", "\n")]
    tokenizer = Tokenizer(BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return tokenizer
