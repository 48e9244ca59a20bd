"""`tgi chat` as people use it: in a terminal, driven through tmux."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.chat_server import ChatServer
from tests.e2e.launched import environment
from tgi.launcher.registry import running

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A pane of a tmux of its own that runs `tgi chat`."""

    def __init__(self, home: Path, *words: str, **variables: str) -> None:
        self._tmux = ["tmux", "-L", f"tgi-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
        values = environment(home, **variables)
        chat = [sys.executable, "-m", "tgi", "chat", *words]
        command = shlex.join(
            ["env", "-i", *(f"{name}={value}" for name, value in values.items()), "TERM=screen", *chat]
        )
        self.run("new-session", "-d", "-x", "80", "-y", "24", f"{command}; echo ended $?; sleep 60")

    def run(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, timeout=20, check=True).stdout

    def type(self, text: str, *keys: str) -> None:
        self.run("send-keys", "-l", "--", text)
        self.run("send-keys", *(keys or ("Enter",)))

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def screen(self, *options: str) -> str:
        return self.run("capture-pane", "-p", "-S", "-200", *options)

    def wait(self, found: str | Callable[[str], bool], timeout: float = 20.0) -> str:
        """The screen, once it shows something."""
        deadline = time.monotonic() + timeout
        while True:
            screen = self.screen()
            if found(screen) if callable(found) else found in screen:
                return screen
            assert time.monotonic() < deadline, f"{found!r} never came:\n{screen}"
            time.sleep(0.05)

    def end(self, key: str = "C-d") -> None:
        """End the chat when it waits for input, and see that it ends well."""
        self.wait(lambda screen: screen.rstrip().endswith("\n>>>"))
        self.press(key)
        self.wait("ended 0")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(delay_s=0.02) as server:
        yield server


@pytest.fixture
def terminal(server: ChatServer, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, server.url)
    try:
        terminal.wait(">>>")
        yield terminal
    finally:
        terminal.close()


def asked(server: ChatServer, count: int) -> list[str]:
    """Texts of the messages of the last of so many requests."""
    deadline = time.monotonic() + 20
    while len(server.requests) < count:
        assert time.monotonic() < deadline, server.requests
        time.sleep(0.02)
    return [message["content"] for message in server.requests[-1]["messages"]]


def test_several_lines(terminal: Terminal, server: ChatServer) -> None:
    terminal.type("one\\")
    terminal.type("two", "M-Enter")
    terminal.type("three", "C-j")
    terminal.type("four")
    assert asked(server, 1) == ["one\ntwo\nthree\nfour"]
    terminal.wait("four\n[1 token]")
    terminal.run("set-buffer", "pasted\nlines")
    terminal.run("paste-buffer", "-p")
    terminal.press("Enter")
    assert asked(server, 2)[-1] == "pasted\nlines"


def test_ctrl_c_stops_an_answer_and_keeps_the_part(terminal: Terminal, server: ChatServer) -> None:
    terminal.type("words 2000")
    terminal.wait("w20 ")
    terminal.press("C-c")
    terminal.wait("[stopped; the part above is kept]")
    assert server.left.wait(10), "the answer goes on at the server"
    terminal.type("half a thought", "C-c")
    terminal.type("next")
    texts = asked(server, 2)
    assert texts[0] == "words 2000" and texts[1].startswith("w0 w1 ") and texts[2] == "next"
    terminal.wait("You said: next")
    terminal.end()


def test_what_is_typed_during_an_answer_waits_for_its_turn(terminal: Terminal, server: ChatServer) -> None:
    terminal.type("words 60")
    terminal.wait("w10 ")
    terminal.type("typed ahead")
    screen = terminal.wait("You said: typed ahead")
    answer = "".join(f"w{n}" for n in range(60))
    assert answer in "".join(screen.split()), "it stands in the middle of the answer"
    assert asked(server, 2)[-1] == "typed ahead"
    terminal.type("and now ")
    assert "and now" in terminal.wait("and now"), "what is typed is shown again"


def test_resize(terminal: Terminal, server: ChatServer) -> None:
    terminal.type("words 60")
    terminal.wait("w10 ")
    terminal.run("resize-window", "-x", "40", "-y", "12")
    terminal.wait("tokens/s]")
    terminal.type("x" * 50, "C-j")
    terminal.run("resize-window", "-x", "100", "-y", "30")
    terminal.type("y")
    assert asked(server, 2)[-1] == "x" * 50 + "\ny"
    terminal.wait("y\n[1 token]")
    terminal.type("/quit")
    terminal.wait("ended 0")


def test_commands_reasoning_and_history(terminal: Terminal, server: ChatServer, tmp_path: Path) -> None:
    terminal.type("/set temperature 9999999999999999999999999")
    terminal.wait("temperature is ")
    terminal.type("/set top_p 7")
    terminal.wait("top_p is 0 to 1, not 7")
    terminal.type("think")
    screen = terminal.wait("You said: think")
    assert "let me see\n\nYou said: think" in screen
    assert "\x1b[2mlet me see" in terminal.screen("-e")
    terminal.end()
    again = Terminal(tmp_path, server.url, NO_COLOR="1")
    try:
        again.wait(">>>")
        again.press("Up", "Enter")
        assert asked(server, 2) == ["think"]
        again.wait("Thinking: let me see")
        assert "\x1b[2m" not in again.screen("-e")
    finally:
        again.close()


@pytest.mark.slow
def test_a_server_that_is_started_is_stopped(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "tgi-demo", "--threads", "1", "--set", "max_tokens=8", TMPDIR=str(tmp_path))
    try:
        terminal.wait("Starting tgi-demo: ")
        terminal.wait(">>>", 60)
        assert "INFO" not in terminal.screen()
        terminal.type("Hello")
        terminal.wait("tokens/s")
        terminal.end()
        assert list((tmp_path / ".cache/tgi-servers").iterdir()) == []
    finally:
        terminal.close()


@pytest.mark.slow
def test_a_terminal_that_is_closed_takes_the_server_along(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "tgi-demo", "--threads", "1", TMPDIR=str(tmp_path))
    try:
        terminal.wait(">>>", 60)
        assert len(running({"HOME": str(tmp_path)})) == 1
    finally:
        terminal.close()
    deadline = time.monotonic() + 20
    while running({"HOME": str(tmp_path)}):
        assert time.monotonic() < deadline, "the server still runs"
        time.sleep(0.1)


CHAT_THAT_IS_KILLED = """
import os, time
from tgi.commands.chat.server import started
with started(["tgi-demo", "--threads", "1"], "tgi-demo", lambda line: None, os.environ):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_chat_that_is_killed_takes_the_server_along(tmp_path: Path) -> None:
    variables = environment(tmp_path, TMPDIR=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", CHAT_THAT_IS_KILLED], env=variables, stdout=subprocess.PIPE) as chat:
        assert chat.stdout is not None and chat.stdout.readline() == b"ready\n"
        (server,) = running({"HOME": str(tmp_path)})
        chat.kill()
    deadline = time.monotonic() + 20
    while running({"HOME": str(tmp_path)}):
        assert time.monotonic() < deadline, f"the server {server.pid} still runs"
        time.sleep(0.1)
    assert list(tmp_path.glob("tgi-chat*")) == [], "a log is left"
