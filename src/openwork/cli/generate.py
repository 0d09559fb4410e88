"""openwork generate: continue a text, on the terminal as it is written, or as JSON.

Everything that can be wrong about the command is found before a model is loaded. Text goes to standard output exactly
as it is generated; what is only for people (the prompt, a summary, progress) is shown only to people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import opening, options, terminal
from openwork.cli.options import Backend, Dtype, KVDtype
from openwork.cli.progress import Bars
from openwork.cli.records import logprob_table, records
from openwork.core.errors import RequestError
from openwork.core.request import SamplingParams

if TYPE_CHECKING:
    from openwork.core.output import Chunk, Output
    from openwork.llm import LLM

MAX_INPUT_BYTES = 64 << 20
Prompt = str | list[int]

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Text = Annotated[
    str | None, typer.Argument(metavar="PROMPT", help="The text to continue. Without it, standard input is read.")
]
Ids = Annotated[str | None, typer.Option("--ids", help="Token ids in place of a text: 1,5,9.")]
Lines = Annotated[bool, typer.Option("--lines", help="Each line of standard input is a prompt; all run in one batch.")]
Number = Annotated[
    int | None, typer.Option("-n", help="How many texts to generate.", rich_help_panel="Choosing tokens")
]
BestOf = Annotated[
    int | None,
    typer.Option(
        help="Draw so many, and print those with the likeliest tokens on average.", rich_help_panel="Choosing tokens"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line for each text.", rich_help_panel="Output")]
Echo = Annotated[
    bool | None,
    typer.Option(
        "--echo/--no-echo",
        help="Print the prompt before the text. [dim]Default: on a terminal.[/]",
        rich_help_panel="Output",
        show_default=False,
    ),
]
Logprobs = Annotated[
    int | None,
    typer.Option(
        help="Log-probabilities of the chosen and the K likeliest tokens.", rich_help_panel="Output", metavar="K"
    ),
]
PromptLogprobs = Annotated[
    int | None, typer.Option(help="The same for the tokens of the prompt.", rich_help_panel="Output", metavar="K")
]


@app.command()
def generate(
    prompt: Text = None,
    ids: Ids = None,
    lines: Lines = False,
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
    logit_bias: options.Bias = None,
    seed: options.Seed = None,
    n: Number = None,
    best_of: BestOf = None,
    max_tokens: options.MaxTokens = None,
    min_tokens: options.MinTokens = None,
    stop: options.Stop = None,
    stop_token_ids: options.StopIds = None,
    ignore_eos: options.IgnoreEos = None,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    choice: options.Choice = None,
    lark: options.Lark = None,
    logprobs: Logprobs = None,
    prompt_logprobs: PromptLogprobs = None,
    as_json: Json = False,
    echo: Echo = None,
) -> None:
    """Continue a text with a model.

    What "the model's own" says below is what its generation_config.json recommends for sampling.

    \b
    [bold]openwork generate "Once upon a time" --max-tokens 100[/]
    [bold]openwork generate "The cat" --temperature 0 --logprobs 3[/]
    [bold]openwork generate "A cat is a" --choice animal,plant[/]
    [bold]openwork generate --ids 1,5,9 --json --dtype float32 --model DIR[/]
    [bold]openwork generate --lines --json < prompts.txt > results.jsonl[/]
    """
    load = opening.choices(locals())
    wishes = {name: value for name, value in locals().items() if name in _WISHES}
    wishes |= {"logit_bias": options.parse_biases(logit_bias), "ignore_eos": ignore_eos or None}
    wishes["constraint"] = options.parse_constraint(json_schema, regex, choice, lark)
    options.merged(SamplingParams(), wishes)
    prompts = _prompts(prompt, ids, lines)
    with (
        Bars() as bars,
        opening.open_llm(model, **load, progress=bars) as llm,
    ):
        params = options.merged(llm.defaults, wishes)
        if as_json:
            _print_json(llm, prompts, params, bars)
        elif len(prompts) == 1 and params.best_of is None:
            _print_stream(llm, prompts[0], params, terminal.is_terminal(sys.stdout) if echo is None else echo, bars)
        else:
            _print_batch(llm, prompts, params, echo is not False, bars)


_WISHES = frozenset(SamplingParams.__dataclass_fields__)


# ---------------------------------------------------------------- what goes in


def _prompts(prompt: str | None, ids: str | None, lines: bool) -> list[Prompt]:
    if sum((prompt is not None, ids is not None, lines)) > 1:
        raise RequestError("PROMPT, --ids and --lines exclude one another", "Give one of them.", param="prompt")
    if ids is not None:
        return [options.parse_ids(ids)]
    if prompt is not None:
        if not prompt:
            raise RequestError("is empty", "Give at least one character.", param="prompt")
        return [prompt]
    if terminal.is_terminal(sys.stdin):
        raise RequestError("there is none", "Give PROMPT or --ids, or pipe a text in.", param="prompt")
    text = _read_input()
    if lines:
        return [*_each_line(text)]
    return [text]


def _read_input() -> str:
    """Standard input, without the newline at its end that nobody means as part of a prompt."""
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise RequestError(f"standard input has more than {MAX_INPUT_BYTES} bytes", param="prompt")
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        problem = f"standard input is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        raise RequestError(problem, "Convert it, for example with iconv.", param="prompt") from None
    if not text:
        raise RequestError("standard input is empty", "Give PROMPT or --ids, or pipe a text in.", param="prompt")
    return text


def _each_line(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            raise RequestError(f"line {number} of standard input is empty", "Leave it out.", param="prompt")
        yield line.removesuffix("\r")


# ---------------------------------------------------------------- what comes out


def _print_json(llm: LLM, prompts: list[Prompt], params: SamplingParams, bars: Bars) -> None:
    outputs = llm.generate(prompts, params, progress=bars)
    bars.close()
    for output in outputs:
        for record in records(llm.info.model, output, params, llm.tokenizer):
            sys.stdout.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def _print_stream(llm: LLM, prompt: Prompt, params: SamplingParams, echo: bool, bars: Bars) -> None:
    chunks = llm.stream(prompt, params, progress=bars)
    bars.close()
    if echo:
        terminal.write(_prompt_text(llm, prompt), style=terminal.DIM)
    text, output = _show_chunks(chunks, params.n, bars)
    if not text.endswith("\n"):
        terminal.write("\n")
    _print_tables(llm, output, params)
    terminal.show_note(summary(output))


def _print_batch(llm: LLM, prompts: list[Prompt], params: SamplingParams, echo: bool, bars: Bars) -> None:
    outputs = llm.generate(prompts, params, progress=bars)
    bars.close()
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        for completion in output.completions:
            if number or completion.index:
                terminal.write("---\n", style=terminal.DIM)
            if echo:
                terminal.write(_prompt_text(llm, prompt), style=terminal.DIM)
            terminal.write(completion.text.removesuffix("\n") + "\n")
        _print_tables(llm, output, params)


def _show_chunks(chunks: Iterator[Chunk], n: int, bars: Bars) -> tuple[str, Output]:
    """Write texts one after another: the first as it comes, the others when those before them are complete.

    Returns the piece that was written last, and the whole output.
    """
    waiting: dict[int, list[str]] = {index: [] for index in range(n)}
    complete: set[int] = set()
    current, last, output = 0, "", None
    for chunk in chunks:
        bars.close()
        output = chunk.output or output
        waiting[chunk.index].append(chunk.text)
        if chunk.finish_reason in ("stop", "length", "repetition"):
            complete.add(chunk.index)
        while True:
            text = "".join(waiting[current])
            waiting[current].clear()
            if text:
                terminal.write(text)
                last = text
            if current not in complete or current == n - 1:
                break
            current += 1
            terminal.write(("" if last.endswith("\n") else "\n") + "---\n", style=terminal.DIM)
    assert output is not None, "the last chunk carries the output"
    return last, output


def _print_tables(llm: LLM, output: Output, params: SamplingParams) -> None:
    if params.prompt_logprobs is not None:
        terminal.write("\nprompt\n" + logprob_table(output.prompt_logprobs or (), llm.tokenizer))
    for completion in output.completions if params.logprobs is not None else ():
        terminal.write("\n" + logprob_table(completion.logprobs or (), llm.tokenizer))


def _prompt_text(llm: LLM, prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return ",".join(map(str, prompt)) + " " if llm.tokenizer is None else llm.tokenizer.decode(prompt)


def summary(output: Output) -> str:
    """What it took, in one line."""
    times: Any = output.timings
    tokens = sum(len(completion.token_ids) for completion in output.completions)
    reasons = ", ".join(dict.fromkeys(completion.finish_reason for completion in output.completions))
    speed = f", {times.decode_tok_s:.1f} tokens/s" if times.decode_tok_s else ""
    guessed = output.guessed
    right = f"; {guessed.accepted} of {guessed.drafted} guesses right" if guessed.drafted else ""
    return (
        f"{tokens} tokens in {times.prefill_s + times.decode_s:.2f} s{speed}; "
        f"prompt {len(output.prompt_ids)} tokens in {times.prefill_s:.2f} s{right}; ended by {reasons}"
    )
