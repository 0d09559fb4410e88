"""The native backend as an object: choosing kernels, refusing misuse, threads, forks, and life without the core."""

import gc
import os
import threading

import numpy as np
import pytest

from openwork.core.errors import BackendError
from openwork.ops import cpu
from openwork.ops.cpu import Cpu, available
from openwork.ops.packed import Packed
from openwork.ops.paged import PagedKV, Rows
from openwork.ops.weights import Attention, Linear, Mlp, Norm

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not installed")


def linear(n, k, bias=None, dtype="float32"):
    packed = Packed.empty(n, k, dtype)
    packed.put(0, np.ones((n, k), np.float32))
    return Linear(packed, bias)


def attention(hidden=6, heads=2, kv_heads=1, dim=4, **how):
    qkv, out = linear((heads + 2 * kv_heads) * dim, hidden), linear(hidden, heads * dim)
    return Attention(qkv, out, heads, kv_heads, dim, **{"rotary_dim": 0, "scale": 0.5, **how})


def rows(positions, starts=None, tables=((0, 1, 2, 3),), cos=None):
    positions = np.array(positions, np.int32)
    starts = np.array([0, len(positions)] if starts is None else starts, np.int32)
    return Rows(positions, starts, np.array(tables, np.int32), cos, cos)


# -- which kernels -----------------------------------------------------------------------------------------------------


def test_the_contract_names_the_instruction_set():
    assert available()[-1] == "portable"
    assert {Cpu(1, isa).contract_id for isa in available()} == {f"{isa}-v2" for isa in available()}
    assert Cpu(1).isa == available()[0]
    assert Cpu().num_threads == cpu.usable_cores()


def test_the_environment_chooses_unless_an_argument_does(monkeypatch):
    monkeypatch.setenv("OPENWORK_ISA", "portable")
    assert Cpu(1).contract_id == "portable-v2"
    assert Cpu(1, available()[0]).isa == available()[0]
    monkeypatch.setenv("OPENWORK_ISA", "z80")
    with pytest.raises(BackendError, match=r"'z80'.*Available are: .*portable") as caught:
        Cpu(1)
    assert not caught.value.is_missing


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_out_of_range(threads):
    with pytest.raises(BackendError, match="1 to 1024"):
        Cpu(threads)


def test_without_the_core(monkeypatch):
    monkeypatch.setattr(cpu, "_core", None)
    monkeypatch.setattr(cpu, "_reason", "", raising=False)
    assert cpu.available() == ()
    with pytest.raises(BackendError, match=r"not installed.*C\+\+ compiler") as caught:
        Cpu()
    assert caught.value.is_missing


# -- misuse: an exception, never memory that is not ours ---------------------------------------------------------------


def test_rows_that_do_not_fit():
    ops = Cpu(1)
    w = ops.bind(linear(5, 3))
    for x, kind, match in (
        (np.ones((2, 4), np.float32), ValueError, "3 entries a row"),
        (np.ones((2, 3)), ValueError, "float32"),
        (np.ones((2, 3), ">f4"), ValueError, "float32"),
        (np.ones((2, 6), np.float32)[:, ::2], ValueError, "contiguous"),
        ([[1.0, 2.0, 3.0]], TypeError, "bytes-like"),
    ):
        with pytest.raises(kind, match=match):
            ops.linear(x, w)
    with pytest.raises(ValueError, match="10 entries in all"):
        ops._device.linear(np.ones((2, 3), np.float32), w.native, np.empty(9, np.float32))
    locked = np.empty((2, 5), np.float32)
    locked.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|writable"):
        ops._device.linear(np.ones((2, 3), np.float32), w.native, locked)
    with pytest.raises(TypeError):
        ops._device.linear(np.ones((2, 3), np.float32), None, locked)
    with pytest.raises(ValueError, match="entries in all"):
        ops.add(np.ones((1, 3), np.float32), np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="unknown activation 'sigh'"):
        ops.act(np.ones(3, np.float32), "sigh")
    assert ops.linear(np.empty((0, 3), np.float32), w).shape == (0, 5)


def test_records_that_do_not_fit_together():
    ops, vector = Cpu(1), np.ones(4, np.float32)
    for record, match in (
        (Linear(Packed("float32", 5, 4, np.zeros((1, 3, 16), np.float32))), "n and k"),
        (Linear(Packed("float32", 500, 3, np.zeros((1, 3, 16), np.float32))), "n and k"),
        (Linear(Packed("float32", 5, 3, np.zeros((1, 3, 16)))), "uint16"),
        (Linear(Packed("int8", 5, 3, np.zeros((1, 1, 17, 64)))), "uint8"),
        (Linear(Packed("int8", 5, 65, np.zeros((1, 1, 17, 64), np.uint8))), "n and k"),
        (Linear(Packed("int4", 5, 3, np.zeros((1, 1, 17, 64), np.uint8))), "n and k"),
        (Linear(Packed("int8", 17, 3, np.zeros((1, 1, 17, 64), np.uint8))), "n and k"),
        (Linear(Packed("int8-channel", 5, 33, np.zeros((1, 9, 64), np.uint8))), "n and k"),
        (Linear(Packed("int8", 5, 3, np.zeros((1, 3, 16), np.float32))), "uint8"),
        (Linear(Packed("int5", 5, 3, np.zeros((1, 1, 17, 64), np.uint8))), "dtype must be"),
        (linear(5, 3, bias=vector), "bias"),
        (linear(5, 3, bias=np.ones(5)), "bias"),
        (Norm(np.ones((2, 2), np.float32), None, 1e-5, "rms"), "one row"),
        (Norm(np.empty(0, np.float32), None, 1e-5, "rms"), "at least one"),
        (Norm(vector, np.ones(3, np.float32), 1e-5, "layer"), "bias"),
        (Mlp(linear(7, 3), linear(3, 4), "silu", True), "fit each other"),
        (attention(heads=3, kv_heads=2), "multiple of num_kv_heads"),
        (attention(rotary_dim=6), "rotary_dim"),
        (attention(rotary_dim=3), "rotary_dim"),
        (attention(window=0), "window"),
        (attention(softcap=-1.0), "softcap"),
        (attention(q_norm=Norm(np.ones(5, np.float32), None, 1e-5, "rms")), "q_norm"),
        (Attention(linear(5, 3), linear(3, 8), 2, 1, 4, 0, 1.0), "outputs"),
        (PagedKV("float32", 16, 8, np.zeros((1, 2, 1, 1, 8, 16), "f"), np.zeros((1, 3, 1, 16, 16), "f")), "keys"),
        (PagedKV("float32", 8, 8, np.zeros((1, 2, 1, 1, 8, 16), "f"), np.zeros((1, 2, 1, 16, 16), "f")), "multiple"),
    ):
        with pytest.raises(ValueError, match=match):
            ops.bind(record)


@pytest.mark.parametrize("ids", [[5], [-1], [0, 2**40]])
def test_token_ids_outside_the_table(ids):
    ops = Cpu(1)
    with pytest.raises(IndexError, match=r"token id -?\d+ is not in 0 .. 4"):
        ops.embed(ops.bind(linear(5, 3)), np.array(ids))


def test_blocks_and_layers_outside_the_cache():
    ops, x = Cpu(2), np.ones((1, 6), np.float32)
    w, kv = ops.bind(attention()), ops.bind(PagedKV.empty(2, 4, 1, 4, 16, "float32"))
    for bad, layer, match in (
        (rows([0], tables=[[4]]), 0, "block 4"),
        (rows([0], tables=[[-1]]), 0, "block -1"),
        (rows([40], tables=[[0, 7, 1]]), 0, "block 7"),  # read, not written
        (rows([16], tables=[[0]]), 0, "too short"),
        (rows([0]), 2, "layer 2"),
        (rows([0]), -1, "layer -1"),
    ):
        with pytest.raises(IndexError, match=match):
            ops.attention_block(x, w, bad, kv, layer)
    ops.attention_block(x, w, ops.bind_rows(rows([16], tables=[[0, 1, -1, 99]])), kv, 0)  # beyond the last: never read
    with pytest.raises(IndexError, match="target block 4"):
        ops.copy_blocks(kv, [0], [4])
    with pytest.raises(ValueError, match="equally many"):
        ops.copy_blocks(kv, [0, 1], [2])
    with pytest.raises(ValueError, match="other heads"):
        ops.attention_block(x, w, rows([0]), ops.bind(PagedKV.empty(2, 4, 1, 8, 16, "float32")), 0)


def test_steps_that_do_not_add_up():
    ops = Cpu(1)
    for bad, match in (
        (rows([0, 1], starts=[0, 1]), "number of rows"),
        (rows([0, 1], starts=[0, 5]), "number of rows"),
        (rows([0, 1], starts=[0, 2, 1, 2], tables=[[0]] * 3), "starts"),
        (rows([0, 1], starts=[1, 2]), "starts"),
        (rows([-1]), "negative"),
        (rows([1, 0]), "ascend"),
        (rows([0], tables=[[0], [1]]), "one row for each"),
        (rows([0], cos=np.ones((2, 3), np.float32)), "cos and sin"),
    ):
        with pytest.raises(ValueError, match=match):
            ops.bind_rows(bad)
    kv, w = ops.bind(PagedKV.empty(1, 4, 1, 4, 16, "float32")), ops.bind(attention(rotary_dim=4))
    with pytest.raises(ValueError, match="rotary_dim / 2"):
        ops.attention_block(np.ones((1, 6), np.float32), w, rows([0]), kv, 0)
    with pytest.raises(ValueError, match="as many rows"):
        ops.attention_block(np.ones((2, 6), np.float32), ops.bind(attention()), rows([0]), kv, 0)
    with pytest.raises(ValueError, match="no cosines"):
        ops.rotate(np.ones((1, 1, 4), np.float32), rows([0]), 4)


def test_the_head_refuses_what_has_no_meaning():
    ops, logits = Cpu(1), np.zeros(5, np.float32)
    for arguments in ((0.0, 5, 1, 0, 0.5), (np.nan, 5, 1, 0, 0.5), (1, 0, 1, 0, 0.5), (1, 5, 0, 0, 0.5),
                      (1, 5, 1, 2, 0.5), (1, 5, 1, 0, 1.0), (1, 5, 1, 0, -0.1), (1, 5, 1, 0, np.nan)):  # fmt: skip
        with pytest.raises(ValueError, match=r"temperature must|is out of range|noise must"):
            ops.choose(logits, *arguments)
    for token in (5, -1):
        with pytest.raises(IndexError):
            ops.rank(logits, token)
    with pytest.raises(ValueError, match="at least one column"):
        ops.argmax(np.empty((2, 0), np.float32))
    for strange in (np.nan, np.inf, -np.inf):  # not a distribution, but still an answer in range
        assert 0 <= ops.choose(np.full(5, strange, np.float32), 1.0, 3, 0.5, 0.0, 0.5) < 5


def test_rows_beyond_a_packed_matrix():
    ops, packed = Cpu(1), Packed.empty(20, 3, "bfloat16")
    for row, count in ((19, 2), (-1, 1), (21, 0), (2**62, 1)):
        with pytest.raises(IndexError, match="20 outputs"):
            ops.pack_rows(packed, row, np.ones((count, 3), np.float32))
    for source in (np.ones((1, 4), np.float32), np.ones(3, np.float32), np.ones((1, 3)), np.ones((1, 3), np.int32)):
        with pytest.raises(ValueError, match="source must be"):
            ops.pack_rows(packed, 0, source)


# -- lives -------------------------------------------------------------------------------------------------------------


def test_handles_hold_their_arrays():
    ops = Cpu(1)
    handle = ops.bind(attention(hidden=4, heads=8, kv_heads=8, dim=8)).native
    cache = ops.bind(PagedKV.empty(1, 4, 8, 8, 16, "float32")).native
    step = ops.bind_rows(rows([0])).native
    gc.collect()
    junk = [np.full(10_000, np.nan, np.float32) for _ in range(100)]
    out = np.empty((1, 4), np.float32)
    ops._device.attention_block(np.ones((1, 4), np.float32), handle, step, cache, 0, out)
    assert out.tolist() == [[256.0] * 4] and junk


def test_tables_are_copied():
    ops = Cpu(1)
    w, kv = ops.bind(attention()), ops.bind(PagedKV.empty(1, 4, 1, 4, 16, "float32"))
    step = ops.bind_rows(rows([0]))
    step.tables[...] = 1 << 30
    step.positions[...] = 1 << 30
    ops.attention_block(np.ones((1, 6), np.float32), w, step, kv, 0)
    assert kv.keys[0, 0].any() and not kv.keys[0, 1:].any()


def test_unbound_records_work_too():
    ops = Cpu(1)
    assert ops.linear(np.ones((1, 3), np.float32), linear(2, 3)).tolist() == [[3, 3]]


def test_many_python_threads_and_two_devices():
    devices = [Cpu(2), Cpu(3)]
    w = [ops.bind(linear(400, 300, dtype="bfloat16")) for ops in devices]
    x = np.ones((3, 300), np.float32)
    wrong = []

    def work(number):
        for _ in range(100):
            out = devices[number % 2].linear(x, w[number % 2])
            if not (out == 300).all():
                wrong.append(number)

    crew = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of processors here")
def test_more_threads_than_processors():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu.usable_cores() == 1
        ops = Cpu(3)
        w = ops.bind(linear(4000, 300))
        for _ in range(20):
            assert (ops.linear(np.ones((2, 300), np.float32), w) == 300).all()
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork while there are threads: what is tested
def test_a_forked_child_gets_threads_of_its_own():
    ops = Cpu(2)
    w, x = ops.bind(linear(4000, 300)), np.ones((2, 300), np.float32)
    assert (ops.linear(x, w) == 300).all()
    child = os.fork()
    if child == 0:
        os._exit(0 if (ops.linear(x, w) == 300).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (ops.linear(x, w) == 300).all()
