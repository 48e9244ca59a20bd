"""Command line and environment -> `LauncherConfig`.

A small reflector over the fields of `flags.LauncherConfig`: the command line beats the environment, which beats the
file of --config, which beats the default. Messages have the shape that TGI's users know (`error: unexpected argument
...` with a tip). Checks one value at a time; what flags say about each other is checked by `resolve`. Pure, but for
the file that --config names: the environment comes in as a mapping.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgi.settings import config_file
from tgi.settings.config import FLAGLESS_SWITCHES, switch
from tgi.settings.flags import SWITCH, Bytes, Flag, LauncherConfig
from tgi.settings.foreign import notices, sentence
from tgi.untrusted import printable

SAGEMAKER = {
    "HF_MODEL_ID": "MODEL_ID",
    "HF_MODEL_REVISION": "REVISION",
    "SM_NUM_GPUS": "NUM_SHARD",
    "HF_MODEL_QUANTIZE": "QUANTIZE",
    "HF_MODEL_TRUST_REMOTE_CODE": "TRUST_REMOTE_CODE",
}
"""SageMaker's variables -> ours."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


class UsageError(Exception):
    """The command line cannot be understood; exit status 2."""

    def __init__(self, message: str, tip: str | None = None) -> None:
        super().__init__(message)
        self.tip = tip


@dataclass(frozen=True)
class Option:
    """A flag as the command line sees it."""

    name: str
    """Field name."""
    type: Any
    """bool, int, float, str, Bytes or tuple."""
    flag: Flag
    default: Any

    @property
    def long(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str | None:
        return self.name.upper() if self.flag.env == "" else self.flag.env

    @property
    def metavar(self) -> str:
        return {int: "<N>", float: "<X>", Bytes: "<SIZE>"}.get(self.type, "<VALUE>")


@dataclass(frozen=True)
class Parsed:
    config: LauncherConfig
    given: dict[str, str]
    """Field name -> where its value came from: `--port`, or `the environment variable PORT`."""
    warnings: tuple[str, ...] = ()


def options(flags: type = LauncherConfig) -> tuple[Option, ...]:
    """All flags, in the order of the dataclass that declares them."""
    hints = typing.get_type_hints(flags)
    return tuple(
        Option(field.name, _plain_type(hints[field.name]), field.metadata["flag"], field.default)
        for field in dataclasses.fields(flags)
    )


def parse(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    defaults: Mapping[str, Any] | None = None,
    *,
    positional: bool = False,
) -> Parsed:
    """Read the flags of a command.

    `defaults` replaces defaults of `LauncherConfig`, since `tgi serve` has friendlier ones. `positional`: the model may
    be given without --model-id. Raises `UsageError`.
    """
    check_switches(environment)
    by_position = "model_id" if positional else None
    read, given = read_values(options(), arguments, sagemaker(environment), by_position, sentence)
    if "config" in read:
        _add_file(read, given, read["config"])
    values: dict[str, Any] = {**(defaults or {}), **read}
    warnings = _google_port(values, given, environment)
    warnings += notices(environment)
    warnings += _check_hostname(values, given, defaults or {})
    return Parsed(LauncherConfig(**values), given, warnings)


def read_values(
    known: Sequence[Option],
    arguments: Sequence[str],
    variables: Mapping[str, str],
    positional: str | None = None,
    foreign: Callable[[str], str | None] = lambda word: None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of the flags that were given, and where each came from.

    `positional`: name of the flag whose value may be given alone; `foreign`: the sentence for a flag of another
    program. Raises `UsageError`.
    """
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for option in known:
        text = variables.get(option.env or "", "")
        if text:
            source = f"the environment variable {option.env}"
            values[option.name] = convert(option, text, source)
            given[option.name] = source
    for option, text in split(arguments, known, positional, foreign):
        value = convert(option, text, option.long)
        if option.type is tuple and given.get(option.name) == option.long:
            value = (*values[option.name], *value)
        values[option.name] = value
        given[option.name] = option.long
    return values, given


def check_switches(environment: Mapping[str, str]) -> None:
    """Refuse variables without a flag that are to turn something on or off and say neither. Raises `UsageError`."""
    for name in FLAGLESS_SWITCHES:
        if text := environment.get(name):
            to_switch(text, f"the environment variable {name}")


def sagemaker(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with SageMaker's names translated; a name of our own wins over it.

    SageMaker calls port 8080, so that is the port when its `HF_MODEL_ID` is there and PORT is not.
    """
    variables = dict(environment)
    for theirs, ours in SAGEMAKER.items():
        if environment.get(theirs):
            variables.setdefault(ours, environment[theirs])
    if environment.get("SM_NUM_GPUS") == "0" and "NUM_SHARD" not in environment:
        del variables["NUM_SHARD"]  # an instance without GPUs, not a wish for no shards
    if environment.get("HF_MODEL_ID"):
        variables.setdefault("PORT", "8080")
    return variables


def _add_file(values: dict[str, Any], given: dict[str, str], name: str) -> None:
    """Add what the file of --config says of flags that were not given. Raises `UsageError`, `ArgumentError`."""
    known = {option.long: option for option in options() if option.name != "config"}
    seen: set[str] = set()
    for key, texts in config_file.read(name):
        option = known.get("--" + key.replace("_", "-"))
        source = f"`{printable(key)}` of {printable(name)}"
        if option is None:
            near = difflib.get_close_matches("--" + key, known, n=1, cutoff=0.6)
            advice = sentence(f"--{key}")
            tip = f"a similar name exists: '{near[0][2:]}'" if near and not advice else None
            raise UsageError(f"{source}: {advice}" if advice else f"{source} is no flag", tip)
        if option.name in seen or (len(texts) != 1 and option.type is not tuple):
            raise UsageError(f"{source} can have one value only")
        seen.add(option.name)
        converted = [convert(option, text, source) for text in texts]
        if option.name not in given or (option.name == "hostname" and not _is_address(values["hostname"])):
            values[option.name] = (
                tuple(one for each in converted for one in each) if option.type is tuple else converted[0]
            )
            given[option.name] = source


def _google_port(values: dict[str, Any], given: dict[str, str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Vertex AI says where it will call: AIP_HTTP_PORT wins over every other port, as in TGI."""
    source = "the environment variable AIP_HTTP_PORT"
    text = environment.get("AIP_HTTP_PORT")
    if not text:
        return ()
    port = convert(next(option for option in options() if option.name == "port"), text, source)
    replaced = values.get("port") if given.get("port") == "--port" else port
    values["port"], given["port"] = port, source
    return () if replaced == port else (f"--port {replaced} gives way to {port} from {source}",)


def split(
    arguments: Sequence[str],
    known: Sequence[Option],
    positional: str | None = None,
    foreign: Callable[[str], str | None] = lambda word: None,
) -> list[tuple[Option, str]]:
    """Cut a command line into (option, text of its value); `--flag` alone gives `true` to a switch.

    The other parameters are as for `read_values`.
    """
    by_name = {option.long: option for option in known}
    by_short = {option.flag.short: option for option in known if option.flag.short}
    alone = next((option for option in known if option.name == positional), None)
    pairs, words = [], []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if alone is not None and not word.startswith("-"):
            words.append(word)
            continue
        if name not in by_name and name not in by_short and (advice := foreign(name)):
            raise UsageError(advice)
        option = by_name.get(name) or by_short.get(word[:2])
        if option is None:
            raise unknown(word, [*by_name, "--help", "--version"])
        if not word.startswith("--") and len(word) > 2:
            pairs.append((option, word[2:].removeprefix("=")))
        elif equals:
            pairs.append((option, value))
        elif option.type is bool:
            explicit = bool(rest) and switch(rest[0]) is not None
            pairs.append((option, rest.pop(0) if explicit else "true"))
        elif rest:
            pairs.append((option, rest.pop(0)))
        else:
            raise UsageError(f"a value is required for '{option.long} {option.metavar}' but none was supplied")
    return pairs if alone is None else _with_words(pairs, words, alone)


def _with_words(pairs: list[tuple[Option, str]], words: list[str], option: Option) -> list[tuple[Option, str]]:
    """The pairs with the value that was given without its flag. Raises `UsageError` for more than one value."""
    if len(words) > 1:
        raise UsageError(f"unexpected argument '{printable(words[1])}' found: {printable(words[0])} was given before")
    named = [text for known, text in pairs if known == option]
    for word in words:
        if named and named[-1] != word:
            raise UsageError(
                f"{printable(word)} and {option.long} {printable(named[-1])} are two different values: give one"
            )
        pairs = [*pairs, (option, word)]
    return pairs


def unknown(word: str, names: Sequence[str]) -> UsageError:
    """The error for an argument nobody knows, with the nearest name as a tip."""
    near = difflib.get_close_matches(word.partition("=")[0], names, n=1, cutoff=0.6)
    return UsageError(
        f"unexpected argument '{word}' found", f"a similar argument exists: '{near[0]}'" if near else None
    )


def convert(option: Option, text: str, source: str) -> Any:
    """The value that `text` stands for. Raises `UsageError` naming where the text came from."""
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that no text has
        raise _invalid(printable(text), source, "it is not valid UTF-8") from None
    if option.flag.choices == SWITCH:
        return str(to_switch(text, source)).lower()
    if option.flag.choices and text not in option.flag.choices:
        near = difflib.get_close_matches(text, option.flag.choices, n=1)
        possible = f"possible values: {', '.join(option.flag.choices)}"
        raise _invalid(text, source, possible, f"a similar value exists: '{near[0]}'" if near else None)
    if option.type is bool:
        return to_switch(text, source)
    if option.type is tuple:
        return (text,)
    if option.type is Bytes:
        return parse_bytes(text, source)
    if option.type is int:
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise _invalid(text, source, "a whole number, 0 or more, is needed")
        if option.flag.maximum is not None and int(text) > option.flag.maximum:
            raise _invalid(text, source, f"{text} is not in 0..={option.flag.maximum}")
        return int(text)
    if option.type is float:
        try:
            number = float(text)
        except ValueError:
            raise _invalid(text, source, "a number is needed") from None
        if not math.isfinite(number):
            raise _invalid(text, source, "a finite number is needed")
        return number
    return text


def to_switch(text: str, source: str) -> bool:
    """What a word says about a switch. Raises `UsageError`."""
    value = switch(text)
    if value is None:
        raise _invalid(text, source, "possible values: true, false (or 1, 0, yes, no, on, off)")
    return value


def parse_bytes(text: str, source: str = "--memory") -> int:
    """`24GiB`, `24g`, `512MB`, `1.5GiB` or `1000` in bytes; GiB counts by 1024, GB and g by 1000."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise _invalid(text, source, "an amount such as 24GiB, 512MB or a number of bytes is needed")
    return int(float(match[1]) * _UNITS[match[2]])


def _invalid(text: str, source: str, why: str, tip: str | None = None) -> UsageError:
    return UsageError(f"invalid value '{text}' for '{source}': {why}", tip)


def _plain_type(hint: Any) -> Any:
    """`int | None` -> int, `tuple[str, ...]` -> tuple."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.get_origin(hint) or hint


def _check_hostname(values: dict[str, Any], given: Mapping[str, str], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    """Replace a host name that is no IP address by the default, as TGI does.

    In a container the variable HOSTNAME holds the container's id, which nobody meant as an address.
    """
    host = values.get("hostname")
    if host is None:
        return ()
    if host == "localhost":
        values["hostname"] = "127.0.0.1"
        return ()
    if not _is_address(host):
        fallback = defaults.get("hostname", "0.0.0.0")
        values["hostname"] = fallback
        if "hostname" not in given:
            return ()
        return (f"Invalid hostname {host!r} from {given['hostname']}: not an IP address, listening on {fallback}",)
    return ()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
