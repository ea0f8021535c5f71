"""The contract of an LLM: subclass `LLM` (a local engine) or `AsyncLLM` (a service).

Write `model_name` and `generate` or `agenerate`. Every keyword of it besides the input,
`num_generations` and `structured_output` is a runtime parameter, coerced and checked from its
annotation; `generation_kwargs` holds their values.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Self, cast

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from llms.errors import LLMError, failure_of
from llms.limits import OUTAGE_TIMEOUT, Limiter, known_limiter, limiter_for, send
from llms.loop import run_sync
from llms.parameters import Aside, Configurable, explain, for_form, import_path, signature_model, unknown_name_message
from llms.structured_output import json_schema_of
from llms.typing import (
    ChatType,
    FormattedInput,
    GenerateOutput,
    HiddenState,
    JSONSchema,
    PriceSource,
    TokenCounts,
)

CHARACTERS_PER_TOKEN = 4

NOT_PARAMETERS = frozenset({"self", "input", "inputs", "num_generations", "structured_output"})


class LLM(Configurable, ABC):
    """A language model that answers synchronously, several inputs at a time."""

    form_first = ("model",)
    form_last = ("provider",)

    provider: Annotated[str, Field(title="Provider", description="The adapter: a name of ours, or `module:Class`.")] = (
        ""
    )
    generation_kwargs: Annotated[
        dict[str, Any],
        Field(title="Generation parameters", description="Sent with every request. Empty: the provider's default."),
    ] = {}
    structured_output: Annotated[
        JSONSchema | None,
        Field(title="Structured output", description="A JSON schema (or pydantic class) that every answer must fit."),
    ] = None
    input_batch_size: Annotated[
        int, Field(ge=1, title="Inputs per call", description="For engines that take several inputs at once."), Aside()
    ] = 50

    _pending: list[_Pending] = PrivateAttr(default_factory=list["_Pending"])
    _worker: _Worker = PrivateAttr(default_factory=lambda: _Worker())

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The model, as it is written into the rows."""

    def load(self) -> None:
        """Get ready: find the key, load the weights. A Task calls it before its first request."""

    def unload(self) -> None:
        """Give back what `load` took."""

    def price_source(self) -> PriceSource | None:
        """Where the price of its requests is found. None, as here: it has none that is known."""
        return None

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        """Answer `inputs`, in their order, with `num_generations` texts each."""
        raise NotImplementedError(f"{type(self).__name__} has to define `generate`")

    def get_last_hidden_state(self, inputs: list[ChatType]) -> list[HiddenState]:
        """The last hidden state of each input: tokens by dimensions."""
        raise NotImplementedError(
            f"{type(self).__name__} gives no hidden states;"
            " `get_last_hidden_state` needs an engine that runs the model itself"
        )

    def generate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Answer `inputs` now, in their order, retrying what may pass.

        Args:
            inputs: chats, bare prompts, or `(chat, schema)` pairs.
            num_generations: texts per input.
            kwargs: runtime parameters, over `generation_kwargs`.

        Returns:
            One output per input. An input that failed for good has `None` generations and its `error`.

        Raises:
            LLMError: nothing can succeed: a wrong key, an unknown model, no way to the provider.
            llms.ParameterError: an unknown runtime parameter, or a value of a wrong type.
        """
        return run_sync(self.with_generation_kwargs(kwargs).answer_all(inputs, num_generations))

    def with_generation_kwargs(self, kwargs: Mapping[str, Any]) -> Self:
        """This model with `kwargs` over its `generation_kwargs`. What `load` made, and connections, are shared.

        Raises:
            llms.ParameterError: an unknown name, or a value of a wrong type.
        """
        if not kwargs:
            return self
        checked = self.merged({"generation_kwargs": kwargs})
        changed = self.model_copy(update={"generation_kwargs": checked.generation_kwargs})
        changed._pending = []
        return changed

    async def answer_all(self, inputs: Sequence[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        """`generate_outputs`, awaited on the request loop."""
        answers = [asyncio.ensure_future(self._answer_or_error(each, num_generations)) for each in inputs]
        try:
            return list(await asyncio.gather(*answers))
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise

    async def _answer_or_error(self, given: FormattedInput, num_generations: int) -> GenerateOutput:
        try:
            return await self.answer(given, num_generations)
        except LLMError as error:
            if error.fatal:
                raise
            return GenerateOutput(
                generations=[None] * num_generations,
                statistics=TokenCounts(input_tokens=[0] * num_generations, output_tokens=[0] * num_generations),
                error=failure_of(error),
            )

    async def answer(self, given: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Answer one input. Inputs that arrive together go to `generate` together, in a thread.

        Raises:
            LLMError: the request failed for good.
        """
        pending = _Pending(given, num_generations, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._flush)
        return await pending.output

    def _flush(self) -> None:
        """Hand what waits to the worker, one batch per call: the engine sees one call at a time."""
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), self.input_batch_size):
            batch = pending[start : start + self.input_batch_size]
            self._worker.thread().submit(self._generate_batch, batch)

    def _generate_batch(self, batch: list[_Pending]) -> None:
        for n, schema, group in _alike(batch, self.structured_output):
            try:
                outputs = self.generate([each.prompt for each in group], num_generations=n, **self.keywords(schema))
                if len(outputs) != len(group):
                    raise LLMError(
                        f"{type(self).__name__}.generate got {len(group)} inputs and gave {len(outputs)} outputs"
                    )
            except Exception as error:  # noqa: BLE001 -- user's code: whatever it raises belongs to the rows that wait for it
                for each in group:
                    each.resolve(error)
            else:
                for each, output in zip(group, outputs, strict=True):
                    each.resolve(output)

    def keywords(self, schema: JSONSchema | None) -> dict[str, Any]:
        """The keyword arguments for `generate` or `agenerate`."""
        wanted = {**self.generation_kwargs}
        if schema is not None:
            if not self.takes_structured_output():
                raise LLMError(
                    f"{type(self).__name__} takes no structured output: its generate has no `structured_output`"
                )
            wanted["structured_output"] = schema
        return wanted

    @classmethod
    def takes_structured_output(cls) -> bool:
        """Whether answers can be asked to fit a schema."""
        return "structured_output" in inspect.signature(cls.generating_function()).parameters

    @classmethod
    def generating_function(cls) -> Callable[..., Any]:
        return cls.generate

    @field_validator("generation_kwargs", mode="before")
    @classmethod
    def _check_generation_kwargs(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = {
            name: each for name, each in cast("Mapping[str, Any]", value).items() if each is not None and each != {}
        }
        arguments = signature_model(cls.generating_function(), NOT_PARAMETERS)
        known = frozenset(arguments.model_fields)
        for name in given:
            if name not in known and arguments.model_config.get("extra") != "allow":
                raise ValueError(unknown_name_message(name, known, cls.__name__))
        left_out = known - set(given)
        try:
            checked = arguments.model_validate(given)
        except ValidationError as error:
            mistakes = [each for each in error.errors() if each["type"] != "missing"]
            if not mistakes:
                return given
            raise ValueError(explain(error)) from None
        # What says no more than the default says nothing: a form sends it along, and it must not ask anew.
        left_out |= {name for name, field in arguments.model_fields.items() if getattr(checked, name) == field.default}
        return {name: each for name, each in dict(checked).items() if name not in left_out and each is not None}

    @field_validator("structured_output", mode="before")
    @classmethod
    def _check_structured_output(cls, value: Any) -> Any:
        return json_schema_of(value) if value else None

    @model_validator(mode="after")
    def _name_provider(self) -> Self:
        if not self.provider:
            # Not through the attribute: assignments are validated, and this is the validator.
            vars(self)["provider"] = import_path(type(self))
        return self

    def merge_field(self, name: str, value: Any) -> Any:
        if name == "generation_kwargs" and isinstance(value, Mapping):
            given = {key: each for key, each in cast("Mapping[str, Any]", value).items() if each is not None}
            return {**self.generation_kwargs, **given}
        return super().merge_field(name, value)

    @classmethod
    def edit_form(cls, properties: dict[str, dict[str, Any]]) -> None:
        arguments = signature_model(cls.generating_function(), NOT_PARAMETERS)
        properties["generation_kwargs"] = {
            **arguments.model_json_schema(ref_template="#/definitions/{model}"),
            "title": properties["generation_kwargs"].get("title"),
            "description": properties["generation_kwargs"].get("description"),
        }
        inner = cast("dict[str, dict[str, Any]]", properties["generation_kwargs"].get("properties", {}))
        given = cast("dict[str, Any]", cls.model_fields["generation_kwargs"].default or {})
        for position, name in enumerate(inner):
            default = {"default": given[name]} if name in given else {}
            title = {"title": name.replace("_", " ").capitalize()}
            inner[name] = {**for_form(inner[name]), **default, **title, "position": position}
        properties["generation_kwargs"].pop("required", None)

    def get_runtime_parameters_info(self) -> list[dict[str, Any]]:
        info = [entry for entry in super().get_runtime_parameters_info() if entry["name"] != "generation_kwargs"]
        arguments = signature_model(self.generating_function(), NOT_PARAMETERS)
        keys = [
            {"name": name, "optional": not field.is_required(), "description": field.description}
            for name, field in arguments.model_fields.items()
        ]
        description = type(self).model_fields["generation_kwargs"].description
        return [*info, {"name": "generation_kwargs", "description": description, "keys": keys}]

    @property
    def runtime_parameters_names(self) -> dict[str, Any]:
        arguments = signature_model(self.generating_function(), NOT_PARAMETERS)
        keys = {name: not field.is_required() for name, field in arguments.model_fields.items()}
        return {**super().runtime_parameters_names, "generation_kwargs": keys}


class AsyncLLM(LLM):
    """A language model behind a service: one input per request, many requests at a time."""

    # One input per request.
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Aside()] = 50
    max_concurrent_requests: Annotated[
        int, Field(ge=1, title="Requests at a time", description="The most under way at once in a process."), Aside()
    ] = 100
    max_retries: Annotated[
        int, Field(ge=0, title="Retries", description="Per request, for failures that may pass."), Aside()
    ] = 6
    requests_per_minute: Annotated[
        float | None,
        Field(gt=0, title="Requests per minute", description="In a process. Empty: as the provider says."),
        Aside(),
    ] = None
    tokens_per_minute: Annotated[
        float | None,
        Field(gt=0, title="Tokens per minute", description="In a process. Empty: as the provider says."),
        Aside(),
    ] = None
    shared_limit: Annotated[
        str,
        Field(
            title="Shared limit",
            description="Name of a limit on requests at a time that processes share, where there is one."
            " Empty: llm-PROVIDER-MODEL.",
        ),
        Aside(),
    ] = ""
    outage_timeout: Annotated[
        float,
        Field(ge=0, title="Outage timeout", description="Seconds that a provider which went away is waited for."),
        Aside(),
    ] = OUTAGE_TIMEOUT

    async def agenerate(self, input: FormattedInput, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        """Answer `input` with `num_generations` texts."""
        raise NotImplementedError(f"{type(self).__name__} has to define `agenerate`")

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        return self.generate_outputs(inputs, num_generations, **kwargs)

    async def answer(self, given: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        limiter = self.limiter()
        tokens = estimated_tokens(prompt, num_generations, keywords) if "tokens" in limiter.budgets else 0.0
        return await send(
            lambda: self.agenerate(input=prompt, num_generations=num_generations, **keywords),
            limiter,
            self.max_retries,
            tokens,
        )

    def limiter(self) -> Limiter:
        """What holds its requests back on the running loop."""
        return limiter_for(self._limits(), self.max_concurrent_requests, self._new_limiter)

    def trouble(self) -> str:
        """Why its requests wait, where the provider is taken to be away; empty elsewhere. From any thread."""
        try:
            limiter = known_limiter(self._limits(), self.max_concurrent_requests)
        except LLMError:
            # Without its key it has sent nothing.
            return ""
        return limiter.trouble if limiter is not None else ""

    def _limits(self) -> Hashable:
        """What tells its limiter from others."""
        own = (self.requests_per_minute, self.tokens_per_minute, self.outage_timeout, self.shared_limit)
        return (self.limit_key, own)

    def _new_limiter(self) -> Limiter:
        limiter = Limiter(
            self.max_concurrent_requests, name=f"{self.provider} {self.model_name}", outage_timeout=self.outage_timeout
        )
        limiter.set_rates(self.requests_per_minute, self.tokens_per_minute)
        return limiter

    @property
    def limit_key(self) -> Hashable:
        """Requests with equal keys share one limit."""
        return (self.provider, self.model_name)

    @classmethod
    def generating_function(cls) -> Callable[..., Any]:
        return cls.agenerate


def estimated_tokens(prompt: FormattedInput, num_generations: int, keywords: Mapping[str, Any]) -> float:
    """About what a request counts for in a provider's tokens per minute: its text, or the most it may answer."""
    chat: Any = prompt
    written = len(prompt) if isinstance(prompt, str) else sum(len(str(each["content"])) for each in chat)
    most = keywords.get("max_new_tokens") or keywords.get("max_tokens") or 0
    return max(written / CHARACTERS_PER_TOKEN, float(most) * num_generations)


class _Worker:
    """The one thread in which a local engine works. It makes no difference between two models, and doesn't travel."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def thread(self) -> ThreadPoolExecutor:
        """Started when there is work for it."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llm")
        return self._executor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Worker)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[type[_Worker], tuple[()]]:
        return (type(self), ())


class _Pending:
    """An input that waits for its output."""

    def __init__(self, given: FormattedInput, num_generations: int, output: asyncio.Future[GenerateOutput]) -> None:
        self.prompt, self.schema = split_input(given)
        self.num_generations = num_generations
        self.output = output

    def resolve(self, value: GenerateOutput | Exception) -> None:
        """From any thread. Whoever waited may be gone, and the loop with it."""
        loop = self.output.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, self.output, value)


def _alike(batch: list[_Pending], schema: JSONSchema | None) -> list[tuple[int, JSONSchema | None, list[_Pending]]]:
    """The batch in groups that one call of `generate` can answer."""
    groups: list[tuple[int, JSONSchema | None, list[_Pending]]] = []
    for each in batch:
        wanted = (each.num_generations, each.schema or schema)
        group = next((members for n, s, members in groups if (n, s) == wanted), None)
        if group is None:
            groups.append((*wanted, [each]))
        else:
            group.append(each)
    return groups


def _resolve(output: asyncio.Future[GenerateOutput], value: GenerateOutput | Exception) -> None:
    if output.done():
        return
    if isinstance(value, Exception):
        output.set_exception(value)
    else:
        output.set_result(value)


def split_input(given: FormattedInput) -> tuple[Any, JSONSchema | None]:
    """The prompt and the schema of an input."""
    if isinstance(given, tuple):
        chat, schema = given
        return chat, json_schema_of(schema)
    return given, None


def bare_texts(inputs: Sequence[FormattedInput], owner: str) -> list[str]:
    """The inputs of a model that takes texts alone. Raises TypeError."""
    texts = [each for each in inputs if isinstance(each, str)]
    if len(texts) < len(inputs):
        raise TypeError(f"{owner} takes bare texts, got a chat among {len(inputs)} inputs")
    return texts


def cut_off_in(output: GenerateOutput) -> list[bool]:
    """By generation: whether the limit of tokens ended it."""
    return output.get("cut_off") or [False] * len(output["generations"])


def combined(outputs: Sequence[GenerateOutput]) -> GenerateOutput:
    """Outputs of several requests for one input, as one output."""
    whole = GenerateOutput(
        generations=[text for output in outputs for text in output["generations"]],
        statistics=TokenCounts(
            input_tokens=[count for output in outputs for count in output["statistics"]["input_tokens"]],
            output_tokens=[count for output in outputs for count in output["statistics"]["output_tokens"]],
        ),
    )
    logprobs = [each for output in outputs for each in output.get("logprobs") or []]
    if logprobs:
        whole["logprobs"] = logprobs
    cut_off = [each for output in outputs for each in cut_off_in(output)]
    if any(cut_off):
        whole["cut_off"] = cut_off
    embeddings = [each for output in outputs for each in output.get("embeddings", [])]
    if embeddings:
        whole["embeddings"] = embeddings
    return whole
