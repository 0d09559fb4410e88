"""A roofline picture, as an SVG by hand, from what `openwork bench --json` and bench/peers.py --output measured.

    python bench/roofline.py bench.json [--peers peers.json] [--output docs/roofline.svg]

Both axes are logarithmic: operations for each byte that must be read, and operations a second. The slanted roof is
the read bandwidth, the flat ones are the peaks of the dot products. A dot is work that was measured: decoding moves
right with the number of sequences, since they share the weights that are read; prefill is far right. A peer stands
where the work stands, at the same number of bits.

The machine drifts, so a dot is drawn at its share of its own moment's ceiling, under the roofs of this run: its height
below the roof is what was measured, not what the clock said. Peers have no ceilings of their own; each stands below our
dot of the same work by the ratio that was measured in turn.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 78, 250, 54, 58  # margins; the right one holds the legend
COLOURS = {"float32": "#8a6d3b", "bfloat16": "#2563a8", "int8": "#b4442c", "int8-channel": "#a0527f", "int4": "#2f855a"}
DOTS = {"float32": "f32_gflop_s", "bfloat16": "bf16_gflop_s", "int8": "int8_gop_s"}
INK, FAINT, GREY = "#30343b", "#c9ced6", "#6b7280"
SHAPES = {  # of a peer's mark, as a path around its middle
    "llama.cpp": "m-4,-4l8,8m0,-8l-8,8",
    "OpenVINO": "m-5,0h10m-5,-5v10",
    "vLLM": "m0,-5l5,9h-10z",
    "transformers": "m0,-5l5,5l-5,5l-5,-5z",
}


@dataclass(frozen=True)
class Dot:
    """Work that was measured: operations for each byte, operations a second."""

    intensity: float
    rate: float
    dtype: str
    label: str
    is_ours: bool


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown, and where its points lie on the picture."""

    left: float  # operations for each byte
    right: float
    low: float  # operations a second
    high: float

    def x(self, intensity: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(intensity / self.left) / math.log(self.right / self.left)

    def y(self, rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(rate / self.low) / math.log(self.high / self.low)


def roof(limits: dict[str, float], dot: str, intensity: float) -> float:
    """Operations a second that the machine allows at an intensity."""
    return min(intensity * limits["read_gb_s"], limits[DOTS[dot]]) * 1e9


def dot_of(dtype: str) -> str:
    return "int8" if dtype.startswith("int") else dtype


def our_dots(bench: dict[str, Any]) -> list[Dot]:
    """Every decode and prefill of a bench record."""
    dots = []
    for each in bench["results"]:
        if each["name"] not in ("decode", "prefill"):
            continue
        intensity = each["operations"] / each["num_bytes"]
        rate = each["share"] * roof(bench["limits"], dot_of(each["dtype"]), intensity)
        prompt = f"prefill {each['context']}"
        label = prompt if each["name"] == "prefill" else f"{each['batch']} x {each['context']}"
        dots.append(Dot(intensity, rate, each["dtype"], label, True))
    return dots


def peer_dots(peers: dict[str, Any], ours: list[Dot]) -> Iterator[Dot]:
    """Each figure of a peer, as far below the dot of ours that stands nearest in the same format as it was measured."""
    for result in peers["results"]:
        for figure in ("decode", "prefill"):
            cost = result.get(f"{figure}_cost")
            near = [
                dot
                for dot in ours
                if dot.dtype == result["dtype"] and dot.label.startswith("pre") == (figure[0] == "p")
            ]
            if cost is None or not near:
                continue
            if figure == "prefill" and result["streams"] > 1:
                continue
            intensity = cost["operations"] / cost["num_bytes"]
            nearest = min(near, key=lambda dot: abs(math.log(dot.intensity / intensity)))
            if abs(math.log2(nearest.intensity / intensity)) > 0.5:
                continue  # no work of ours in this record is like it
            yield Dot(nearest.intensity, nearest.rate / result[figure]["ratio"], result["dtype"], result["peer"], False)


def picture(bench: dict[str, Any], peers: dict[str, Any] | None = None) -> str:
    """The whole SVG. Raises ValueError when there is nothing to draw."""
    ours = our_dots(bench)
    if not ours:
        raise ValueError("the record has neither decoding nor prefill")
    others = [] if peers is None else list(peer_dots(peers, ours))
    limits, all_dots = bench["limits"], [*ours, *others]
    peaks = sorted({dot_of(dot.dtype) for dot in ours})
    frame = Frame(
        left=min(dot.intensity for dot in all_dots) / 1.6,
        right=max(dot.intensity for dot in all_dots) * 1.6,
        low=min(dot.rate for dot in all_dots) / 1.8,
        high=max(limits[DOTS[dot]] for dot in peaks) * 1e9 * 1.5,
    )
    about = f"{bench['model']}, {bench['threads']} threads, {bench['contract_id']}"
    body = [*_grid(frame), *_roofs(frame, limits, peaks)]
    body += [_mark(frame, dot) for dot in others] + [_mark(frame, dot) for dot in ours]
    body += [*_labels(frame, ours), *_legend(ours, others), _text(LEFT, 28, about, size=15, weight="600")]
    style = 'font-family="system-ui, sans-serif"'
    box = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style} role="img">'
    title = f"<title>Roofline: {escape(about)}</title>"
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return "\n".join([box, title, paper, *body, "</svg>", ""])


def _grid(frame: Frame) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for power in range(math.ceil(math.log2(frame.left)), math.floor(math.log2(frame.right)) + 1):
        x = frame.x(2.0**power)
        yield _line(x, TOP, x, bottom, FAINT, 0.6)
        if power % 2 == 0:
            yield _text(x, bottom + 18, f"{2.0**power:g}", anchor="middle")
    for power in range(math.ceil(math.log10(frame.low)), math.floor(math.log10(frame.high)) + 1):
        y = frame.y(10.0**power)
        yield _line(LEFT, y, WIDTH - RIGHT, y, FAINT, 0.6)
        yield _text(LEFT - 8, y + 4, f"{10.0 ** (power - 9):g}", anchor="end")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "operations for each byte that must be read", anchor="middle")
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 20 {middle})"'
    yield _text(20, middle, "thousand million operations a second", anchor="middle", more=turned)


def _roofs(frame: Frame, limits: dict[str, float], peaks: list[str]) -> Iterator[str]:
    bandwidth = limits["read_gb_s"] * 1e9
    highest = max(limits[DOTS[dot]] for dot in peaks) * 1e9
    start = max(frame.left, frame.low / bandwidth)
    ridge = min(frame.right, highest / bandwidth)
    yield _line(frame.x(start), frame.y(start * bandwidth), frame.x(ridge), frame.y(ridge * bandwidth), INK, 2)
    place = math.sqrt(start * ridge) / 1.5
    x, y = frame.x(place), frame.y(place * bandwidth)
    run, rise = frame.x(place * 2) - x, y - frame.y(place * bandwidth * 2)
    turned = f'transform="rotate({-math.degrees(math.atan2(rise, run)):.1f} {x:.1f} {y - 8:.1f})"'
    yield _text(x, y - 8, f"reads {limits['read_gb_s']:.0f} GB/s", more=turned)
    for dot in peaks:
        peak = limits[DOTS[dot]] * 1e9
        y = frame.y(peak)
        yield _line(frame.x(max(frame.left, peak / bandwidth)), y, WIDTH - RIGHT, y, COLOURS[dot], 2)
        yield _text(WIDTH - RIGHT + 8, y + 4, f"{dot} dot products, {peak / 1e9:.0f}", colour=COLOURS[dot])


def _mark(frame: Frame, dot: Dot) -> str:
    x, y, colour = frame.x(dot.intensity), frame.y(dot.rate), COLOURS[dot.dtype]
    tip = f"<title>{escape(dot.label)}, {dot.dtype}: {dot.rate / 1e9:.0f}</title>"
    if dot.is_ours:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" stroke="#fff">{tip}</circle>'
    return _peer_mark(x, y, engine_of(dot.label), colour, tip)


def engine_of(peer: str) -> str:
    return peer.split(" ")[0]


def _peer_mark(x: float, y: float, engine: str, colour: str, inside: str = "") -> str:
    path = f"M{x:.1f},{y:.1f}{SHAPES[engine]}"
    return f'<path d="{path}" stroke="{colour}" stroke-width="1.6" fill="none" opacity="0.8">{inside}</path>'


def _labels(frame: Frame, ours: list[Dot]) -> Iterator[str]:
    """The work of each dot, once for all formats, below the lowest of them; none where another one stands already."""
    taken: list[tuple[float, float]] = []
    for dot in sorted(ours, key=lambda each: (each.rate, each.intensity)):
        x, y = frame.x(dot.intensity) + 8, frame.y(dot.rate) + 12
        if all(abs(x - other) > 58 or abs(y - another) > 13 for other, another in taken):
            taken.append((x, y))
            yield _text(x, y, dot.label, size=10, colour=GREY)


def _legend(ours: list[Dot], others: list[Dot]) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 26, HEIGHT - BOTTOM - 150
    for dtype in dict.fromkeys(dot.dtype for dot in ours):
        yield f'<circle cx="{x - 10}" cy="{y - 4}" r="5" fill="{COLOURS[dtype]}"/>'
        yield _text(x, y, f"openwork, {dtype}")
        y += 20
    for engine in dict.fromkeys(engine_of(dot.label) for dot in others):
        yield _peer_mark(x - 10, y - 4, engine, GREY)
        yield _text(x, y, engine, colour=GREY)
        y += 18


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return f'<path d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}" stroke="{colour}" stroke-width="{width}" fill="none"/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, colour: str = INK, anchor: str = "start", weight: str = "400",
    more: str = "",
) -> str:  # fmt: skip
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}'.rstrip()
    return f'<text {where} font-size="{size}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="what `openwork bench --json` printed")
    parser.add_argument("--peers", type=Path, help="what bench/peers.py --output wrote")
    parser.add_argument("--output", type=Path, default=Path("docs/roofline.svg"))
    asked = parser.parse_args()
    peers = None if asked.peers is None else json.loads(asked.peers.read_text())
    asked.output.write_text(picture(json.loads(asked.bench.read_text()), peers), encoding="utf-8")


if __name__ == "__main__":
    main()
