"""llama.cpp's own quantiser: quantize_llamacpp.py SOURCE.gguf TARGET.gguf q8_0|q4_0, in its interpreter."""

import sys

import llama_cpp

source, target, kind = sys.argv[1:]
wishes = llama_cpp.llama_model_quantize_default_params()
wishes.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), wishes))
