"""The findings of `tgi inspect` for people."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgi.commands.inspect.findings import Cache, Files, Inspection, Kind, Tensors
from tgi.shorten import size
from tgi.untrusted import printable

NARROWEST, WIDEST = 80, 140
ROUTES = {"native": "native", "transformers": "through transformers", "refused": "none"}
NAMES_SHOWN = 8


def render(found: Inspection, width: int = 110, color: bool = False) -> str:
    """Facts, parameters, program, tensors, and whether it can be served."""
    width = min(max(width, NARROWEST), WIDEST)
    console = Console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    console.print(_facts(found))
    if found.parts:
        console.print(Text("\nParameters", style="bold"))
        console.print(_parts(found))
    for title, kinds in (("Encoder", found.encoder), ("Decoder" if found.encoder else "Program", found.program)):
        if kinds:
            console.print(Text(f"\n{title}", style="bold"))
            console.print(_program(kinds))
    if found.tensors is not None:
        console.print(Text("\nTensors", style="bold"))
        console.print(_tensors(found.tensors))
    console.print()
    console.print(_verdict(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def _grid() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=14)
    table.add_column(overflow="fold")
    return table


def _facts(found: Inspection) -> Table:
    table = _grid()
    for name, text in _rows(found):
        table.add_row(name, Text(text))
    return table


def _rows(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "model", printable(found.model_id)
    if found.path != found.model_id:
        yield "files in", printable(found.path)
    kind = printable(found.model_type or "not named in config.json")
    title = f" ({found.title})" if found.title else ""
    yield "type", kind + title + "".join(f", {printable(name)}" for name in found.architectures[:3])
    yield "route", f"{ROUTES[found.route]}: {found.why}"
    if found.files is not None:
        yield "weights", _weights(found, found.files)
    if found.serving_dtype is not None and found.weight_bytes is not None:
        most = "at most " if found.quantisation else ""  # what codes take is known when they are packed
        yield "served in", f"{found.serving_dtype}, {most}{size(found.weight_bytes)} of weights"
    if found.context is not None:
        yield "context", f"{found.context:,} tokens, vocabulary of {found.vocabulary or 0:,}"
    if found.cache is not None:
        yield "a sequence", _cache(found.cache)
    yield "tokenizer", printable(found.tokenizer or "none")
    template = {True: "yes", False: "none", None: "not looked for: perhaps in tokenizer_config.json"}
    yield "chat template", template[found.chat_template]


def _weights(found: Inspection, files: Files) -> str:
    count = f"{len(files.names)} file" + ("s" if len(files.names) != 1 else "")
    text = f"{found.quantisation or found.stored_dtype or 'plain'}, {files.format}, {count}"
    if files.bytes is not None:
        text += f", {size(files.bytes)}"
    if found.bits_per_weight is not None:
        text += f", {found.bits_per_weight:g} bits per weight"
    if files.types:
        kinds = sorted(files.types.items(), key=lambda item: -item[1])
        text += " (" + ", ".join(f"{printable(name)} {number}" for name, number in kinds) + ")"
    return text


def _cache(cache: Cache) -> str:
    text = f"{size(cache.bytes_per_token)} of keys and values a token in {cache.dtype}"
    return text + (f", and {size(cache.state_bytes)} of states" if cache.state_bytes else "")


def _parts(found: Inspection) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=14, justify="right")
    table.add_column(width=7, justify="right")
    table.add_column()
    whole = found.parameters or 1
    for part in found.parts:
        table.add_row(f"{part.parameters:,}", f"{part.parameters / whole:.1%}", part.name)
    table.add_row(f"{whole:,}", "100.0%", "in all")
    return table


def _program(kinds: Sequence[Kind]) -> Table:
    table = _grid()
    for kind in kinds:
        table.add_row(Text(_title(kind), style="cyan"), Text(numbers(kind.layers), style="cyan"))
        for operation in kind.operations:
            formula, _, names = operation.partition("    ")
            table.add_row("", Text.assemble(formula, (f"  {printable(names)}" if names else "", "dim")))
    return table


def _title(kind: Kind) -> str:
    if not kind.layers:
        return kind.name
    return f"{len(kind.layers)} x layer" if len(kind.layers) > 1 else "layer"


def _tensors(tensors: Tensors) -> Table:
    table = _grid()
    table.add_row("stored", f"{tensors.stored:,}, of which {tensors.found:,} are of the {tensors.needed:,} needed")
    for name, names, count in (
        ("missing", tensors.missing, tensors.missing_count),
        ("unused", tensors.unused, tensors.unused_count),
        ("other shape", tensors.misshapen, len(tensors.misshapen)),
    ):
        if count:
            more = f" and {count - NAMES_SHOWN:,} more" if count > NAMES_SHOWN else ""
            table.add_row(name, Text(f"{count:,}: " + ", ".join(map(printable, names[:NAMES_SHOWN])) + more))
    if tensors.ignored_count:
        table.add_row("ignored", f"{tensors.ignored_count:,}, which carry nothing that is needed")
    return table


def _verdict(found: Inspection) -> Text:
    if not found.problems:
        return Text("It can be served here.", style="green")
    text = Text("It cannot be served here:", style="red")
    for sentence in found.problems:
        text.append(f"\n  {printable(sentence, 2000)}", style="default")
    return text


def numbers(layers: Sequence[int]) -> str:
    """0-2, 4, 6-8"""
    runs = []
    for _, run in itertools.groupby(enumerate(layers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        runs.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else str(members[0]))
    return ", ".join(runs)
