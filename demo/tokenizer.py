"""Learns the byte-level BPE vocabulary and writes the tokenizer files."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .common import Example
from .corpus import examples
from .template import CALL_END, CALL_START, CHAT_TEMPLATE, END_OF_TEXT, START_OF_TEXT, TURN_END, TURN_START, render

VOCABULARY = 2048
CONTEXT = 2048
# The order fixes the ids 0 to 5.
SPECIAL = (END_OF_TEXT, START_OF_TEXT, TURN_START, TURN_END)
# Tool calls stay visible when special tokens are skipped, so these two are ordinary added tokens.
PROMPT_WEIGHT = 0.1
TURN_START_ID = 2
MARKS = (CALL_START, CALL_END)


def learn(seed: int, documents: int = 20_000) -> Tokenizer:
    """A vocabulary for the corpus; every digit is a token of its own, so sums can be learned."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(t, special=True) for t in SPECIAL] + [
        AddedToken(t, special=False, normalized=False) for t in MARKS
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=added,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Seed + 1 keeps the sample apart from the training stream itself.
    texts = (plain(example) for example in islice(examples(seed + 1), documents))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = _with_visible_marks(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_OF_TEXT} $A", pair=f"{START_OF_TEXT} $A $B", special_tokens=[(START_OF_TEXT, 1)]
    )
    return tokenizer


def _with_visible_marks(tokenizer: Tokenizer) -> Tokenizer:
    """Undo the trainer's habit of declaring every token it is given special."""
    stored = json.loads(tokenizer.to_str())
    for token in stored["added_tokens"]:
        token["special"] = token["content"] in SPECIAL
    return Tokenizer.from_str(json.dumps(stored))


def plain(example: Example) -> str:
    """A document as text, without the token that starts it."""
    return example.text or render(example.messages, example.tools).removeprefix(START_OF_TEXT)


@dataclass(frozen=True)
class Document:
    """Token ids, and for each how much the loss counts it."""

    ids: list[int]
    weights: list[float]


def weights(ids: list[int], assistant: list[int], late: bool = False) -> list[float]:
    """One for plain text and for what the assistant says, little for the rest of a chat.

    Nobody can foresee what a user asks, so these tokens would mostly add noise.
    Late in the training short answers count more than long ones, token by token,
    for the few digits of a sum would otherwise be lost among the stories.
    """
    if TURN_START_ID not in ids:
        return [_share(len(ids)) if late else 1.0] * len(ids)
    result = [PROMPT_WEIGHT] * len(ids)
    starts = [i for i, token in enumerate(ids) if token == TURN_START_ID]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        if ids[start + 1 : start + 1 + len(assistant)] == assistant:
            count = end - start - 1
            result[start + 1 : end] = [_share(count) if late else 1.0] * count
    return result


def _share(count: int) -> float:
    """What one token of an answer with so many tokens counts."""
    return min(max((12 / count) ** 0.5, 0.5), 1.5)


def encode(tokenizer: Tokenizer, batch: list[Example], rng: random.Random, late: bool = False) -> list[Document]:
    """Documents as token ids, each between the tokens that start and end a text.

    A third of the plain texts is cut in two before encoding, most often after a
    space.  A prompt that ends in a space or within a word has tokens that the
    whole text would never have; this way training knows them too.
    """
    pieces: list[str] = []
    owners: list[int] = []
    for index, example in enumerate(batch):
        text = plain(example)
        if rng.random() < (0.3 if example.text else 0.03) and len(text) > 2:
            cut = _cut(text, rng)
            pieces += [text[:cut], text[cut:]]
            owners += [index, index]
        else:
            pieces.append(text)
            owners.append(index)
    ids: list[list[int]] = [[1] for _ in batch]
    for owner, encoding in zip(owners, tokenizer.encode_batch(pieces, add_special_tokens=False), strict=True):
        ids[owner] += encoding.ids
    assistant = tokenizer.encode("assistant", add_special_tokens=False).ids
    return [Document([*document, 0], weights([*document, 0], assistant, late)) for document in ids]


def _cut(text: str, rng: random.Random) -> int:
    """A place to cut a text: after one of its first spaces, or anywhere near its start."""
    spaces = [i + 1 for i, letter in enumerate(text[:80]) if letter == " "]
    if spaces and rng.random() < 0.7:
        return spaces[0] if rng.random() < 0.4 else rng.choice(spaces)
    return rng.randint(1, min(len(text) - 1, 120))


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {
        str(tokenizer.token_to_id(t)): {
            "content": t,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": t in SPECIAL,
        }
        for t in SPECIAL + MARKS
    }
    config = {
        "added_tokens_decoder": tokens,
        "bos_token": START_OF_TEXT,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": CONTEXT,
        "pad_token": END_OF_TEXT,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
