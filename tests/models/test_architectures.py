"""Which file reads which architecture, and what their specs make of a config."""

import pytest

from openwork.core.errors import ModelError, UnsupportedModel
from openwork.models.config import Config
from openwork.models.table import ARCHITECTURES, find
from openwork.testing.checkpoint import _CONFIGS


def config(architecture, **changes):
    fields = {"architectures": [architecture]} | _CONFIGS[architecture] | changes
    return Config({name: value for name, value in fields.items() if value != "absent"})


def spec(architecture, context=None, **changes):
    made = config(architecture, **changes)
    return find(made).spec(made, context)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_file(architecture):
    assert spec(architecture).architecture == architecture
    model_type = _CONFIGS[architecture]["model_type"]
    assert find(Config({"model_type": model_type})) is find(Config({"architectures": ["Unknown", architecture]}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "the architecture None is not supported"),
        ({"architectures": ["BertModel"], "model_type": "llama"}, "the architecture BertModel is not supported"),
        ({"architectures": ["X"], "auto_map": {"AutoModel": "evil.Model"}}, "never executed"),
        ({"model_type": ["llama"]}, "not supported"),
        ({"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ],
)
def test_what_is_not_supported(fields, message):
    with pytest.raises(UnsupportedModel, match=message):
        find(Config(fields))


@pytest.mark.parametrize("names", ["LlamaForCausalLM", [], [1], {}])
def test_architectures_must_be_names(names):
    with pytest.raises(ModelError, match="must be a list of names"):
        find(Config({"architectures": names}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("usual", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", -5),
        ("vocab_size", 2**40),
        ("vocab_size", "many"),
        ("vocab_size", None),
        ("hidden_size", 0),
        ("hidden_size", 62.5),
        ("hidden_size", "absent"),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 0),
        ("num_attention_heads", True),
        ("max_position_embeddings", 0),
        ("tie_word_embeddings", "yes"),
        ("head_dim", 7),
        ("head_dim", 2048),
    ],
)
def test_bad_numbers_are_named(architecture, usual, value):
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
    names["max_position_embeddings"] = "n_positions"
    name = names.get(usual, usual) if architecture == "GPT2LMHeadModel" else usual
    with pytest.raises(ModelError) as error:
        spec(architecture, **{name: value})
    assert error.value.field == name
    assert error.value.where == "config.json"


@pytest.mark.parametrize(
    ("architecture", "changes", "field"),
    [
        ("LlamaForCausalLM", {"num_key_value_heads": 3}, "num_key_value_heads"),
        ("LlamaForCausalLM", {"num_key_value_heads": 8}, "num_key_value_heads"),
        ("LlamaForCausalLM", {"num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads"),
        ("LlamaForCausalLM", {"hidden_act": "mish"}, "hidden_act"),
        ("LlamaForCausalLM", {"rms_norm_eps": 0}, "rms_norm_eps"),
        ("LlamaForCausalLM", {"intermediate_size": 0}, "intermediate_size"),
        ("MistralForCausalLM", {"sliding_window": 0}, "sliding_window"),
        ("MistralForCausalLM", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("Qwen2ForCausalLM", {"layer_types": ["full_attention"]}, "layer_types"),
        ("Qwen2ForCausalLM", {"layer_types": ["full_attention", "linear", "linear"]}, "layer_types[1]"),
        ("Qwen3ForCausalLM", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("Gemma2ForCausalLM", {"final_logit_softcapping": -30.0}, "final_logit_softcapping"),
        ("Gemma2ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("GPT2LMHeadModel", {"n_inner": 0}, "n_inner"),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "add_cross_attention"),
        ("GPTNeoXForCausalLM", {"rotary_pct": 0}, "rotary_pct"),
    ],
)
def test_numbers_that_do_not_fit_together(architecture, changes, field):
    with pytest.raises(ModelError) as error:
        spec(architecture, **changes)
    assert error.value.field == field


def test_windows():
    assert spec("MistralForCausalLM", sliding_window="absent").windows == (4096,) * 3
    assert spec("MistralForCausalLM", sliding_window=None).windows == (None,) * 3
    assert spec("Qwen2ForCausalLM").windows == (None, 24, 24)
    assert spec("Qwen2ForCausalLM", use_sliding_window=False).windows == (None,) * 3
    assert spec("Qwen2ForCausalLM", sliding_window=None).windows == (None,) * 3
    assert spec("Gemma2ForCausalLM").windows == (24, None, 24)
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    assert spec("Gemma2ForCausalLM", layer_types=kinds).windows == (None, 24, 24)
    assert spec("Phi3ForCausalLM", sliding_window="absent").windows == (None,) * 3
    assert spec("Phi3ForCausalLM", sliding_window=9).windows == (9,) * 3


def test_what_silence_means():
    assert spec("LlamaForCausalLM", tie_word_embeddings="absent").tied_head is False
    assert spec("Gemma2ForCausalLM", tie_word_embeddings="absent").tied_head is True
    assert spec("GPT2LMHeadModel", tie_word_embeddings="absent").tied_head is True
    assert spec("LlamaForCausalLM", num_key_value_heads="absent").num_kv_heads == 4
    assert spec("Qwen3ForCausalLM", head_dim="absent").head_dim == 128
    assert spec("LlamaForCausalLM", rms_norm_eps="absent").norm_eps == 1e-6
    assert spec("GPT2LMHeadModel").intermediate_size == 256
    assert spec("Gemma2ForCausalLM", attn_logit_softcapping="absent").attention_softcap == 50
    assert spec("Gemma2ForCausalLM", attn_logit_softcapping=None).attention_softcap is None


def test_windows_of_the_engine():
    assert spec("LlamaForCausalLM", context=512).max_positions == 512
    for context in (0, 513):
        with pytest.raises(ModelError, match="the model defines 1 to 512 positions"):
            spec("LlamaForCausalLM", context=context)
