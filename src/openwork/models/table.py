"""Which model file reads which architecture.

A file is named as checkpoints name their `model_type`, and imported when it is needed. Code that a checkpoint brings
along (`auto_map`) is never executed: a known architecture is read by our own file, an unknown one is refused.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from openwork.core.errors import UnsupportedModel
from openwork.models.config import Config
from openwork.models.parts import Model

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Phi3ForCausalLM": "phi3",
    "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "gpt_neox",
}


def find(config: Config) -> Model:
    """The model file for a config, by its `architectures`, or by its `model_type` when it names none.

    Raises UnsupportedModel, listing what is supported.
    """
    if config.has("quantization_config"):
        raise UnsupportedModel(
            "the checkpoint is quantised, which is not supported",
            "Use its float32, float16 or bfloat16 original.",
            where=config.where,
            field="quantization_config",
        )
    names = config.data.get("architectures")
    if names is not None and not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise config.error("architectures", "must be a list of names")
    for name in names or ():
        if name in ARCHITECTURES:
            return _load(ARCHITECTURES[name])
    if not names and config.data.get("model_type") in ARCHITECTURES.values():
        return _load(config.text("model_type"))
    asked = names[0][:60] if names else str(config.data.get("model_type"))[:60]
    code = " It brings code of its own (auto_map), which is never executed." if config.has("auto_map") else ""
    raise UnsupportedModel(
        f"the architecture {asked} is not supported.{code}",
        f"Supported are {', '.join(ARCHITECTURES)}.",
        where=config.where,
        field="architectures" if names else "model_type",
    )


def _load(name: str) -> Model:
    return cast(Model, import_module(f"openwork.models.{name}"))
