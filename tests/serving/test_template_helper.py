"""Templates are foreign code: whatever they do ends soon, in bounded memory, and harms nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import small_tokenizers as build
from tests.fake_engine import FakeEngine
from tgi.errors import OverloadedError, TemplateError
from tgi.serving import service as service_module
from tgi.serving import template_helper
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.service import Service
from tgi.serving.template_helper import HelperPool
from tgi.serving.template_wants import Wants
from tgi.settings.config import ApiConfig

USER = [{"role": "user", "content": "Hi"}]
GROW = "{% set ns = namespace(x=START) %}{% for i in range(200) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x | string }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = [
    # numbers, strings and lists that double with each step
    GROW.replace("START", "3").replace("STEP", "ns.x * ns.x"),
    GROW.replace("START", "'abc'").replace("STEP", "ns.x ~ ns.x"),
    GROW.replace("START", "[1]").replace("STEP", "ns.x + ns.x"),
    # one operation that allocates
    "{{ 'x'.ljust(10 ** 11) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '\t'.expandtabs(2147483647) | length }}",
    "{{ 'x' | center(9999999999) }}",
    "{{ [1] | batch(999999999, 0) | list | length }}",
    "{{ messages | tojson(indent=999999999) }}",
    "{{ [[1]] | tojson(indent='x' * 999999) | replace('', 'x' * 999999) }}",
    "{{ range(99999) | map('string') | join('x' * 999999) | length }}",
    "{{ 'a'.replace('', 'x' * 999999).replace('', 'x' * 999999) | length }}",
    "{{ 1 .to_bytes(9999999999, 'big') }}",
    # what has no end
    "{{ [1] | slice(999999999) | list | length }}",
    ENDLESS,
    "{{ 1 | round(9999999, 'floor') }}",
    # while it is compiled
    "{{ 'a'" + "~'aaaaaaaaaaaa'" * 20_000 + " }}",
    "{{ '" + "x" * 9_999 + "'" + ".replace('x','xxxxxxxxxx')" * 12 + " }}",
    "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
]


def render(pool: HelperPool, name: str, seconds: float = 5.0) -> str:
    return pool.ask("render", seconds, {"name": name, "wants": Wants().plain()}, USER)


def test_whatever_a_template_does_ends():
    """Each fails with a sentence, none takes longer than it may, and the pool goes on afterwards."""
    pool = HelperPool({"good": "{{ messages[0].content }}"} | {str(i): text for i, text in enumerate(HOSTILE)}, {})
    for number, text in enumerate(HOSTILE):
        began = time.monotonic()
        with pytest.raises(TemplateError) as caught:
            render(pool, str(number), 0.2)
        assert time.monotonic() - began < 30, text  # of which most is the start of a process, on a busy machine
        assert "ended the process" not in caught.value.message, text
        assert "Traceback" not in caught.value.message
    assert render(pool, "good") == "Hi"
    assert len(pool.pids) == 1
    pool.close()


def test_the_process_stays_warm_and_is_replaced_when_it_was_killed():
    pool = HelperPool({"good": "{{ messages[0].content }}", "loop": ENDLESS}, {})
    assert render(pool, "good") == "Hi"
    (first,) = pool.pids
    assert render(pool, "good") == "Hi"
    assert pool.pids == [first]
    with pytest.raises(TemplateError, match=r"did not finish in 0\.1 s"):
        render(pool, "loop", 0.1)
    (second,) = pool.pids
    assert second != first
    os.kill(second, 9)
    while running(second):
        time.sleep(0.01)
    assert render(pool, "good") == "Hi"
    (third,) = pool.pids
    pool.close()
    assert pool.pids == []
    assert not any(map(running, (first, second, third)))


def running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


PARENT = """
import os, signal, sys, threading, time
from tgi.serving.template_helper import HelperPool
pool = HelperPool({"a": "x", "b": sys.argv[1]}, {})
pool.ask("render", 60.0, {"name": "a", "wants": {}})
threading.Thread(target=pool.ask, args=("render", 60.0, {"name": "b", "wants": {}}), daemon=True).start()
time.sleep(0.2)
print(*pool.pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("template", ["idle", "{{ [1] | slice(999999999) | list | length }}", ENDLESS])
def test_the_process_dies_with_its_parent(template):
    """Also in the middle of one operation that takes minutes and never looks at anything."""
    parent = subprocess.run([sys.executable, "-c", PARENT, template], capture_output=True, text=True, check=False)
    (pid,) = map(int, parent.stdout.split())
    until = time.monotonic() + 10
    while running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not running(pid)


def test_the_process_gets_no_secrets_and_no_torch(monkeypatch):
    monkeypatch.setenv("API_KEY", "secret-1")
    monkeypatch.setenv("HF_TOKEN", "secret-2")
    monkeypatch.setenv("MY_PASSWORD", "secret-3")
    pool = HelperPool({"good": "x"}, {})
    render(pool, "good")
    (pid,) = pool.pids
    assert "secret" not in Path(f"/proc/{pid}/environ").read_text()
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    pool.close()
    code = "import sys, tgi.serving.template_process; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_starts_no_code_of_the_current_directory(tmp_path, monkeypatch):
    """A model's directory may hold files with names of modules."""
    for name in ("jinja2", "json", "socket", "tgi"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    template = ChatTemplate({"default": "{{ messages[0].content }}"})
    assert template.render(USER) == "Hi"
    template.close()
    assert not (tmp_path / "ran").exists()


def test_a_process_that_cannot_start_is_said(monkeypatch):
    template = ChatTemplate({"default": "x"})
    monkeypatch.setattr(template_helper, "MODULE", "tgi.no_such_module")
    with pytest.raises(TemplateError, match=r"does not start \(status 1\)"):
        template.render(USER)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(TemplateError, match="cannot be started"):
        template.render(USER)
    monkeypatch.undo()
    assert template.render(USER) == "x"  # it is tried anew each time
    template.close()


class Name(str):
    """A subclass, as enumerations of strings are."""


def test_values_that_are_not_plain_json():
    """Large numbers, half characters, tuples, subclasses; what cannot be given is said."""
    template = ChatTemplate({"default": "{{ value }}|{{ messages[0].content }}"})

    def shown(value: Any) -> str:
        return template.render([{"role": Name("user"), "content": Name("Hi")}], arguments={"value": value})

    assert shown(10**30) == f"{10**30}|Hi"
    assert shown("\ud800") == "\ud800|Hi"
    assert shown((1, Name("a"))) == "(1, 'a')|Hi"
    assert shown({"a": [1.5, None, True]}) == "{'a': [1.5, None, True]}|Hi"
    with pytest.raises(TemplateError, match=r"cannot be given to the template: it holds a object"):
        shown(object())
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateError, match="cannot be given to the template"):
        shown(deep)
    template.close()


def test_a_large_conversation_has_memory_enough():
    """The bound grows with the request, whose size --payload-limit bounds."""
    template = ChatTemplate({"default": "{{ messages | map(attribute='content') | join | length }}"})
    messages = [{"role": "user", "content": "é🎉" * 1_000_000}] * 3
    assert template.render(messages) == "6000000"
    many = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}] * 5_000
    assert template.render(many) == "10000"
    template.close()


@pytest.fixture
def service(tmp_path):
    path = build.write_checkpoint(tmp_path / "model")
    loaded = Service.load(ApiConfig("m", str(path)), FakeEngine.saying([1], finish="eos_token", delay_s=0.0))
    yield loaded
    loaded.close()


async def test_the_event_loop_goes_on_and_others_are_answered(service, monkeypatch):
    body = "{% if messages[0].content == 'Loop' %}{{ messages | slice(999999999) | list }}{% else %}fine{% endif %}"
    service.chat_template = ChatTemplate({"default": body})
    service.chat_template.inspect()
    monkeypatch.setattr(service_module, "RENDER_SECONDS", 0.5)
    hostile = asyncio.create_task(service.render_chat([{"role": "user", "content": "Loop"}]))
    await asyncio.sleep(0.05)
    monkeypatch.undo()
    other = asyncio.create_task(service.render_chat(USER))
    beats = 0
    while not (hostile.done() and other.done()):
        await asyncio.sleep(0.005)
        beats += 1
    with pytest.raises(TemplateError, match="did not finish"):
        await hostile
    assert await other == "fine"  # in another process
    assert beats > 3


async def test_long_conversations_wait_for_long_ones_only(service, monkeypatch):
    """However many of them there are, and however slow the template makes them."""
    body = "{% for m in messages if messages|length > 5 %}{% for n in messages %}{% endfor %}{% endfor %}fine"
    service.chat_template = ChatTemplate({"default": body})
    service.chat_template.inspect()
    slow = [asyncio.create_task(service.render_chat(USER * 40_000)) for _ in range(8)]
    await asyncio.sleep(0)
    monkeypatch.setattr(service_module, "RENDER_SECONDS", 30.0)
    assert await service.render_chat(USER) == "fine"
    assert not any(task.done() for task in slow[1:])
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_a_turn_that_does_not_come_is_refused(service, monkeypatch):
    monkeypatch.setattr(service_module, "RENDER_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(service_module, "RENDER_SECONDS", 1.0)
    service.chat_template = ChatTemplate({"default": ENDLESS})
    with pytest.raises(OverloadedError, match="its chat template takes too long"):
        await service.render_chat(USER)
