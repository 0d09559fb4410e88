"""openwork chat: a conversation on the terminal, with commands that start with a slash.

Ctrl-C stops an answer, not the program; what was said so far stays in the conversation. When the conversation outgrows
the context window, the oldest turns are left out of what the model is shown, and that is said.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import opening, options, terminal
from openwork.cli.conversation import Conversation
from openwork.cli.interrupt import Interrupt
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.parameters import describe, parse
from openwork.cli.progress import Bars
from openwork.core.errors import OpenworkError, RequestError
from openwork.core.request import SamplingParams

if TYPE_CHECKING:
    from openwork.llm import LLM

MAX_FILE_BYTES = 16 << 20

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

System = Annotated[str | None, typer.Option(help="What the model is told before the conversation.")]


@app.command()
def chat(
    system: System = None,
    model: options.Model = None,
    dtype: options.WeightType = Dtype.auto,
    kv_dtype: options.KVType = KVDtype.auto,
    backend: options.Engine = Backend.auto,
    kv_cache_bytes: options.CacheSize = None,
    context: options.Context = None,
    threads: options.Threads = None,
    weight_cache: options.WeightCache = True,
    record: options.Record = None,
    record_prompts: options.RecordPrompts = True,
    record_bytes: options.RecordBytes = None,
    record_layers: options.RecordLayers = None,
    speculate: options.Speculate = None,
    max_draft: options.MaxDraft = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    presence_penalty: options.Presence = None,
    frequency_penalty: options.Frequency = None,
    repetition_penalty: options.Repetition = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
) -> None:
    """Talk with a model.

    In the conversation, /help lists the commands, Ctrl-C stops an answer and Ctrl-D ends.
    What "the model's own" says below is what its generation_config.json recommends for sampling.

    \b
    [bold]openwork chat[/]
    [bold]openwork chat --model org/name --temperature 0.5[/]
    [bold]openwork chat --system "Answer in one sentence."[/]
    """
    load = opening.choices(locals())
    wishes = {name: value for name, value in locals().items() if name in SamplingParams.__dataclass_fields__}
    options.merged(SamplingParams(), wishes)
    bars = Bars()
    with (
        bars,
        opening.open_llm(model, **load, progress=bars) as llm,
    ):
        bars.close()
        Repl(llm, options.merged(llm.defaults, wishes), bars, system or "").run()


class Repl:
    """Reads lines, answers them, and obeys commands. A method ``do_x`` is the command /x, its docstring the help."""

    def __init__(self, llm: LLM, params: SamplingParams, bars: Bars, system: str = "") -> None:
        self.llm = llm
        self.params = params
        self.conversation = Conversation(system)
        self._bars = bars
        self._is_over = False
        self._own_files: set[Path] = set()  # written or read by this session: saving there again is no surprise
        self._is_watched = terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)

    def run(self) -> None:
        """Until /quit or the end of input."""
        if self._is_watched:
            import readline  # noqa: F401 (importing it gives input() a history and line editing)
        info = self.llm.info
        terminal.show_note(f"{info.model}, {info.dtype}, a window of {info.context} tokens. /help lists the commands.")
        while not self._is_over:
            try:
                self._take(self._read())
            except EOFError:
                break
            except KeyboardInterrupt:
                terminal.show_note("\n/quit or Ctrl-D ends the conversation.")

    def _read(self) -> str:
        """One message: a line, and those after it while a line ends in a backslash."""
        lines = [self._line("> ")]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line(". "))
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        if self._is_watched:
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _take(self, line: str) -> None:
        if not line.strip():
            return
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line[1:].partition(" ")
                self._obey(name, rest.strip())
            else:
                self._reply(line.removeprefix("/") if line.startswith("//") else line)
        except OpenworkError as error:
            self._bars.close()
            terminal.show_error(str(error).removesuffix(error.hint).rstrip(), error.hint)

    # -- answering ---------------------------------------------------------------------------------------------------

    def _reply(self, message: str) -> None:
        """Answer a message; take it back when that is impossible."""
        said: list[str] = []
        note = ""
        self.conversation.say(message)
        try:
            ids = self._view()
            with Interrupt() as interrupt:
                for chunk in self.llm.stream(ids, self.params, progress=interrupt.passing(self._bars)):
                    self._bars.close()
                    terminal.write(chunk.text)
                    said.append(chunk.text)
                    interrupt.check()
        except KeyboardInterrupt:
            note = "(stopped)"
        except OpenworkError:
            self.conversation.take_back()
            raise
        finally:
            self._bars.close()
        text = "".join(said)
        if text and not text.endswith("\n"):
            terminal.write("\n")
        if text:
            self.conversation.answer(text)
        else:
            self.conversation.take_back()
        if note or not text:
            terminal.show_note(note or "(no answer)")

    def _view(self) -> list[int]:
        context = self.llm.info.context
        wanted = context if self.params.max_tokens is None else self.params.max_tokens
        ids, dropped = self.conversation.view(self.llm.chat_prompt, context, min(wanted, context // 4))
        if dropped:
            turns = "turn is" if dropped == 1 else f"{dropped} turns are"
            terminal.show_warning(
                f"the conversation has outgrown the window of {context} tokens: "
                f"the oldest {turns} no longer shown to the model. /reset starts afresh."
            )
        return ids

    # -- commands ----------------------------------------------------------------------------------------------------

    def _obey(self, name: str, rest: str) -> None:
        command = getattr(self, f"do_{name}", None)
        if command is None:
            raise RequestError(f"there is no command /{name}", "/help lists them; // starts a message with a slash.")
        command(rest)

    def do_help(self, rest: str) -> None:
        """this list"""
        for name in dir(self):
            if name.startswith("do_"):
                terminal.write(f"  /{name[3:]:8} {getattr(self, name).__doc__}\n")
        terminal.write("  A line that ends in a backslash goes on in the next. Ctrl-C stops an answer.\n")

    def do_reset(self, rest: str) -> None:
        """forget the conversation, keep the system text"""
        self.conversation.reset()

    def do_system(self, rest: str) -> None:
        """TEXT: tell the model this before the conversation; "none" takes it away"""
        if rest:
            self.conversation.system = "" if rest == "none" else rest
        terminal.write(f"system: {self.conversation.system or 'none'}\n")

    def do_params(self, rest: str) -> None:
        """show how tokens are chosen"""
        terminal.write(describe(self.params))

    def do_set(self, rest: str) -> None:
        """NAME VALUE: change one of the parameters, e.g. /set temperature 0.5"""
        name, _, value = rest.partition(" ")
        self.params = replace(self.params, **{name: parse(name, value.strip())})

    def do_tokens(self, rest: str) -> None:
        """show how much of the context window is used"""
        messages = self.conversation.as_messages()
        used = len(self.llm.chat_prompt(messages)) if messages else 0
        terminal.write(f"{used} tokens in the conversation, {self.llm.info.context} in the window\n")

    def do_save(self, rest: str) -> None:
        """FILE: write the conversation as JSON"""
        path = _path(rest, "save")
        text = json.dumps(self.conversation.as_messages(), ensure_ascii=False, indent=1) + "\n"
        try:
            with path.open("w" if path.resolve() in self._own_files else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise RequestError(f"{path} exists already", "Choose another name.", param="/save") from None
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror}", param="/save") from error
        self._own_files.add(path.resolve())
        terminal.write(f"{len(self.conversation.messages)} messages written to {path}\n")

    def do_load(self, rest: str) -> None:
        """FILE: go on from a saved conversation"""
        from openwork.text.messages import check_messages

        path = _path(rest, "load")
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES + 1)
            content: Any = json.loads(text) if len(text) <= MAX_FILE_BYTES else None
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}", param="/load") from error
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{path} is not JSON text: {error}", param="/load") from error
        self.conversation.replace(check_messages(content, MAX_FILE_BYTES))
        self._own_files.add(path.resolve())
        terminal.write(f"{len(self.conversation.messages)} messages read from {path}\n")

    def do_quit(self, rest: str) -> None:
        """end"""
        self._is_over = True


def _path(rest: str, command: str) -> Path:
    if not rest:
        raise RequestError("needs the name of a file", f"/{command} talk.json", param=f"/{command}")
    return Path(rest).expanduser()
