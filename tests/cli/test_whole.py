"""The command line on real models: it prints what the library says, and at a terminal does what a person expects."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from openwork import LLM, SamplingParams
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

BACKEND = ("--backend", "reference")


def records(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_says_what_the_library_says(run, checkpoint):
    [record] = records(
        run("generate", "--ids", "5,6,7", "--json", "--max-tokens", "6", "--temperature", "0", "--logprobs", "2",
            "--prompt-logprobs", "1", "--model", checkpoint, *BACKEND)
    )  # fmt: skip
    with LLM(checkpoint, backend="reference") as llm:
        params = SamplingParams(temperature=0, max_tokens=6, logprobs=2, prompt_logprobs=1)
        output = llm.generate([5, 6, 7], params)[0]
    assert record["prompt_ids"] == [5, 6, 7]
    assert record["token_ids"] == list(output.token_ids)
    assert record["text"] == output.text
    assert record["finish_reason"] == output.finish_reason
    assert [each["logprob"] for each in record["logprobs"]] == [each.logprob for each in output.logprobs]
    assert record["prompt_logprobs"][0] is None
    assert record["prompt_logprobs"][2]["rank"] == output.prompt_logprobs[2].rank
    assert record["kv_blocks"] == output.kv_blocks
    assert set(record["timings"]) >= {"prefill_s", "decode_s", "prefill_tok_s", "decode_tok_s"}


def test_a_text_is_the_same_streamed_in_json_and_in_a_batch(run, checkpoint):
    options = ("--max-tokens", "20", "--temperature", "1", "--seed", "5", "--model", checkpoint, *BACKEND)
    [alone] = records(run("generate", "Hello", "--json", *options))
    assert run("generate", "Hello", *options).stdout.rstrip("\n") == alone["text"].rstrip("\n")
    batch = records(run("generate", "--lines", "--json", *options, input="Hello\nAnother\n"))
    assert batch[0]["token_ids"] == alone["token_ids"]
    several = records(run("generate", "Hello", "--json", "-n", "2", *options))
    assert several[0]["token_ids"] == alone["token_ids"]
    assert several[1]["token_ids"] != alone["token_ids"]


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (("--ids", "99999"), "prompt: token 0 is 99999", 2),
        (("x" * 10_000,), "the context window is", 2),
        (("a\udcff",), "lone surrogate, U+DCFF, at character 1", 2),
        (("x", "--logit-bias", "5000=1"), "logit_bias: names token 5000", 2),
        (("x", "--kv-cache-bytes", "1"), "one block of 16 tokens needs", 1),
        (("x", "--context", "1000000"), "context", 1),
        (("x", "--threads", "0"), "threads: must be", 2),
    ],
)
def test_bad_input_is_one_clear_error(run, checkpoint, arguments, problem, code):
    result = run("generate", *arguments, "--model", checkpoint, *BACKEND)
    assert result.exit_code == code
    assert problem in result.stderr.splitlines()[0]
    assert result.stdout == ""


def test_the_embedded_model_needs_no_name(run):
    options = ("--max-tokens", "12", "--temperature", "0", *BACKEND)
    text = run("generate", "Once upon a time", *options).stdout
    assert text.strip()
    assert records(run("generate", "Once upon a time", "--json", *options))[0]["model"] == "openwork/stories"
    assert run("chat", "--max-tokens", "8", *BACKEND, input="Hello\n").stdout.strip()


# In a session of its own, the first terminal that a process opens becomes the one whose Ctrl-C it receives.
_START = "import os, runpy; os.open(os.ttyname(0), os.O_RDWR); runpy.run_module('openwork', run_name='__main__')"


class Session:
    """A command at a terminal of its own: typed to, and read up to a text that is waited for."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, inner = pty.openpty()
        command = [sys.executable, "-c", _START, *arguments]
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True, env=environment
        )
        os.close(inner)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str) -> None:
        self._read_until(lambda: text in self._seen, text)
        self._seen = self._seen.partition(text)[2]

    def wait_for_more(self) -> None:
        self._read_until(lambda: self._seen != "", "anything")

    def _read_until(self, is_there: Callable[[], bool], text: str) -> None:
        end = time.monotonic() + 60
        while not is_there():
            assert time.monotonic() < end, f"{text!r} never came; there was {self._seen!r}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                try:
                    self._seen += os.read(self._terminal, 65536).decode("utf-8", "replace")
                except OSError:  # the process has ended
                    raise AssertionError(f"{text!r} never came; there was {self._seen!r}") from None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model whose answers take minutes, when nobody stops them."""
    directory = tmp_path_factory.mktemp("endless")
    write_checkpoint(directory, max_position_embeddings=100_000)
    return str(write_byte_tokenizer(directory))


def test_a_chat_at_a_terminal(endless):
    with Session("chat", "--model", endless, *BACKEND) as session:
        session.wait_for("/help lists the commands")
        session.wait_for("> ")
        session.type("\x03")
        session.type("\r")  # a key, should the signal have come just before readline began to wait for one
        session.wait_for("/quit or Ctrl-D ends")
        session.wait_for("> ")
        session.type("/set ignore_eos yes\r")
        session.wait_for("> ")
        session.type("Hel\\\r")
        session.wait_for(". ")
        session.type("lo\r")
        session.wait_for("lo\r\n")
        session.wait_for_more()
        session.type("\x03")
        session.wait_for("(stopped)")
        session.wait_for("> ")
        session.type("/tokens\r")
        session.wait_for(" tokens in the conversation")
        session.wait_for("> ")
        session.type("\x04")
        assert session.process.wait(30) == 0


def test_ctrl_c_in_the_middle_of_a_text(endless):
    with Session("generate", "Hello", "--ignore-eos", "--model", endless, *BACKEND) as session:
        session.wait_for("Hello\x1b[0m")
        session.wait_for_more()
        session.type("\x03")
        assert session.process.wait(30) == 130


def test_a_reader_that_leaves_early_is_no_error(endless):
    command = [sys.executable, "-m", "openwork", "generate", "Hello", "--ignore-eos", "--model", endless, *BACKEND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_guesses_leave_the_text_as_it_is_and_are_told(run):
    how = ("generate", "the cat and the dog and the cat and the dog", "--max-tokens", "80", "--temperature", "0")
    how += ("--frequency-penalty", "-2", "--ignore-eos", "--json")
    [plain], [guessed] = (records(run(*how, *more)) for more in ((), ("--speculate", "ngram")))
    told = guessed.pop("guessed")
    assert 0 < told["accepted"] <= told["drafted"] and "guessed" not in plain
    assert guessed["token_ids"] == plain["token_ids"] and guessed["text"] == plain["text"]
    assert guessed.keys() == plain.keys()


def test_what_cannot_be_guessed_with_is_said(run):
    for wrong, code in (
        (("--speculate", "nowhere"), 1),  # a model that is not there
        (("--max-draft", "3"), 2),
        (("--speculate", "ngram", "--max-draft", "0"), 2),
    ):
        done = run("generate", "the cat", *wrong)
        assert done.exit_code == code and done.stderr.startswith("error: ")
