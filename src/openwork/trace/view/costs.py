"""What each step of a request cost at least: bytes and operations, derived from the model's numbers.

    bytes        every matrix once, and the keys and values that its rows attend to
    operations   two for each entry of the layers' matrices and row, of the head and row that was asked for a token,
                 and four for each key, entry of a query and row

Times are the recording's. Ceilings are measured on the machine that shows the page or are not there; they are not part
of a recording. Formulas: docs/microscope.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openwork.core.settings import LANES
from openwork.core.spec import ModelSpec
from openwork.ops.paged import PagedKV
from openwork.run.capture import Examiner
from openwork.trace.view.journey import Journey


@dataclass(frozen=True, slots=True)
class Shape:
    """How a model lies in memory, as far as its costs go."""

    spec: ModelSpec
    read_bytes: int  # of all matrices that one decode step reads
    kv_token_bytes: float  # of keys and values of one token, all layers


def shape_of(examiner: Examiner) -> Shape:
    """Of a model that is open."""
    model, spec = examiner.model, examiner.model.spec
    linears = [model.weights.head]
    for layer in model.weights.layers:
        linears += [layer.attention.qkv, layer.attention.out, layer.mlp.up, layer.mlp.down]
    block = PagedKV.block_bytes(spec.num_layers, spec.num_kv_heads, spec.head_dim, LANES, examiner.kv_dtype)
    return Shape(spec, sum(each.weight.num_bytes for each in linears), block / LANES)


def costs_document(
    request: Mapping[str, Any], journey: Journey, shape: Shape | None, ceilings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Both phases of a request, and each of its steps, from its request document."""
    if shape is None:
        return {"steps": None, "phases": None, "ceilings": None, "missing": ["The model's numbers are not at hand."]}
    prompt_len = len(request["prompt"]["ids"])
    steps = []
    for step, part in zip(request["steps"], journey.parts, strict=True):
        cost = _cost([(work.start, work.count, work.asks) for work in part.step.works], shape)
        own = [(w["start"], w["count"], True) for w in step["works"]]
        is_prefill = any(w["start"] + w["count"] <= prompt_len and w["start"] < prompt_len for w in step["works"])
        steps.append(
            {
                "number": step["number"],
                "run": step["run"],
                "phase": "prefill" if is_prefill else "decode",
                "elapsed_s": step["elapsed_s"],
                "rows": step["rows"],
                "own_rows": step["own_rows"],
                "bytes": cost[0],
                "operations": cost[1],
                "own_operations": _cost(own, shape)[1],
            }
        )
    spec = shape.spec
    return {
        "steps": steps,
        "phases": [_phase(name, steps) for name in ("prefill", "decode")],
        "ceilings": ceilings,
        "spec": {
            "architecture": spec.architecture,
            "layers": spec.num_layers,
            "heads": spec.num_heads,
            "kv_heads": spec.num_kv_heads,
            "head_dim": spec.head_dim,
            "hidden": spec.hidden_size,
            "intermediate": spec.intermediate_size,
            "vocab": spec.vocab_size,
            "parameters": spec.num_parameters,
            "read_bytes": shape.read_bytes,
            "kv_token_bytes": shape.kv_token_bytes,
            "rope_dim": None if spec.rope is None else spec.rope.dim,
        },
        "marks": {"elapsed_s": "measured", "rows": "measured", "bytes": "derived", "operations": "derived"},
        "missing": [] if ceilings else ["Ceilings of the machine were not measured in this session."],
    }


def _cost(contexts: Sequence[Sequence[Any]], shape: Shape) -> tuple[float, float]:
    """(bytes, operations) of one step. A context is (first position, rows, whether a token was asked for)."""
    spec, operations, keys = shape.spec, 0.0, 0
    for start, count, asks in contexts:
        operations += 2.0 * count * spec.num_layers * spec.layer_weights + 2.0 * bool(asks) * spec.head_weights
        for window in spec.windows:
            operations += 4.0 * spec.q_size * _seen(start, count, window)
        keys += start + count
    return shape.read_bytes + keys * shape.kv_token_bytes, operations


def _seen(start: int, count: int, window: int | None) -> int:
    """Keys that the rows start .. start + count - 1 attend to, together."""
    if window is None:
        return count * start + count * (count + 1) // 2
    return sum(min(position + 1, window) for position in range(start, start + count))


def _phase(name: str, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the steps of one phase took together, the rows of others in the same steps counted too."""
    own = [step for step in steps if step["phase"] == name and step["elapsed_s"] is not None]
    seconds = sum(step["elapsed_s"] for step in own)
    num_bytes, operations = sum(step["bytes"] for step in own), sum(step["operations"] for step in own)
    return {
        "name": name,
        "steps": len(own),
        "tokens": sum(step["own_rows"] for step in own),
        "rows": sum(step["rows"] for step in own),
        "elapsed_s": seconds,
        "bytes": num_bytes,
        "operations": operations,
        "intensity": operations / num_bytes if num_bytes else None,
        "tokens_s": sum(step["own_rows"] for step in own) / seconds if seconds else None,
        "bytes_s": num_bytes / seconds if seconds else None,
        "operations_s": operations / seconds if seconds else None,
    }
