"""The choice of number formats, from the library's face down to what runs."""

import pytest

from openwork import LLM, BackendError, SamplingParams
from openwork.load import assemble
from openwork.ops.packed import DTYPES
from openwork.testing.checkpoint import write_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
IDS = [5, 9, 2, 6, 40, 3]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), "Qwen3ForCausalLM", dtype="bfloat16")


def tokens(checkpoint, **how):
    with LLM(checkpoint, **how) as llm:
        return llm.generate(IDS, GREEDY)[0].completions[0].token_ids, llm.info


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_formats_runs(dtype, kv_dtype, backend, checkpoint):
    ids, info = tokens(checkpoint, dtype=dtype, kv_dtype=kv_dtype, backend=backend)
    assert len(ids) == 6
    assert (info.dtype, info.kv_dtype) == (dtype, kv_dtype)
    assert info.weight_bytes > info.read_bytes_per_token > 0 and info.kv_bytes > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_widths_just_work(dtype, tmp_path):
    """No width is a multiple of a group of 32, nor a number of outputs of 16; some are odd."""
    sizes = {"hidden_size": 38, "intermediate_size": 51, "head_dim": 18, "num_attention_heads": 3, "vocab_size": 101}
    directory = write_checkpoint(tmp_path / "odd", "Qwen3ForCausalLM", num_key_value_heads=1, **sizes)
    native, _ = tokens(directory, dtype=dtype)
    assert native == tokens(directory, dtype=dtype, backend="reference")[0]


def test_fewer_bits_are_fewer_bytes(checkpoint):
    infos = [tokens(checkpoint, dtype=dtype)[1] for dtype in ("float32", "bfloat16", "int8", "int4")]
    sizes = [info.read_bytes_per_token for info in infos]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert [info.kv_dtype for info in infos] == ["float32", "bfloat16", "bfloat16", "bfloat16"]


@pytest.mark.parametrize("how", [{"dtype": "int3"}, {"kv_dtype": "int4"}])
def test_an_unknown_format_is_told_the_choices(how, monkeypatch):
    """Before anything is looked for, or downloaded."""
    monkeypatch.setattr("openwork.load.source.resolve", lambda model: pytest.fail("it was looked for"))
    with pytest.raises(BackendError, match="there is no dtype") as error:
        LLM("org/name", **how)
    assert error.value.hint.startswith("Choose auto, float32, bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "int4"])
def test_the_second_start_is_mapped_and_says_the_same(dtype, checkpoint, home, monkeypatch):
    monkeypatch.setattr(assemble, "WORTH_BYTES", 1)
    first, packed = tokens(checkpoint, dtype=dtype)
    second, mapped = tokens(checkpoint, dtype=dtype)
    assert not packed.is_mapped and mapped.is_mapped and first == second
    third, without = tokens(checkpoint, dtype=dtype, weight_cache=False)
    assert not without.is_mapped and third == first


def test_no_cache_is_no_cache(checkpoint, home, monkeypatch):
    monkeypatch.setattr(assemble, "WORTH_BYTES", 1)
    tokens(checkpoint, weight_cache=False)
    assert not home.exists()
