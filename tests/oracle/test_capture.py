"""What an examination shows against `transformers` with eager attention: weights, residual stream, keys, values, lens.

In float32, on tiny checkpoints of every architecture; the largest difference is at most 1e-4.
"""

import numpy as np
import pytest
from agreement import Case, prompt, read, torch

from openwork.build import examiner
from openwork.core.settings import LoadSettings
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint

CLOSE = 1e-4
CASES = [
    *(Case(architecture) for architecture in ARCHITECTURES),
    Case("LlamaForCausalLM", {"num_attention_heads": 8, "num_key_value_heads": 1, "attention_bias": True}),
    Case("MistralForCausalLM", {"sliding_window": 7}),
    Case("Gemma2ForCausalLM", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 9}),
    Case("Phi3ForCausalLM", {"partial_rotary_factor": 0.75, "sliding_window": 16}),
    Case("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
    Case("GPTNeoXForCausalLM", {"use_parallel_residual": False, "rotary_pct": 1.0}),
]


def far(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max()


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_is_what_transformers_computes(case, backend, tmp_path):
    write_checkpoint(tmp_path, case.architecture, seed=len(str(case)), **case.overrides)
    load = LoadSettings(dtype="float32", kv_dtype="float32", backend=backend, context=case.context)
    examines, oracle = examiner(str(tmp_path), load), read(tmp_path)
    ids = prompt(examines.limits.vocab_size, case.prompt)
    with torch.no_grad():
        theirs = oracle(torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=True)
    norm = getattr(oracle, oracle.base_model_prefix)
    final = next(getattr(norm, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(norm, name))
    examination = examines.examine(ids)
    num_layers, kv_heads = examination.spec.num_layers, examination.spec.num_kv_heads
    for position in (0, 1, len(ids) // 2, len(ids) - 1):
        row = examination.row(position, lens=1)
        for layer in range(num_layers):
            weights = theirs.attentions[layer][0, :, position, : position + 1].numpy()
            assert far(row.attention[layer], weights) <= CLOSE
            assert far(row.residual[layer], theirs.hidden_states[layer][0, position].numpy()) <= CLOSE
        with torch.no_grad():
            last = final(torch.tensor(row.residual[num_layers])).numpy()
        assert far(last, theirs.hidden_states[num_layers][0, position].numpy()) <= CLOSE
        logits = theirs.logits[0, position].numpy()
        assert far(row.logits.row, logits) <= CLOSE
        assert row.lens.ids[-1, 0] == logits.argmax()
    window = min((each for each in examination.spec.windows if each is not None), default=len(ids))
    for layer in range(num_layers):
        cache = theirs.past_key_values.layers[layer]
        for head in range(kv_heads):
            own = head * examination.spec.num_heads // kv_heads
            kept = cache.keys.shape[2]  # a window keeps no more
            assert kept >= min(window - 1, len(ids))
            assert far(examination.keys(layer, own)[-kept:], cache.keys[0, head].numpy()) <= CLOSE
            assert far(examination.values(layer, own)[-kept:], cache.values[0, head].numpy()) <= CLOSE
