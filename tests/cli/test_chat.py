from __future__ import annotations

import json
import os
import signal

import pytest

from openwork.cli.interrupt import Interrupt
from openwork.core.errors import EngineError
from openwork.core.request import SamplingParams

QUESTION = "[user]Hello\n"


def prompts(fake):
    return [fake.tokenizer.decode(ids) for ids, _ in fake.asked]


def test_a_conversation(run, fake):
    fake.answers = ["Hi.", "Fine.\n"]
    result = run("chat", input="Hello\n\nHow are you?\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hi.\nFine.\n", "")
    assert prompts(fake) == [QUESTION, f"{QUESTION}[assistant]Hi.\n[user]How are you?\n"]
    assert fake.is_closed


def test_options(run, fake):
    run("chat", "--system", "Be kind.", "--temperature", "0.5", "--max-tokens", "9", "--stop", "X", input="Hello\n")
    assert prompts(fake) == [f"[system]Be kind.\n{QUESTION}"]
    assert fake.asked[0][1] == SamplingParams(temperature=0.5, top_p=0.5, max_tokens=9, stop=("X",))


def test_a_backslash_goes_on_in_the_next_line(run, fake):
    run("chat", input="Hel\\\nlo\\\n\n")
    assert prompts(fake) == ["[user]Hel\nlo\n\n"]


def test_help_lists_every_command(run, fake):
    text = run("chat", input="/help\n").stdout
    for name in ("help", "reset", "system", "save", "load", "params", "set", "tokens", "quit"):
        assert f"/{name} " in text


def test_an_unknown_command_and_a_message_with_a_slash(run, fake):
    result = run("chat", input="/nosuch\n//usr/bin\n")
    assert result.stderr.startswith("error: there is no command /nosuch\nhint: /help")
    assert prompts(fake) == ["[user]/usr/bin\n"]


def test_quit(run, fake):
    assert run("chat", input="/quit\nHello\n").exit_code == 0
    assert fake.asked == []


def test_reset_and_system(run, fake):
    text = run("chat", input="/system Be kind.\nHello\n/reset\nHello\n/system none\n/reset\nHello\n").stdout
    assert "system: Be kind.\n" in text
    assert "system: none\n" in text
    assert prompts(fake) == [f"[system]Be kind.\n{QUESTION}"] * 2 + [QUESTION]


def test_parameters_are_shown_and_set(run, fake):
    lines = """/set temperature 0.25
/set max_tokens 7
/set stop END "two words"
/set ignore_eos yes
/params
Hello
/set max_tokens none
/set stop none
Hello
"""
    result = run("chat", input=lines)
    assert result.stderr == ""
    assert "  temperature         0.25\n" in result.stdout
    assert "  stop                END 'two words'\n" in result.stdout
    assert "  ignore_eos          yes\n" in result.stdout
    first = SamplingParams(temperature=0.25, top_p=0.5, max_tokens=7, stop=("END", "two words"), ignore_eos=True)
    assert fake.asked[0][1] == first
    assert fake.asked[1][1] == SamplingParams(temperature=0.25, top_p=0.5, ignore_eos=True)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/set", "/set: needs a name and a value"),
        ("/set n 3", "/set: there is no parameter 'n'"),
        ("/set temperature hot", "temperature: must be a number, not 'hot'"),
        ("/set temperature 1000", "temperature: must be a number from 0 to 100"),
        ("/set ignore_eos perhaps", "ignore_eos: must be yes or no"),
        ('/set stop "open', "stop: must be texts"),
        ("/save", "/save: needs the name of a file"),
        ("/load nowhere.json", "/load: nowhere.json cannot be read"),
        ("/save /nowhere/at/all.json", "/save: /nowhere/at/all.json cannot be written"),
    ],
)
def test_a_wrong_command_changes_nothing(run, fake, command, problem):
    result = run("chat", input=f"{command}\nHello\n")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"error: {problem}")
    assert fake.asked[0][1] == fake.defaults


def test_save_and_load(run, fake, tmp_path):
    path = tmp_path / "talk.json"
    run("chat", "--system", "Be kind.", input=f"Hello\n/save {path}\nMore\n/save {path}\n")
    messages = json.loads(path.read_text(encoding="utf-8"))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    fake.asked.clear()
    run("chat", input=f"/load {path}\nHello\n")
    assert prompts(fake) == [
        f"[system]Be kind.\n{QUESTION}[assistant] world.\n[user]More\n[assistant] world.\n{QUESTION}"
    ]


def test_save_does_not_overwrite_what_is_not_its_own(run, fake, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious", encoding="utf-8")
    assert "exists already" in run("chat", input=f"Hello\n/save {path}\n").stderr
    assert path.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("content", ["{", "[1]", '[{"role": "robot", "content": "x"}]', "\udcff", "[" * 10**5, "[]"])
def test_load_refuses_what_is_no_conversation(run, fake, tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    result = run("chat", input=f"/load {path}\nHello\n")
    assert result.stderr.startswith("error: ")
    assert prompts(fake) == [QUESTION]


def test_tokens(run, fake):
    text = run("chat", input="/tokens\nHello\n/tokens\n").stdout
    assert "0 tokens in the conversation, 1000 in the window" in text
    assert f"{len(QUESTION + '[assistant] world.' + chr(10))} tokens in the conversation" in text


def test_an_error_ends_the_answer_not_the_program(run, fake):
    def fail(number):
        if number == 2:
            fake.before_chunk = lambda number: None
            raise EngineError("step 7 failed", "Try again.")

    fake.before_chunk = fail
    result = run("chat", input="Hello\nHello\n")
    assert result.exit_code == 0
    assert result.stderr == "error: step 7 failed\nhint: Try again.\n"
    assert prompts(fake)[1] == QUESTION, "what could not be answered is taken back"


def test_a_conversation_that_outgrows_the_window(run, fake):
    fake.info.context = 100
    result = run("chat", input="".join(f"Message number {i}\n" for i in range(6)))
    assert result.exit_code == 0
    assert "has outgrown the window of 100 tokens: the oldest turn is no longer shown" in result.stderr
    shown = prompts(fake)
    assert shown[-1].startswith("[user]Message number 4")
    assert shown[-1].endswith("[user]Message number 5\n")
    assert all(len(ids) <= 75 for ids, _ in fake.asked), "a quarter of the window is free for the answer"


def test_a_message_longer_than_the_window(run, fake):
    fake.info.context = 50
    result = run("chat", input="x" * 60 + "\nHello\n")
    assert "the last message alone has 67 tokens, and the context window is 50" in result.stderr
    assert prompts(fake) == [QUESTION]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(run, fake):
    def interrupt(number):
        if number == 2:
            fake.before_chunk = lambda number: None
            os.kill(os.getpid(), signal.SIGINT)

    fake.before_chunk = interrupt
    result = run("chat", input="Hello\nHello\n")
    assert result.exit_code == 0
    assert result.stdout == " wo\n world.\n"
    assert prompts(fake)[1] == f"{QUESTION}[assistant] wo\n{QUESTION}"


def test_ctrl_c_is_noticed_while_a_prompt_is_read(run, fake):
    seen = []

    def stream(prompt, params, *, progress):
        os.kill(os.getpid(), signal.SIGINT)
        progress("prefill", 1, 2)
        seen.append("went on")
        yield

    fake.stream = stream
    result = run("chat", input="Hello\n/tokens\n")
    assert result.exit_code == 0
    assert seen == []
    assert "0 tokens in the conversation" in result.stdout, "nothing was said, so nothing is kept"


def test_the_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_asked
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_empty_answer_is_not_part_of_the_conversation(run, fake):
    fake.answers = ["", "Hi."]
    result = run("chat", input="Hello\nHello\n")
    assert result.exit_code == 0
    assert prompts(fake) == [QUESTION, QUESTION]
