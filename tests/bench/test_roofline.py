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
