"""docs/add-a-model.md does what it says: its file, pasted, reads the architecture and agrees with transformers."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from agreement import Case, compare, torch, transformers

from openwork.models import table
from openwork.ops.reference import Reference

PAGE = Path(__file__).parents[2] / "docs" / "add-a-model.md"


@pytest.fixture
def starcoder2(monkeypatch):
    """The page's file as a module, and the page's line in the table."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    name, file = re.search(r'```text\n    "(\w+)": "(\w+)",\n```', PAGE.read_text()).groups()
    module = ModuleType(f"openwork.models.{file}")
    exec(compile(code, f"{file}.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(table.ARCHITECTURES, name, file)
    assert 40 <= len(code.splitlines()) <= 90


@pytest.mark.parametrize(("bias", "tied", "window"), [(True, True, 9), (False, False, None)])
def test_the_example(starcoder2, tmp_path, bias, tied, window):
    config = transformers.Starcoder2Config(
        vocab_size=259,
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=window,
        use_bias=bias,
        tie_word_embeddings=tied,
        initializer_range=0.25,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    oracle = transformers.Starcoder2ForCausalLM(config).eval()
    for name, parameter in oracle.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    oracle.save_pretrained(tmp_path)
    compare(tmp_path, Reference(), Case("Starcoder2ForCausalLM"), oracle)
