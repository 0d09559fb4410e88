"""The forms of one checkpoint that the engines want, each made once, and only when a peer asks for it.

hf                           the checkpoint itself, bfloat16         OURS and transformers, vLLM
bf16.gguf  q8_0.gguf  q4_0.gguf                                      llama.cpp
openvino-int8  openvino-int4                                         OpenVINO GenAI
w8a8                                                                 vLLM
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from engines import checkpoint, ggml_file, w8a8

HERE = Path(__file__).parent


def make(form: str, shape: str, directory: Path, interpreters: Mapping[str, str]) -> Path:
    """The path of a form of ``shape`` in ``directory``, made if it is not there.

    Raises subprocess.CalledProcessError when an engine's own converter fails.
    """
    home = directory / shape
    source = checkpoint.write(home / "hf", shape)
    target = home / form
    if form.endswith(".gguf"):
        ggml_file.write(source, home / "bf16.gguf")
        if not target.exists():
            unfinished = target.with_suffix(".unfinished")
            program = [interpreters["llama.cpp"], HERE / "quantize_llamacpp.py"]
            _call([*program, home / "bf16.gguf", unfinished, target.stem])
            unfinished.rename(target)
    elif form == "w8a8":
        w8a8.write(source, target)
    elif form.startswith("openvino-") and not (target / "complete").exists():
        program = [interpreters["openvino"], "-m", "optimum.commands.optimum_cli", "export", "openvino"]
        task = ["--task", "text-generation-with-past", "--weight-format", form.removeprefix("openvino-")]
        _call([*program, "--model", source, *task, target])
        (target / "complete").touch()
    return target


def _call(command: list[str | Path]) -> None:
    print("making:", *command, file=sys.stderr)
    subprocess.run(command, check=True, stdout=sys.stderr)
