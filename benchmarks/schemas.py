"""How many schemas of a directory are accepted, and whether answers of their grammars fit them; needs no model.

    python -m benchmarks.schemas DIR [--tokenizer MODEL_DIR] [--walks 5]

Every *.json file is a schema, or has one under `json_schema` or `schema`. An answer is a random walk over what the
grammar allows, in which strings and numbers end soon. What was refused or cut violates nothing.
Target: at least 84 % accepted, no violation.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
from llguidance import LLMatcher, LLTokenizer
from rich.console import Console

from benchmarks.structured import read_schema
from tgi.bench.percentiles import percentile
from tgi.errors import ValidationError
from tgi.grammar import GrammarError, compile_grammar, make_tokenizer, rehearse
from tgi.messages import Grammar
from tgi.serving.grammars.build import schema_text
from tgi.serving.grammars.vocabulary import make_vocabulary
from tgi.serving.tokenizer import Tokenizer

console = Console()
DEMO = Path(__file__).parent.parent / "src/tgi/demo"
STACK = 64 << 20
MOST_TOKENS = 2000
CLOSING = ('"', '"}', '",', '"]', "}", "]", ", ", ",", '": ')
"""Tokens that bring an answer nearer to its end."""


class Walker:
    """Makes answers of grammars."""

    def __init__(self, tokenizer: LLTokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        ids = (tokenizer.tokenize_str(text) for text in CLOSING)
        self._closing = {one[0] for one in ids if len(one) == 1}
        self._ends = set(tokenizer.eos_tokens)

    def answer(self, matcher: LLMatcher) -> str | None:
        """A text that the grammar takes; None: it was cut."""
        matcher, tokens = matcher.deep_copy(), []
        while len(tokens) < MOST_TOKENS:
            if matcher.is_stopped() or (matcher.is_accepting() and self._rng.random() < 0.5):
                return self._tokenizer.decode_str(tokens)
            token = self._next(matcher)
            if token is None or not matcher.consume_token(token):
                return None
            tokens.append(token)
        return None

    def _next(self, matcher: LLMatcher) -> int | None:
        bits = int.from_bytes(matcher.compute_bitmask(), "little")
        closing = [token for token in self._closing if bits >> token & 1]
        if closing and self._rng.random() < 0.6:
            return self._rng.choice(closing)
        for end in self._ends:
            bits &= ~(1 << end)
        if not bits:
            return None
        start = self._rng.randrange(bits.bit_length())
        above = bits >> start
        return start + (above & -above).bit_length() - 1


def violation(text: str, schema: Any) -> str | None:
    """What is wrong with an answer by jsonschema; None: nothing."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except jsonschema.SchemaError as error:
        return f"jsonschema does not take the schema: {error.message[:100]}"
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{str(error).splitlines()[0][:200]} in {text[:200]!r}"
    return None


def measure(directory: Path, tokenizer: LLTokenizer, walks: int, seed: int) -> None:
    walker = Walker(tokenizer, seed)
    refused: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    times, noted, files = [], 0, sorted(directory.rglob("*.json"))
    for file in files:
        schema = read_schema(file)
        ignored: list[str] = []
        began = time.thread_time()
        try:
            matcher = compile_grammar(tokenizer, Grammar("json_schema", schema_text(schema, "schema", ignored)))
            rehearse(tokenizer, matcher)
        except (GrammarError, ValidationError) as error:
            refused[str(error)[:100]] += 1
            continue
        times.append(1000 * (time.thread_time() - began))
        noted += bool(ignored)
        for _ in range(walks):
            text = walker.answer(matcher)
            wrong = None if text is None else violation(text, schema)
            ends["cut" if text is None else "fits" if wrong is None else "violates"] += 1
            if wrong is not None:
                console.print(f"  {file.name}: {wrong}", markup=False)
    accepted = len(files) - refused.total()
    console.print(
        f"{accepted} of {len(files)} accepted ({accepted / max(len(files), 1):.1%}), {noted} but for a format"
    )
    if times:
        times.sort()
        console.print(f"compile: median {percentile(times, 50):.1f} ms, p99 {percentile(times, 99):.1f} ms")
    console.print(f"answers: {dict(ends)}")
    for reason, count in refused.most_common(15):
        console.print(f"  refused {count}: {reason}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=DEMO, help="a model's directory")
    parser.add_argument("--walks", type=int, default=5, help="answers to each schema")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    own = Tokenizer.load(arguments.tokenizer)
    tokenizer = make_tokenizer(make_vocabulary(own, own.vocab_size, (0,)), own.vocab_size)
    threading.stack_size(STACK)
    thread = threading.Thread(target=measure, args=(arguments.directory, tokenizer, arguments.walks, arguments.seed))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
