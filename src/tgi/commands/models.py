"""`tgi pull`, `list`, `show` and `rm`: models in the hub's cache on this disk, and those with short names.

What the cache holds is `hub.cached`'s to know, short names are `hub.known`'s. Whether a model can be served is asked of
the check that `tgi serve` makes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tgi import hardware, logs
from tgi.commands.columns import columns, duration
from tgi.commands.ending import show as print_out
from tgi.commands.simple_flags import SimpleFlags, simple_flags
from tgi.errors import DownloadError, StartupError
from tgi.hub import cached, known
from tgi.hub.cached import CachedModel
from tgi.hub.prepare import suitability
from tgi.launcher.registry import running
from tgi.settings.config import environment_settings
from tgi.settings.flags import LauncherConfig
from tgi.settings.parse import Parsed, UsageError
from tgi.shorten import size
from tgi.untrusted import printable

CACHE = "--huggingface-hub-cache"
LIST_HELP = """\
List the models in the hub's cache on this disk.

Usage: tgi list [OPTIONS]

Shows size (with what was converted here), last use, and whether `tgi serve` takes them; memory does not count.

Options:
  --known        List the models with short names instead, with licence, size, and what fits this machine
  --json         Print the list as JSON
  --huggingface-hub-cache VALUE
                 Where downloads are kept [env: HUGGINGFACE_HUB_CACHE]
  -h, --help     Print this text"""
SHOW_HELP = """\
Show what is known of a model: in the cache, or by its short name.

Usage: tgi show MODEL [OPTIONS]

Looks at this disk alone; `tgi inspect` shows how a model is computed, `tgi plan` where the memory goes.

Options:
  --json         Print it as JSON
  --huggingface-hub-cache VALUE
                 Where downloads are kept [env: HUGGINGFACE_HUB_CACHE]
  -h, --help     Print this text"""
RM_HELP = """\
Remove a model from the hub's cache, with what was converted from it.

Usage: tgi rm MODEL [OPTIONS]

Options:
  -y, --yes      Do not ask
  --huggingface-hub-cache VALUE
                 Where downloads are kept [env: HUGGINGFACE_HUB_CACHE]
  -h, --help     Print this text"""


def list_models(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi list`: exit status 0. Raises UsageError."""
    flags = simple_flags(words, LIST_HELP, switches=("--known", "--json"), values=(CACHE,))
    if flags is None:
        return 0
    if "--known" in flags.given:
        return _list_known("--json" in flags.given)
    logs.configure("error", stream=sys.stderr)
    found = [_facts(model, variables) for model in cached.models(variables, flags.values.get(CACHE))]
    if "--json" in flags.given:
        return _print_json(found)
    rows = [
        (one["id"], size(one["bytes"]), _ago(one["used"]), "yes" if one["problem"] is None else f"no: {one['problem']}")
        for one in found
    ]
    print_out(columns(("MODEL", "SIZE", "LAST USED", "CAN BE SERVED"), rows, right=(1,)))
    if rows:
        place, total = cached.place(variables, flags.values.get(CACHE)), sum(one["bytes"] for one in found)
        print_out(f"\n{size(total)} in {place}")
    return 0


def show(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi show`: exit status 0. Raises UsageError, DownloadError."""
    flags = simple_flags(words, SHOW_HELP, switches=("--json",), values=(CACHE,), most_words=1)
    if flags is None:
        return 0
    logs.configure("error", stream=sys.stderr)
    name, model, of_table = _named(flags, variables)
    if model is None and of_table is None:
        raise DownloadError(f"{printable(name)} is neither in the cache nor a short name{_similar(name)}")
    facts: dict[str, Any] = {"id": of_table.id if of_table else name}
    if of_table is not None:
        facts |= {"licence": of_table.licence, "parameters": int(of_table.billions * 1e9)}
        facts |= {"sizes": of_table.sizes(), "fits": of_table.fitting(hardware.total_memory_bytes())}
    facts["cached"] = model is not None
    if model is not None:
        facts |= _facts(model, variables)
    if "--json" in flags.given:
        return _print_json(facts)
    print_out(columns(("", ""), list(_told(facts))).lstrip("\n"))
    return 0


def rm(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi rm`: exit status 0, 1 when it was not wanted after all. Raises UsageError, DownloadError."""
    flags = simple_flags(words, RM_HELP, switches=("--yes",), values=(CACHE,), short={"-y": "--yes"}, most_words=1)
    if flags is None:
        return 0
    name, model, _ = _named(flags, variables)
    if model is None:
        near = [one.id for one in cached.models(variables, flags.values.get(CACHE)) if name.lower() in one.id.lower()]
        raise DownloadError(
            f"{printable(name)} is not in the cache" + (f"; there is {', '.join(near)}" if near else "")
        )
    if user := next((server for server in running(variables) if server.model == model.id), None):
        raise DownloadError(f"{model.id} is served by process {user.pid}, on {user.url}: stop that first")
    freed = size(model.bytes + model.unfinished_bytes)
    if "--yes" not in flags.given:
        if not sys.stdin.isatty():
            raise UsageError(f"{model.id} with {freed} would be removed: say so with -y")
        if input(f"Remove {model.id} with {freed}? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    cached.remove(model)
    print_out(f"removed {model.id}: {freed}")
    return 0


def _named(flags: SimpleFlags, variables: Mapping[str, str]) -> tuple[str, CachedModel | None, known.Known | None]:
    """The full name of the model that is meant, with what the cache and the table of short names know of it."""
    if not flags.words:
        raise UsageError("a model is needed")
    found = known.look_up(flags.words[0])
    name = found[1].id if found else flags.words[0]
    of_table = next((one for one in known.KNOWN.values() if one.id.lower() == name.lower()), None)
    return name, cached.find(name, variables, flags.values.get(CACHE)), of_table


def _facts(model: CachedModel, variables: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": model.id,
        "bytes": model.bytes,
        "unfinished_bytes": model.unfinished_bytes,
        "used": model.used,
        "revisions": {name: str(path) for name, path in model.revisions.items()},
        "problem": problem_of(model, variables),
    }


def problem_of(model: CachedModel, variables: Mapping[str, str]) -> str | None:
    """Why a model cannot be served; None when it can, as far as its files tell."""
    directory = model.snapshot
    if directory is None:
        return "no revision is complete"
    names = [path.name for path in directory.iterdir()]
    if any(name.endswith(".gguf") for name in names):
        return None  # what is in the file shows when it is served
    if "config.json" not in names:
        return "it has no config.json"
    try:
        parsed = Parsed(LauncherConfig(model_id=model.id), {})
        judge = suitability(parsed, environment_settings(variables), hardware.detect(), memory=False)
        judge.check_config(directory, names)
        judge.check_files(directory)
    except StartupError as error:
        return printable(error)
    return None


def _list_known(as_json: bool) -> int:
    memory = hardware.total_memory_bytes()
    if as_json:
        return _print_json(
            {
                name: {**msgspec.to_builtins(one), "sizes": one.sizes(), "fits": one.fitting(memory)}
                for name, one in known.KNOWN.items()
            }
        )
    rows = []
    for name, one in known.KNOWN.items():
        sizes = one.sizes()
        cells = [_short(sizes[form]) if form in sizes else "-" for form in known.BITS]
        amounts = (f"{one.billions:g}B", _short(one.download_bytes), *cells)
        rows.append((name, *amounts, _fits(one, memory), one.licence, one.id))
    head = ("NAME", "SIZE", "DOWNLOAD", "BFLOAT16", "INT8", "INT4", "FITS HERE", "LICENCE", "MODEL")
    print_out(columns(head, rows, right=(1, 2, 3, 4, 5)))
    print_out(
        f"\nSizes in memory by --quantize, about; this machine has {size(memory)}. `tgi plan MODEL` knows better."
    )
    return 0


def _short(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _fits(model: known.Known, memory: int) -> str:
    form = model.fitting(memory)
    if form is None:
        return "no"
    return "yes" if form in ("bfloat16", model.stored) else f"--quantize {form}"


def _told(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("model", facts["id"])]
    if "licence" in facts:
        rows += [("licence", facts["licence"]), ("parameters", f"{facts['parameters'] / 1e9:g}B")]
        rows += [(f"in memory as {form}", f"about {size(count)}") for form, count in facts["sizes"].items()]
        rows.append(("fits this machine", f"as {facts['fits']}" if facts["fits"] else "no"))
    if not facts["cached"]:
        return [*rows, ("on this disk", f"no: tgi pull {facts['id']}")]
    rows += [("on this disk", size(facts["bytes"])), ("last used", _ago(facts["used"]))]
    if facts["unfinished_bytes"]:
        rows.append(("unfinished transfers", size(facts["unfinished_bytes"])))
    rows += [(f"revision {name}", path) for name, path in facts["revisions"].items()]
    return [*rows, ("can be served", "yes" if facts["problem"] is None else f"no: {facts['problem']}")]


def _similar(name: str) -> str:
    near = known.near(name)
    return f"; did you mean {', '.join(near)}?" if near else ": see tgi list and tgi list --known"


def _ago(moment: float) -> str:
    return f"{duration(max(0.0, time.time() - moment))} ago" if moment else "never"


def _print_json(value: Any) -> int:
    print_out(msgspec.json.format(msgspec.json.encode(value)).decode())
    return 0
