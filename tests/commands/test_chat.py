"""`tgi chat` without a terminal: one question, pipes, mistakes, and the commands inside."""

from __future__ import annotations

import io
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.chat_server import ChatServer
from tests.e2e.conftest import HAS_DEMO
from tests.e2e.launched import environment
from tgi.commands.chat import parameters
from tgi.commands.chat.client import Server
from tgi.commands.chat.command import cut
from tgi.commands.chat.conversation import Conversation, ConversationError
from tgi.commands.chat.screen import Screen, harmless
from tgi.commands.chat.server import is_address, phase
from tgi.commands.chat.session import Session, history_file
from tgi.settings.parse import UsageError


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def chat(home: Path, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tgi", "chat", *words]
    variables = environment(home, **variables)
    return subprocess.run(command, cwd=home, env=variables, input=stdin, capture_output=True, text=True, timeout=60)


def test_one_question(server: ChatServer, tmp_path: Path) -> None:
    words = ("--set", "temperature=0.5", "--set=top_k=3", "--system", "Be short.")
    ended = chat(tmp_path, server.url, "Hi", *words, API_KEY="secret")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "You said: Hi\n", "")
    (request,) = server.requests
    assert request["messages"] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    assert (request["temperature"], request["top_k"], request["model"]) == (0.5, 3, "org/fake")
    assert server.keys == ["Bearer secret"]


def test_from_a_pipe(server: ChatServer, tmp_path: Path) -> None:
    assert chat(tmp_path, server.url, "Summarise", stdin="a\nb\n").stdout == "You said: Summarise\n\na\nb\n"
    assert chat(tmp_path, server.url, stdin="only this").stdout == "You said: only this\n"
    nothing = chat(tmp_path, server.url)
    assert nothing.returncode == 2 and "there is no question" in nothing.stderr


def test_no_colours_and_no_reasoning_in_a_pipe(server: ChatServer, tmp_path: Path) -> None:
    ended = chat(tmp_path, server.url, "think")
    assert (ended.stdout, ended.stderr) == ("You said: think\n", "")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["127.0.0.1:9", "x"], 1, "cannot connect to http://127.0.0.1:9: nothing listens there"),
        (["./nothing", "x"], 1, "the server did not start: there is no directory ./nothing"),
        (["a", "b", "c"], 2, "unexpected argument 'c' found: put the question in quotes"),
        (["a", "b", "--set", "temprature=1"], 2, "did you mean temperature?"),
        (["a", "b", "--set", "top_p=2"], 2, "top_p is 0 to 1, not 2"),
        (["a", "b", "--systm", "x"], 2, "a similar argument exists: '--system'"),
        (["a", "b", "--temp", "0.3"], 2, "unexpected argument '--temp' found: use --set temperature=VALUE"),
        (["a", "b", "--top-k=3"], 2, "unexpected argument '--top-k=3' found: use --set top_k=3"),
        (["a", "b", "--quantize", "int9"], 2, "invalid value 'int9' for '--quantize'"),
        (["127.0.0.1:9", "b", "--quantize", "int8"], 2, "--quantize has no effect on 127.0.0.1:9"),
        (["a", "b", "--load", "./nothing.json"], 1, "nothing.json cannot be read"),
    ],
)
def test_mistakes(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    ended = chat(tmp_path, *words)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert says in ended.stderr and "Traceback" not in ended.stderr


def test_ctrl_c_ends_the_one_answer(tmp_path: Path) -> None:
    """What came stays; the exit status is that of an interrupted command, and nothing else is said."""
    with ChatServer(delay_s=0.05) as server:
        command = [sys.executable, "-m", "tgi", "chat", server.url, "words 1000"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        ) as child:
            assert child.stdout is not None and child.stderr is not None
            assert child.stdout.read(6) == "w0 w1 "
            child.send_signal(signal.SIGINT)
            said = child.stdout.read()
            assert (child.wait(10), child.stderr.read()) == (130, "") and said.endswith("\n")
        assert server.left.wait(10)


def test_an_error_of_the_server(server: ChatServer, tmp_path: Path) -> None:
    ended = chat(tmp_path, server.url, "fail")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: the server answered with status 422: `top_p` is too odd\n"


@pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there")
def test_a_server_of_its_own(tmp_path: Path) -> None:
    """It is started with the flags that are its, answers, and is gone with its log."""
    ended = chat(tmp_path, "tgi-demo", "Hello", "--set", "max_tokens=5", "--threads", "1", TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.strip()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tgi-")] == []
    assert list((tmp_path / ".cache/tgi-servers").iterdir()) == []


def test_which_words_are_whose() -> None:
    wanted = cut(["org/m", "--dtype", "float32", "--json-output", "Why?", "--system=s", "--threads=2"])
    assert (wanted.words, wanted.flags) == (["org/m", "Why?"], ["--dtype", "float32", "--json-output", "--threads=2"])
    assert cut(["m", "--", "--odd question"]).words == ["m", "--odd question"]
    with pytest.raises(UsageError):
        cut(["m", "--port", "1"])


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("http://a/v1", True),
        ("localhost:8080", True),
        ("[::1]:80", True),
        ("org/name", False),
        ("org/name:Q4_K_M", False),
        ("./a", False),
        ("name", False),
    ],
)
def test_addresses(word: str, address: bool) -> None:
    assert is_address(word) is address


def test_what_a_start_waits_for() -> None:
    lines = ["t INFO x: Starting check and download process for m"]
    assert phase([]) == "its process starts"
    assert phase(lines) == "it looks for the model"
    assert phase([*lines, "Waiting for shard to be ready... (it loads its libraries)"]) == "it loads its libraries"


@pytest.fixture
def session(server: ChatServer) -> Session:
    screen = Screen({}, io.StringIO(), io.StringIO())
    return Session(Server(server.url), "org/fake", Conversation(), screen)


def told(session: Session, *lines: str) -> str:
    """What the session says to lines that are typed."""
    typed = iter(lines)

    def read() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    assert session.run(read) == 0
    return session.screen.output.getvalue() + session.screen.notes.getvalue()  # type: ignore[attr-defined]


def contents(session: Session) -> list[str]:
    return [message["content"] for message in session.conversation.messages]


def test_a_conversation(session: Session, server: ChatServer) -> None:
    said = told(session, "one", "two", "/undo", "/retry", "//slash", "/system Be nice", "/set temperature 0.7", "three")
    assert contents(session) == [
        "one", "You said: one", "/slash", "You said: /slash", "three", "You said: three",
    ]  # fmt: skip
    last = server.requests[-1]
    assert last["messages"][0] == {"role": "system", "content": "Be nice"} and last["temperature"] == 0.7
    assert "temperature is 0.7" in said and "[1 token]" in said
    assert [len(request["messages"]) for request in server.requests] == [1, 3, 1, 3, 6]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set temperature -1", "temperature is 0 or more, not -1"),
        ("/set top_p=1.5", "top_p is 0 to 1, not 1.5"),
        ("/set seed x", "seed is a whole number, 0 or more, not x"),
        ("/set temperature nan", "temperature is 0 or more, not nan"),
        ("/set temprature 1", "did you mean temperature?"),
        ("/set reasoning_effort lots", "none, low, medium, high"),
        ("/set top_k", "/set top_k needs a value"),
        ("/set", "frequency_penalty"),
        ("/unset top_p", "top_p is not set"),
        ("/savee x", "did you mean /save?"),
        ("/zzz", "see /help"),
        ("/retry", "there is no question to answer again"),
        ("/undo", "there is nothing to take back"),
        ("/save", "/save needs the name of a file"),
        ("/save /nowhere/at/all", "cannot be written"),
        ("/load /nowhere/at/all", "cannot be read"),
        ("/help", "Ctrl-C stops an answer"),
        ("fail", "`top_p` is too odd"),
    ],
)
def test_what_commands_say(session: Session, line: str, says: str) -> None:
    assert says in told(session, line)
    assert session.conversation.values == {} and session.conversation.messages == []


def test_quit_ends(session: Session, server: ChatServer) -> None:
    told(session, "/quit", "not asked")
    assert server.requests == []


def test_save_and_load(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "größe.json"
    told(
        session,
        "Grüße",
        "/set seed 3",
        "/set stop \\n\\n",
        "/system s",
        f"/save {path}",
        "/clear",
        "/unset",
        "/system none",
    )
    assert session.conversation == Conversation()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = told(session, f"/load {path}")
    assert contents(session) == ["Grüße", "You said: Grüße"] and session.conversation.system == "s"
    assert session.conversation.values == {"seed": 3, "stop": "\n\n"} and ">>> Grüße\nYou said" in said
    assert parameters.body(session.conversation.values)["stop"] == ["\n\n"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "holds no conversation"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "`messages.0` of the file"),
        ('{"messages": [], "system": 3}', "`system` of the file"),
        ('{"messages": [], "parameters": {"top_p": 7}}', "top_p is 0 to 1"),
    ],
)
def test_files_that_hold_no_conversation(data: str, says: str, tmp_path: Path) -> None:
    conversation = Conversation("before")
    (tmp_path / "a.json").write_text(data)
    with pytest.raises(ConversationError, match=says):
        conversation.load(str(tmp_path / "a.json"))
    assert conversation == Conversation("before")


def test_a_list_of_messages_is_a_conversation(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]))
    conversation = Conversation()
    conversation.load(str(tmp_path / "a.json"))
    assert conversation == Conversation("s", [{"role": "user", "content": "u"}])


def test_nothing_that_a_model_says_steers_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\x07\r\nc\td\u202ee") == "a\ufffd[2Jb\ufffd\nc\td\ufffde"


def test_the_history_is_private(tmp_path: Path) -> None:
    path = history_file({"HOME": str(tmp_path)})
    assert path is not None and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert history_file({}) is None
