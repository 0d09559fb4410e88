"""What goes into a file of its own: the documents of one request, as many as a bound on bytes allows.

First what the recording says, then the rows that chose tokens, their layers, and last those of the prompt. What was
left out is counted and said on the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from openwork.trace.view.against import most_alike
from openwork.trace.view.documents import View, listed

MOST_DIFFS = 4


def file_documents(view: View, max_bytes: int, has_layers: bool = True) -> tuple[dict[str, Any], str]:
    """The documents by path, and a sentence about those that are not among them. Raises what View raises."""
    documents: dict[str, Any] = {path: view.document(path) for path in ("request", "costs", "timeline")}
    documents["requests"] = _beside(view, documents)
    if view.beside.there is not None:
        documents |= _against(view)
    used = sum(_size(each) for each in documents.values())
    if view.why_dark:
        return documents, view.why_dark
    for sequence in range(len(view.journey.indices)):
        documents[f"strip/{sequence}"] = view.document(f"strip/{sequence}")
    wanted = list(_paths(view, has_layers))
    held = {"row": 0, "heads": 0, "layer": 0}
    for path in wanted:
        document = view.document(path)
        used += _size(document)
        if used > max_bytes:
            break
        documents[path] = document
        held[path.partition("/")[0]] += 1
    total = {kind: sum(path.startswith(kind) for path in wanted) for kind in held}
    if held == total and has_layers:
        return documents, "This file holds everything of its request; this is of another."
    return documents, (
        f"This file holds {held['row']} of {total['row']} rows and {held['layer']} of {total['layer']} layers of rows: "
        "this one is not among them. Open the recording itself with openwork see to have any."
    )


def _paths(view: View, has_layers: bool) -> Iterator[str]:
    """Rows and layers in the order in which they are wanted most."""
    prompt_len = len(view.journey.request.prompt)
    lines = range(len(view.journey.indices))
    layers = range(view.num_layers if has_layers else 0)
    decoding = [(s, p) for s in lines for p in range(prompt_len - 1, view.last_position(s) + 1)]
    given = [(s, p) for s in lines for p in range(prompt_len - 1)]
    yield from (f"row/{s}/{p}" for s, p in decoding)
    yield from (f"heads/{s}/{p}" for s, p in decoding if has_layers)
    yield from (f"layer/{s}/{p}/{layer}" for s, p in decoding for layer in layers)
    yield from (f"row/{s}/{p}" for s, p in given)
    yield from (f"heads/{s}/{p}" for s, p in given if has_layers)
    yield from (f"layer/{s}/{p}/{layer}" for s, p in given for layer in layers)


def _beside(view: View, documents: dict[str, Any]) -> dict[str, Any]:
    """The requests whose difference from this one is in the file: those that begin most alike, and one asked for."""
    stories, left_out = view.stories()
    own, others = view.journey.story.id, {story.id: story for story in stories if not story.error}
    first = view.beside.first if view.beside.there is None else None
    alike = most_alike(view.journey, (story for story in stories if story.id in others and story.id != own))
    wanted = [id for id in dict.fromkeys([first, *alike[:MOST_DIFFS]]) if id in others]
    documents.update({f"diff/{id}": view.document(f"diff/{id}") for id in wanted})
    return listed((others[id] for id in wanted), left_out + len(stories) - len(wanted))


def _against(view: View) -> dict[str, Any]:
    """The requests of the other recording: the one that is shown first, alone."""
    told = view.document("against")
    shown = [each for each in told["requests"] if each["id"] == told["beside"]]
    found = {f"against/{each['id']}": view.document(f"against/{each['id']}") for each in shown}
    return {"against": told | {"requests": shown}, **found}


def _size(document: dict[str, Any]) -> int:
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
