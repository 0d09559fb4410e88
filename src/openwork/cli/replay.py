"""openwork replay: a recorded request computed again in one pass, and compared bit by bit with what was served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli import options, terminal
from openwork.cli.comparing import DIFFERENT, EQUAL, comparing
from openwork.cli.progress import Bars
from openwork.core.stamp import EMBED, HEAD

if TYPE_CHECKING:
    from openwork.trace.entry import Began
    from openwork.trace.recording import Recording
    from openwork.trace.replay.difference import Difference
    from openwork.trace.replay.search_difference import SearchDifference, SearchVerdict
    from openwork.trace.replay.verdict import Verdict
    from openwork.trace.story import Story

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def replay(
    id: Annotated[str, typer.Argument(metavar="ID", help="The request, as openwork trace ls names it.")],
    record: Annotated[Path, typer.Option("--record", metavar="DIR", help="The recording.", show_default=False)],
    step: Annotated[
        int | None, typer.Option("--step", help="Only this token of the answer, counted from 0.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The same model, where it has another name here.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    threads: options.Threads = None,
    weight_cache: options.WeightCache = True,
) -> None:
    """Compute a recorded request again, and compare every row of logits and every choice with what was served.

    It was served among others, in chunks, with a prefix from the cache, preempted, taken over by another process: the
    bits are the same all the same. Exit code 0: equal; 1: not, and the first difference is told: the token, and the
    layer and operation as far as rows were recorded layer by layer (--record-layers); 3: it could not be compared.

    \b
    [bold]openwork replay cmpl-5b0f --record DIR[/]
    [bold]openwork replay cmpl-5b0f --record DIR --step 17 --json[/]
    """
    from openwork.trace.recording import Recording

    with comparing(), Bars() as bars:
        recording = Recording.open(record)
        story = recording.request(id)
        verdict = _replayed(recording, story, step, model, bars, threads=threads, cache=weight_cache)
    if as_json:
        typer.echo(json.dumps(verdict.as_record()))
    else:
        is_search = story.request is not None and story.request.search is not None
        typer.echo(_told_of_search(verdict, step) if is_search else _told(verdict, len(story.lines)))
    for damage in recording.damage:
        terminal.show_note(f"not all of the recording can be read: {damage}")
    raise typer.Exit(EQUAL if verdict.equal else DIFFERENT)


def _replayed(recording: Recording, story: Story, step: int | None, model: str | None, bars: Bars, **load: Any) -> Any:
    """Open the model as it was opened for whoever served, and replay -> a Verdict, or of a search a SearchVerdict."""
    from openwork.build import examiner
    from openwork.core.settings import LoadSettings
    from openwork.trace.replay.bits import check, replay
    from openwork.trace.replay.search import replay_search
    from openwork.trace.searched import lives_of

    request = check(story, step)  # before a model is loaded
    began = _began(recording, story)
    settings = LoadSettings(dtype=began.dtype, kv_dtype=began.kv_dtype, context=request.limits.context, **load)
    examines = examiner(model or began.model, settings, bars, began.contract_id)
    if request.search is None:
        return replay(examines, began, story, step)
    return replay_search(examines, began, story, lives_of(recording.entries_of(story.id), story.id), step)


def _began(recording: Recording, story: Story) -> Began:
    """The process that had the request last. Those before it passed it on, so they served the same model."""
    return next(began for began in recording.processes if began.run == story.run)


def _told(verdict: Verdict[Difference], num_lines: int) -> str:
    first = verdict.first_difference
    among = "" if num_lines == 1 else f" in {num_lines} sequences"
    if first is None:
        unhashed = f" Of {verdict.unhashed} no hash was recorded: their choice alone was compared."
        said = "every row of logits has the bits that were served, and every choice is the same."
        return f"{verdict.id}: equal. {verdict.tokens} tokens{among}: {said}{unhashed if verdict.unhashed else ''}"
    where = (
        f"token {first.token}{'' if num_lines == 1 else f' of sequence {first.sequence}'}, position {first.position}"
    )
    return (
        f"{verdict.id}: differs at {where}. The {first.what} recorded: {first.recorded}, found: {first.found}."
        f"{_first_place(first)} {first.finding}."
    )


def _first_place(first: Difference | SearchDifference) -> str:
    """Where in the model it came about, if that is known; what follows says how it is known."""
    if first.op is None:
        return ""
    ends = {EMBED: "the embedding", HEAD: "the final norm or the head"}
    return f" It comes about in {ends.get(first.op) or f'layer {first.layer}, {first.op}'}:"


def _told_of_search(verdict: SearchVerdict, step: int | None) -> str:
    first = verdict.first_difference
    if first is None:
        said = f"{verdict.rows} rows that the search read: each has the bits that were served, and it decides again so."
        if step is not None:
            rows = "1 row" if verdict.rows == 1 else f"{verdict.rows} times the row"
            said = f"{rows} by which token {step} of the best answer was chosen: the bits that were served."
        unhashed = f" Of {verdict.unhashed} no hash was recorded." if verdict.unhashed else ""
        return f"{verdict.id}: equal. {said}{unhashed}"
    where = "in the answer" if first.line is None else f"at position {first.position}, behind the tokens {first.line}"
    at = _first_place(first)
    return f"{verdict.id}: differs {where}. Recorded: {first.recorded}; found: {first.found}.{at} {first.finding}."
