"""Models in GGUF on this machine, by llama.cpp: https://github.com/ggml-org/llama.cpp.

Its server runs in a process beside this one, from the package xllamacpp (https://github.com/xorbitsai/xllamacpp): it
works on several requests at a time, and what goes wrong in it ends no run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr

from llms.errors import BadRequestError
from llms.extras import MissingPackageError, how_to_install
from llms.fingerprints import fingerprint
from llms.local_model.server import ENGINE_PACKAGE, GGUFServer, LocalModelError
from llms.parameters import Unasked
from llms.providers.llama_server import ClientLlamaCpp
from llms.typing import FormattedInput, GenerateOutput, PriceSource


class _File(GGUFServer):
    """The server of a file."""

    def __init__(self, path: Path, *, slots: int, context: int, options: tuple[str, ...]) -> None:
        super().__init__(path.stem, port=0, slots=slots, context=context, options=options)
        self._path = path

    def file(self) -> Path:
        return self._path


_servers: dict[Hashable, _File] = {}
"""One for all models of a process that are the same. One that starts isn't among them."""
_starting = threading.Lock()


class LlamaCppLLM(ClientLlamaCpp):
    """A model in a GGUF file, on the processor or on a GPU.

    The engine is loaded once in a process, however many steps ask it, and ends with it. As many requests are worked on
    at a time as `max_concurrent_requests` says; each has `n_ctx` tokens for its prompt and its answer.

    Example:
        >>> llm = LlamaCppLLM(model_path="models/SmolLM2-1.7B-Instruct-Q4_K_M.gguf", n_ctx=4096)
        >>> llm.model_name
        'SmolLM2-1.7B-Instruct-Q4_K_M'
    """

    key_variables: ClassVar[tuple[str, ...]] = ()
    url_variable: ClassVar[str] = ""

    form_title = "llama.cpp"

    provider: Annotated[Literal["llama-cpp"], Field(title="Provider")] = "llama-cpp"  # pyright: ignore[reportIncompatibleVariableOverride]
    model_path: Annotated[str, Field(min_length=1, title="Model", description="Path of a GGUF file.")]
    n_ctx: Annotated[
        int, Field(ge=64, title="Context", description="Tokens of a prompt and its answer together."), Unasked()
    ] = 4096
    n_gpu_layers: Annotated[
        int,
        Field(ge=-1, title="Layers on a GPU", description="-1: all that fit. 0: none. Without a GPU it says nothing."),
        Unasked(),
    ] = -1
    chat_template: Annotated[
        str | None, Field(title="Chat template", description="In Jinja. Empty: the one in the file.")
    ] = None
    max_concurrent_requests: Annotated[
        int, Field(ge=1, title="Requests at a time", description="That the engine works on together."), Unasked()
    ] = 4
    model: Annotated[str, Field(exclude=True)] = ""
    base_url: Annotated[str | None, Field(exclude=True)] = None
    credentials: Annotated[str | None, Field(exclude=True)] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 3600.0

    @property
    def model_name(self) -> str:
        return Path(self.model_path).stem

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self._same())

    def price_source(self) -> PriceSource | None:
        return None

    def identity(self) -> dict[str, Any]:
        return {**super(ClientLlamaCpp, self).identity(), "base_url": ""}

    def fingerprints(self) -> dict[str, str]:
        path = Path(self.model_path).expanduser()
        return {"model_path": fingerprint(path)} if path.is_file() else {}

    def addressee(self) -> dict[str, Any]:
        """The file by what it has, wherever it lies. Raises BadRequestError where it isn't there."""
        path = self._path()
        template = {"chat_template": self.chat_template} if self.chat_template else {}
        return self.service_at(gguf=fingerprint(path), bytes=path.stat().st_size, **template)

    def load(self) -> None:
        """Start the engine with the model, unless it runs.

        Raises:
            MissingPackageError: the package of the engine isn't installed.
            BadRequestError: the file isn't there, or no model that the engine takes.
        """
        self.url()

    def unload(self) -> None:
        """End the engine, also for others of this process that use the same model."""
        with _starting:
            server = _servers.pop(self._same(), None)
        if server is not None:
            server.stop()

    def url(self) -> str:
        """The address of the engine, which is started for it. Raises as `load` does."""
        # A model that runs doesn't wait for another one that starts.
        running = self._running()
        if running:
            return running
        same = self._same()
        with _starting:
            server = _servers.get(same)
            if server is not None and server.is_up:
                return server.base_url
            _servers.pop(same, None)
            path = self._path()
            if importlib.util.find_spec(ENGINE_PACKAGE) is None:
                raise MissingPackageError(
                    f"{type(self).__name__} needs {ENGINE_PACKAGE}: {how_to_install('llama-cpp')}"
                )
            options = ("--gpu-layers", str(self.n_gpu_layers), "--chat-template", self.chat_template or "")
            server = server or _File(path, slots=self.max_concurrent_requests, context=self.n_ctx, options=options)
            server.stop()
            try:
                _servers[same] = server.start()
            except LocalModelError as error:
                raise BadRequestError(f"model_path={self.model_path!r}: {error}") from None
            return server.base_url

    async def generated(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        # It may have ended, for want of memory perhaps.
        if not self._running():
            await asyncio.to_thread(self.url)
        return await super().generated(given, times, keywords)

    def key(self) -> SecretStr:
        """Its own engine needs none."""
        return SecretStr("none")

    def _path(self) -> Path:
        path = Path(self.model_path).expanduser()
        if not path.is_file():
            raise BadRequestError(f"model_path={self.model_path!r} isn't there: give the path of a GGUF file")
        return path

    def _running(self) -> str:
        """The address of the engine; empty where it doesn't run, or isn't through with its start."""
        server = _servers.get(self._same())
        return server.base_url if server is not None and server.is_up else ""

    def _same(self) -> Hashable:
        path = Path(self.model_path).expanduser().absolute()
        return (path, self.max_concurrent_requests, self.n_ctx, self.n_gpu_layers, self.chat_template)
