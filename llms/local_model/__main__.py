"""The server's process: `python -m llms.local_model FILE`. It says its address, and ends when its input is closed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from llms.local_model.server import CONTEXT, MODEL, SLOTS

MOST_THREADS = 8
"""More wait for each other longer than they work: the model is small."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m llms.local_model", description="A model in GGUF, on loopback.")
    made.add_argument("file", type=Path, help="the weights, in GGUF")
    made.add_argument("--port", type=int, default=0, help="0 takes a free one (default: %(default)s)")
    made.add_argument("--slots", type=int, default=SLOTS, help="requests at a time (default: %(default)s)")
    made.add_argument("--context", type=int, default=CONTEXT, help="tokens of each (default: %(default)s)")
    made.add_argument("--name", default=MODEL, help="of the model (default: %(default)s)")
    made.add_argument("--gpu-layers", type=int, default=-1, help="kept by a GPU, where there's one; -1: all that fit")
    made.add_argument("--chat-template", default="", help="in Jinja, in place of the one in the file")
    made.add_argument("--reproducible", action="store_true", help="on the processor, without anything of before")
    return made


def serve(given: argparse.Namespace) -> None:
    # Threads that wait for each other spin otherwise: beside other programs that is most of what they do.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    engine: Any = importlib.import_module("xllamacpp")
    parameters = engine.CommonParams()
    parameters.model.path = str(given.file)
    parameters.model_alias = {given.name}
    parameters.port = given.port
    parameters.n_parallel, parameters.n_ctx = given.slots, given.slots * given.context
    parameters.n_gpu_layers, parameters.fit_params = given.gpu_layers, False
    threads = processors()
    if given.chat_template:
        parameters.chat_template, parameters.use_jinja = given.chat_template, True
    if given.reproducible:
        # An answer must not depend on the machine's state.
        threads = min(MOST_THREADS, threads)
        parameters.n_gpu_layers = 0
        parameters.cache_prompt, parameters.cache_ram_mib = False, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.ui, parameters.endpoint_slots = False, False
    parameters.verbosity = 0
    server = engine.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # Not by way of the engine's own end: whoever wanted it is gone.
    os._exit(0)


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    serve(parser().parse_args())
