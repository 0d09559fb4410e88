from __future__ import annotations

import subprocess
import sys

import pytest

import openwork
from openwork.cli.main import SUBCOMMANDS
from openwork.core.errors import EngineError, MemoryTooSmall, ModelError, PromptTooLong


def test_help_teaches_with_examples(run):
    for arguments in ((), ("--help",)):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "openwork generate " in result.stdout
        assert all(name in result.stdout for name in SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_examples(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.count(f"openwork {name}") >= 3


def test_version(run):
    assert run("--version").stdout == f"openwork {openwork.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [("nosuch",), ("--nosuch",), ("generate", "--temperature", "hot", "x"), ("info", "a", "b")]
)
def test_bad_usage_is_two_lines_and_exit_code_2(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert "--help" in hint
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ModelError("is broken.", "Repair it.", where="config.json"), 1),
        (MemoryTooSmall("is broken.", "Repair it."), 1),
        (EngineError("is broken.", "Repair it."), 1),
        (PromptTooLong("is broken.", "Repair it.", param="prompt"), 2),
    ],
)
def test_errors_are_for_people(run, fake, failure, code):
    fake.failure = failure
    result = run("generate", "Hello")
    assert result.exit_code == code
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert error.endswith("is broken.")
    assert hint == "hint: Repair it."
    assert "Traceback" not in result.stderr
    assert fake.is_closed


def test_a_traceback_for_those_who_ask(run, fake, monkeypatch):
    monkeypatch.setenv("OPENWORK_DEBUG", "1")
    fake.failure = ModelError("is broken")
    assert isinstance(run("generate", "Hello").exception, ModelError)


def test_out_of_memory_is_said(run, fake):
    fake.failure = MemoryError()
    result = run("generate", "Hello")
    assert result.exit_code == 1
    assert "out of memory" in result.stderr


def test_ctrl_c_ends_with_130(run, fake):
    fake.failure = KeyboardInterrupt()
    result = run("generate", "Hello")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert fake.is_closed


def test_errors_are_red_on_a_terminal(run, fake, watched):
    watched("stderr")
    fake.failure = ModelError("is broken", "Repair it.")
    assert run("generate", "Hello").stderr == "\x1b[31merror:\x1b[0m is broken\n\x1b[1mhint:\x1b[0m Repair it.\n"


def test_a_warning_names_no_source_line(run, fake):
    import warnings

    fake.before_chunk = lambda number: number or warnings.warn("it is slow", RuntimeWarning, stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("generate", "Hello").stderr == "warning: it is slow\n"


def test_what_a_subcommand_does_not_need_is_not_imported():
    heavy = "numpy rich huggingface_hub jinja2 tokenizers openwork.llm openwork.build torch"
    code = (
        "import sys\nfrom openwork.cli.main import app\n"
        "try: app(['generate', '--ids', 'x'], prog_name='openwork')\nexcept SystemExit as exit: assert exit.code == 2\n"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_python_m_openwork_is_the_command():
    done = subprocess.run([sys.executable, "-m", "openwork", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"openwork {openwork.__version__}\n"
