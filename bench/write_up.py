"""Put measured figures where people read them: the tables of docs/performance.md and the picture beside it.

    python bench/write_up.py [--results bench/results] [--docs docs]

bench/results holds, for each shape, SHAPE.json, what `openwork bench --shape SHAPE --json` printed, and
SHAPE-peers.json, what bench/peers.py --output wrote (it may be missing). The tables stand between two marks in the
page; what is there is replaced. The picture is that of the first shape.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import roofline
from engines import report

BEGIN, END = "<!-- figures: written by bench/write_up.py -->", "<!-- end of figures -->"


def pages(results: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """(shape, bench record, peers record) of every shape that was measured, in alphabetical order turned round."""
    for path in sorted(results.glob("*.json"), reverse=True):
        if not path.stem.endswith("-peers"):
            peers = path.with_name(f"{path.stem}-peers.json")
            yield path.stem, json.loads(path.read_text()), json.loads(peers.read_text()) if peers.exists() else None


def tables(shape: str, bench: dict[str, Any], peers: dict[str, Any] | None) -> Iterator[str]:
    """Markdown of one shape."""
    limits = bench["limits"]
    yield f"### {shape}"
    yield ""
    peaks = f"{limits['bf16_gflop_s']:.0f} GFLOP/s bfloat16, {limits['f32_gflop_s']:.0f} float32"
    peaks += f", {limits['int8_gop_s']:.0f} GOP/s int8"
    yield f"{bench['threads']} threads, `{bench['contract_id']}`. The best ceilings of the run: "
    yield f"{limits['read_gb_s']:.0f} GB/s; {peaks}."
    yield ""
    yield "| work | weights | tok/s | ceiling | share | bound by |"
    yield "|---|---|---|---|---|---|"
    for each in bench["results"]:
        if each["name"] in ("decode", "prefill"):
            yield _row(each)
    yield ""
    yield from _starts(bench["results"])
    yield from (f"Left out: {why}." for why in bench["skipped"])
    if peers is not None:
        yield from _peers(peers)


def _row(each: dict[str, Any]) -> str:
    work = f"prefill {each['context']}" if each["name"] == "prefill" else f"decode {each['batch']} x {each['context']}"
    share = f"{each['share']:.0%}"
    if "linear_share" in each:
        share += f" ({each['linear_share']:.0%} by the matrices alone)"
    return f"| {work} | {each['dtype']} | {each['tok_s']:.1f} | {each['limit_tok_s']:.1f} | {share} | {each['bound']} |"


def _starts(results: list[dict[str, Any]]) -> Iterator[str]:
    found: dict[str, dict[str, Any]] = {}
    for each in results:
        if each["name"] in ("first_token", "memory"):
            found.setdefault(each["dtype"], {}).update(each)
    if not found:
        return
    yield "| weights | process start to first token | the very first time | peak memory | beside the weights |"
    yield "|---|---|---|---|---|"
    for dtype, each in found.items():
        first = f"{each['first_seconds']:.2f} s" if "first_seconds" in each else ""
        peak = each.get("peak_bytes", 0) / 1e6
        beside = peak - each.get("weight_bytes", 0) / 1e6
        yield f"| {dtype} | {each['seconds']:.3f} s | {first} | {peak:.0f} MB | {beside:.0f} MB |"
    yield ""


def _peers(peers: dict[str, Any]) -> Iterator[str]:
    yield "Beside other engines, in turn; a ratio above 1 is ours being better. In bold, the best peer at those bits."
    yield ""
    yield "| work | figure | bits | peer | ours | peer's | ratio |"
    yield "|---|---|---|---|---|---|---|"
    best = report.best(peers["results"])
    order = {each: at for at, each in enumerate(dict.fromkeys(each["about"] for each in peers["results"]))}
    rows = []
    for result in peers["results"]:
        for figure, found in report.figures(result):
            name, unit, factor = report.UNITS[figure]
            ours, other = (report.number(found[who] * factor) for who in ("ours", "peer"))
            mark = "**" if best[result["bits"], result["test"], figure] is result else ""
            row = f"| {result['about']} | {name} | {result['bits']} | {result['peer']} | {ours} | {other} {unit} |"
            rows.append((order[result["about"]], figure, -result["bits"], f"{row} {mark}{found['ratio']:.2f}{mark} |"))
    yield from (row for *_, row in sorted(rows))
    yield ""
    yield from (f"Left out: {why}." for why in peers["skipped"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("bench/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    measured = list(pages(asked.results))
    if not measured:
        parser.error(f"there are no results in {asked.results}")
    lines = ["", "![Our work under the two ceilings, and that of others](roofline.svg)", ""]
    for each in measured:
        lines += [*tables(*each), ""]
    page = asked.docs / "performance.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    _, bench, peers = measured[0]
    (asked.docs / "roofline.svg").write_text(roofline.picture(bench, peers), encoding="utf-8")


if __name__ == "__main__":
    main()
