"""The picture: dots under the roofs of their own record, peers below ours by the measured ratio."""

import importlib
import json
import xml.etree.ElementTree as ET

import pytest


def work(**about):
    return {"dtype": "int8", "batch": 1, "context": 128, **about}


def peer(name, dtype, ratio, operations):
    cost = {"num_bytes": 1e9, "operations": operations}
    figures = {"decode": {"ratio": ratio}, "prefill": {"ratio": 2 * ratio}}
    costs = {"decode_cost": cost, "prefill_cost": {"num_bytes": 1e9, "operations": 1.1e12}}
    return {"peer": name, "dtype": dtype, "streams": 1, **figures, **costs}


BENCH = {
    "model": "a <shape>",
    "threads": 2,
    "contract_id": "x-v2",
    "limits": {"read_gb_s": 50.0, "bf16_gflop_s": 1000.0, "f32_gflop_s": 500.0, "int8_gop_s": 2000.0},
    "results": [
        work(name="decode", share=0.9, num_bytes=1e9, operations=2e9),
        work(name="decode", dtype="bfloat16", batch=8, share=0.8, num_bytes=2e9, operations=2e10),
        work(name="prefill", context=512, share=0.7, num_bytes=1e9, operations=1e12),
        {"name": "first_token", "dtype": "int8", "seconds": 0.4},
    ],
}
PEERS = {
    "results": [
        peer("llama.cpp Q8_0", "int8", 2.0, 2.1e9),
        peer("vLLM BF16", "bfloat16", 2.0, 1e9),
        {"peer": "llama.cpp Q8_0", "dtype": "int8", "streams": 1, "start_s": {"ratio": 1.0}},
    ]
}


@pytest.fixture
def roofline(scripts):
    return importlib.import_module("roofline")


def test_a_dot_stands_below_its_roof_by_its_share(roofline):
    one, many, prefill = roofline.our_dots(BENCH)
    assert one.rate == pytest.approx(0.9 * 2 * 50e9)
    assert many.rate == pytest.approx(0.8 * 10 * 50e9)
    assert prefill.rate == pytest.approx(0.7 * 2000e9) and prefill.label == "prefill 512"


def test_a_peer_stands_below_ours_by_the_ratio_and_nowhere_when_no_work_is_like_it(roofline):
    ours = roofline.our_dots(BENCH)
    decode, prefill = roofline.peer_dots(PEERS, ours)
    assert decode.rate == pytest.approx(ours[0].rate / 2) and decode.intensity == ours[0].intensity
    assert prefill.rate == pytest.approx(ours[2].rate / 4)


def test_the_picture_is_xml_with_a_mark_for_every_dot_within_its_frame(roofline, tmp_path, monkeypatch):
    bench, peers, output = tmp_path / "bench.json", tmp_path / "peers.json", tmp_path / "out.svg"
    bench.write_text(json.dumps(BENCH))
    peers.write_text(json.dumps(PEERS))
    monkeypatch.setattr("sys.argv", ["roofline.py", str(bench), "--peers", str(peers), "--output", str(output)])
    roofline.main()
    root = ET.fromstring(output.read_text())
    circles = [each for each in root.iter() if each.tag.endswith("circle") and len(each)]
    assert len(circles) == 3
    for circle in circles:
        assert roofline.LEFT < float(circle.get("cx")) < roofline.WIDTH - roofline.RIGHT
        assert roofline.TOP < float(circle.get("cy")) < roofline.HEIGHT - roofline.BOTTOM
    assert "a &lt;shape&gt;" in output.read_text() and "llama.cpp Q8_0" in output.read_text()


def test_a_record_without_work_is_refused(roofline):
    with pytest.raises(ValueError, match="neither"):
        roofline.picture({**BENCH, "results": []})


def test_figures_are_written_between_the_marks_of_the_page(roofline, scripts, tmp_path, monkeypatch):
    write_up = importlib.import_module("write_up")
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    figures = {"tok_s": 50.0, "limit_tok_s": 100.0, "bound": "memory", "linear_share": 0.5}
    memory = {"name": "memory", "dtype": "int8", "peak_bytes": 700_000_000, "weight_bytes": 600_000_000}
    about = {"skipped": ["a long context: too long"], "results": [{**figures, **each} for each in BENCH["results"]]}
    (results / "qwen.json").write_text(json.dumps({**BENCH, **about, "results": [*about["results"], memory]}))
    told = {"bits": 8, "test": "a", "about": "1 stream", "prefill": {"ours": 2.0, "peer": 1.0, "ratio": 2.0}}
    others = [{**PEERS["results"][0], **told, "decode": {"ours": 6.0, "peer": 4.0, "ratio": 1.5}}]
    (results / "qwen-peers.json").write_text(json.dumps({"results": others, "skipped": ["vllm: not there"]}))
    page = docs / "performance.md"
    page.write_text(f"before\n{write_up.BEGIN}\nstale\n{write_up.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["write_up.py", "--results", str(results), "--docs", str(docs)])
    write_up.main()
    write_up.main()  # the marks are still there
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "| decode 8 x 128 | bfloat16 | 50.0 | 100.0 | 80% (50% by the matrices alone) | memory |" in text
    assert "| int8 | 0.400 s |  | 700 MB | 100 MB |" in text
    assert "| 1 stream | decode | 8 | llama.cpp Q8_0 | 6.00 | 4.00 tok/s | **1.50** |" in text
    assert "too long" in text and "vllm: not there" in text
    assert (docs / "roofline.svg").read_text().startswith("<svg")
    real = (scripts.parent / "docs" / "performance.md").read_text()
    assert real.count(write_up.BEGIN) == real.count(write_up.END) == 1
