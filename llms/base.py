"""The contract of an LLM: subclass `LLM` (a local engine) or `AsyncLLM` (a service).

Write `model_name` and `generate` or `agenerate`. Every keyword of it besides the input,
`num_generations` and `structured_output` is a runtime parameter, coerced and checked from its
annotation; `generation_kwargs` holds their values.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from llms.code import code_digest
from llms.errors import LLMError, failure_of
from llms.limits import Limiter, known_limiter, limiter_for, send
from llms.loop import run_sync
from llms.markup import Facts
from llms.outages import OUTAGE_TIMEOUT
from llms.outputs import exactly, first_generations, output_in, outputs_in, too_few
from llms.parameters import (
    ONLY_TABS,
    Configurable,
    Unasked,
    explain,
    for_form,
    import_path,
    is_ours,
    names_told,
    signature_model,
    takes_none,
    unknown_name_message,
)
from llms.quantities import quantity
from llms.references import hidden, plain
from llms.root import ROOT
from llms.secrets import masked_values
from llms.structured_output import json_schema_of
from llms.typing import (
    PARTS_OF_TOKENS,
    ChatType,
    FormattedInput,
    GenerateOutput,
    HiddenState,
    JSONSchema,
    PriceSource,
    TokenCounts,
    Usage,
)
from llms.usage import usage_of

CHARACTERS_PER_TOKEN = 4
COMPLETIONS = 1
"""How often the rest is asked for, where fewer generations came than were asked for."""
TOKEN_LIMIT = "max_new_tokens"
"""The parameter that a question leaves out: more tokens ask again only what ran out of them."""

BATCHES = "use_offline_batch_generation"
"""The field of those that have offline batches, in `llms.batch`."""

NOT_PARAMETERS = frozenset({"self", "input", "inputs", "num_generations", "structured_output"})


class LLM(Configurable, ABC):
    """A language model that answers synchronously, several inputs at a time."""

    form_first = ("model",)
    form_last = ("provider",)
    # The address too, in the tabs of all providers: a form would take one that hides it for another's.
    form_more = ("base_url", "structured_output", "input_batch_size")

    form_generation: ClassVar[tuple[str, ...]] = ("max_new_tokens", "temperature")
    """The generation parameters that a flow's form shows first."""

    mixes_schemas: ClassVar[bool] = False
    """Whether one call of `generate` takes inputs of different schemas: each as `(chat, schema)`."""

    writes_on: ClassVar[bool] = False
    """Whether what it writes after a bare prompt, where nobody says how long, goes on until the model or the context
    ends it. Others end it after a few tokens."""

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
        int,
        Field(ge=1, title="Inputs per call", description="For engines that take several inputs at once."),
        Unasked(),
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

    def identity(self) -> dict[str, Any]:
        """What of this LLM decides its answers, as JSON values: the same in a clone and where it's installed."""
        return {**super().identity(), "provider": self.provider.removeprefix(ROOT)}

    def fingerprints(self) -> dict[str, str]:
        """What of its model lies on this machine, by what it holds: of each field that names such a file or folder a
        digest. A model may be trained anew into its folder. Raises OSError where one can't be read.
        """
        return {}

    def addressee(self) -> dict[str, Any]:
        """Who is asked and with which parameters, as JSON values: what all its questions have in common.

        Kept answers are found by it and by `question`. Here it's the class's name, what of its `identity` isn't at
        its default, and the code of classes that aren't ours: a class may be moved, and get another field.
        """
        defaults = {
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) == field.get_default(call_default_factory=True)
        }
        said = {
            name: value
            for name, value in self.identity().items()
            if name not in defaults and name not in {"type", "code", "provider"}
        }
        return {"class": type(self).__name__, **said, **own_code(type(self))}

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        """What one request asks besides, as JSON values. Raises LLMError where it can't be asked."""
        prompt, schema = split_input(given)
        return [prompt, schema, num_generations]

    def token_limit(self) -> int | None:
        """The most tokens of an answer, where a question says nothing of it: an answer that it cut off says so."""
        return None

    def service_at(self, **place: Any) -> dict[str, Any]:
        """`addressee` of a service at an address: that, and the parameters without the limit of tokens."""
        given = {name: value for name, value in self.generation_kwargs.items() if name != TOKEN_LIMIT}
        changed = not is_ours(type(self).generating_function())
        return {**place, "parameters": given, **(own_code(type(self)) if changed else {})}

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
            return failed_output(error, num_generations)

    async def answer(self, given: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Answer one input. Inputs that arrive together go to `generate` together, in a thread.

        Raises:
            LLMError: the request failed for good.
        """
        prompt, schema = split_input(given)
        schema = schema or self.structured_output
        if schema and self.mixes_schemas:
            prompt, schema = (prompt, plain(schema)), None
        pending = _Pending(prompt, schema, num_generations, asyncio.get_running_loop().create_future())
        with self._worker.lock:
            self._pending.append(pending)
            is_first = len(self._pending) == 1
        if is_first:
            asyncio.get_running_loop().call_soon(self._flush)
        return await pending.output

    def _flush(self) -> None:
        """Hand what waits to the worker, one batch per call: the engine sees one call at a time."""
        with self._worker.lock:
            pending, self._pending = self._pending, []
        for start in range(0, len(pending), self.input_batch_size):
            batch = pending[start : start + self.input_batch_size]
            self._worker.thread().submit(self._generate_batch, batch)

    def _generate_batch(self, batch: list[_Pending]) -> None:
        for n, schema, group in _alike(batch):
            try:
                given = self.generate([each.prompt for each in group], num_generations=n, **self.keywords(schema))
                outputs = outputs_in(given, self._generator(), len(group))
            except Exception as error:  # noqa: BLE001 -- user's code: whatever it raises belongs to the rows that wait for it
                for each in group:
                    each.resolve(error)
            else:
                for each, output in zip(group, outputs, strict=True):
                    try:
                        each.resolve(
                            masked_values(exactly(output_in(output, self._generator(), n), n, self._generator()))
                        )
                    except LLMError as error:
                        each.resolve(error)

    @classmethod
    def _generator(cls) -> str:
        """Who generates, as messages name it."""
        return f"{cls.__name__}.{cls.generating_function().__name__}"

    def keywords(self, schema: JSONSchema | None) -> dict[str, Any]:
        """The keyword arguments for `generate` or `agenerate`."""
        wanted = {**self.generation_kwargs}
        if schema is not None:
            if not self.takes_structured_output():
                raise LLMError(
                    f"{type(self).__name__} takes no structured output: its generate has no `structured_output`"
                )
            wanted["structured_output"] = plain(schema)
        return wanted

    @classmethod
    def takes_structured_output(cls) -> bool:
        """Whether answers can be asked to fit a schema."""
        return "structured_output" in inspect.signature(cls.generating_function()).parameters

    @classmethod
    def generating_function(cls) -> Callable[..., Any]:
        return cls.generate

    @classmethod
    def is_needless(cls, name: str, value: Any) -> bool:
        """Batches that are off are off where there are none. Prefect's former form sends them with any provider."""
        return name == BATCHES and value is False

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = super().__get_pydantic_json_schema__(core_schema, handler)
        schema = handler.resolve_ref_schema(reference)
        if BATCHES not in cls.model_fields:
            schema["propertyNames"]["enum"].append(BATCHES)
            schema.setdefault("patternProperties", {})[f"^{BATCHES}$"] = {"const": False}
        return reference

    @field_validator("generation_kwargs", mode="before")
    @classmethod
    def _check_generation_kwargs(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        arguments = signature_model(cls.generating_function(), NOT_PARAMETERS)
        # `None` is what a keyword's own default says, wherever that's another value and may be None.
        nullable = {name for name, each in arguments.model_fields.items() if takes_none(each.annotation)}
        given = {
            name: each
            for name, each in cast("Mapping[str, Any]", value).items()
            if each != {} and (each is not None or name in nullable)
        }
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
        return {name: each for name, each in dict(checked).items() if name not in left_out}

    @field_validator("structured_output", mode="before")
    @classmethod
    def _check_structured_output(cls, value: Any) -> Any:
        # As a flow's parameter it meets Prefect, which takes its references for blocks.
        return hidden(json_schema_of(value)) if value else None

    @model_validator(mode="after")
    def _name_provider(self) -> Self:
        if not self.provider:
            # Not through the attribute: assignments are validated, and this is the validator.
            vars(self)["provider"] = import_path(type(self))
        return self

    def _facts(self) -> Facts:
        whom = {"provider": self.provider, "model": self.model_name}
        settings = super()._facts()
        return Facts(settings.kind, facts={**whom, **settings.facts, **whom})

    def merge_field(self, name: str, value: Any) -> Any:
        if name == "generation_kwargs" and isinstance(value, Mapping):
            return {**self.generation_kwargs, **cast("Mapping[str, Any]", value)}
        return super().merge_field(name, value)

    @classmethod
    def edit_form(cls, properties: dict[str, dict[str, Any]]) -> None:
        given = cast("dict[str, Any]", cls.model_fields["generation_kwargs"].default or {})
        field = properties["generation_kwargs"]
        properties["generation_kwargs"] = {
            **cls._generation_form(given),
            "title": field.get("title"),
            "description": field.get("description"),
        }

    @classmethod
    def _generation_form(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON schema of the generation parameters, with what is `given` as defaults."""
        arguments = signature_model(cls.generating_function(), NOT_PARAMETERS)
        form = arguments.model_json_schema(ref_template="#/definitions/{model}")
        inner = cast("dict[str, dict[str, Any]]", form.get("properties", {}))
        for position, name in enumerate(inner):
            default = {"default": hidden(given[name])} if name in given else {}
            title = {"title": name.replace("_", " ").capitalize()}
            inner[name] = {**for_form({**inner[name], **default}), **title, "position": position}
        form.pop("required", None)
        return names_told(form, inner) if form.get("additionalProperties") is False else form

    @classmethod
    def folded_types(cls) -> dict[str, type[BaseModel]]:
        return {"generation_kwargs": signature_model(cls.generating_function(), NOT_PARAMETERS)}

    @classmethod
    def fold_form(cls, properties: dict[str, dict[str, Any]], handler: GetJsonSchemaHandler) -> None:
        """The usual generation parameters, and what the default sets, in one tab, and all of them in another."""
        # One definition for all classes that generate by the same function.
        whole = {"$ref": properties["generation_kwargs"]["$ref"]}
        defined = handler.resolve_ref_schema(whole)
        defined.clear()
        defined.update(cls._generation_form({}), title="All")
        cls.edit_form(properties)
        field = properties["generation_kwargs"]
        inner = cast("dict[str, dict[str, Any]]", field.get("properties", {}))
        shown: dict[str, Any] = {word: field[word] for word in ("title", "description") if field.get(word)}
        given = cast("dict[str, Any]", cls.model_fields["generation_kwargs"].default or {})
        usual = {name: each for name, each in inner.items() if name in cls.form_generation or name in given}
        if cls.form_special and set(cls.form_generation) & set(inner) and len(usual) < len(inner):
            set_ones = {
                name: {word: inner[name][word] for word in ("default", "position")} for name in given if name in inner
            }
            tabs = [
                {"type": "object", "title": "Usual", "properties": usual},
                {**whole, **({"properties": set_ones} if set_ones else {})},
            ]
            properties["generation_kwargs"] = {**shown, "anyOf": tabs, **ONLY_TABS, "if": True, "then": whole}
        elif not given:
            properties["generation_kwargs"] = {**whole, **shown}

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

    form_more = (
        "max_concurrent_requests",
        "max_retries",
        "requests_per_minute",
        "tokens_per_minute",
        "shared_limit",
        "outage_timeout",
    )

    # One input per request.
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Unasked()] = 50
    max_concurrent_requests: Annotated[
        int, Field(ge=1, title="Requests at a time", description="The most under way at once in a process."), Unasked()
    ] = 100
    max_retries: Annotated[
        int, Field(ge=0, title="Retries", description="Per request, for failures that may pass."), Unasked()
    ] = 6
    requests_per_minute: Annotated[
        float | None,
        Field(gt=0, title="Requests per minute", description="In a process. Empty: as the provider says."),
        Unasked(),
    ] = None
    tokens_per_minute: Annotated[
        float | None,
        Field(gt=0, title="Tokens per minute", description="In a process. Empty: as the provider says."),
        Unasked(),
    ] = None
    shared_limit: Annotated[
        str,
        Field(
            title="Shared limit",
            description="Name of a limit on requests at a time that processes share, where there is one."
            " Empty: llm-PROVIDER-MODEL.",
        ),
        Unasked(),
    ] = ""
    outage_timeout: Annotated[
        float,
        Field(ge=0, title="Outage timeout", description="Seconds that a provider which went away is waited for."),
        Unasked(),
    ] = OUTAGE_TIMEOUT

    async def agenerate(self, input: FormattedInput, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        """Answer `input` with `num_generations` texts."""
        raise NotImplementedError(f"{type(self).__name__} has to define `agenerate`")

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        return self.generate_outputs(inputs, num_generations, **kwargs)

    async def answer(
        self,
        given: FormattedInput,
        num_generations: int = 1,
        *,
        before: int = 0,
        keep: Callable[[GenerateOutput], None] | None = None,
    ) -> GenerateOutput:
        """Answer one input, retrying what may pass.

        What comes is kept: a try for several generations that failed in part, or that gave fewer of them, asks for
        the rest alone. What was paid for nothing is in the output's `usage`, or in the error's.

        Args:
            before: generations that the input has of earlier calls: seeds are counted on.
            keep: is given what came as soon as the rest has to be asked for again, and then all that follows. The
                usage of these outputs adds up to that of the whole; the error's has only what is beside them.

        Raises:
            LLMError: the request failed for good.
        """
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        limiter = self.limiter()
        tokens = estimated_tokens(prompt, num_generations, keywords) if limiter.counts_tokens else 0.0
        parts = _Parts(num_generations, before, keep)

        async def ask() -> None:
            wanted = parts.keywords(keywords)
            try:
                parts.take(output_in(await self._made(prompt, parts.missing, wanted), self._generator(), parts.missing))
            except LLMError as error:
                parts.take_failure(error)
                raise
            finally:
                parts.tell()

        try:
            for _ in range(1 + COMPLETIONS):
                await send(ask, limiter, self.max_retries, tokens)
                if not parts.missing:
                    return masked_values(parts.output())
        except LLMError as error:
            # A fatal one may be that of many rows.
            if not error.fatal:
                error.usage = parts.usage()
            raise
        raise too_few(self._generator(), num_generations, num_generations - parts.missing, parts.usage())

    async def _made(self, prompt: FormattedInput, num_generations: int, keywords: Mapping[str, Any]) -> object:
        """What `agenerate` gives, asynchronous or not. Raises LLMError where it can't be called like this."""
        try:
            given: object = self.agenerate(input=prompt, num_generations=num_generations, **keywords)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise
            raise LLMError(f"{error}; it's called with `input`, `num_generations` and its runtime parameters") from None
        return await given if inspect.isawaitable(given) else given

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
        return limiter.circuit.trouble if limiter is not None else ""

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
    written = len(prompt) if isinstance(prompt, str) else sum(len(str(each.get("content") or "")) for each in chat)
    most = keywords.get("max_new_tokens") or keywords.get("max_tokens") or 0
    return max(written / CHARACTERS_PER_TOKEN, float(most) * num_generations)


class _Parts:
    """The generations that came for one input so far, and what was paid beside them."""

    def __init__(self, num_generations: int, before: int, keep: Callable[[GenerateOutput], None] | None) -> None:
        self._wanted = num_generations
        self._before = before
        self._keep = keep
        self._outputs: list[GenerateOutput] = []
        self._told = 0
        """How many of the outputs were given to `keep`."""
        self._wasted: list[Usage] = []
        """Beside the outputs."""

    @property
    def missing(self) -> int:
        if any("embeddings" in output for output in self._outputs):
            return 0
        return max(0, self._wanted - self._got)

    @property
    def _got(self) -> int:
        return sum(len(output["generations"]) for output in self._outputs)

    def keywords(self, keywords: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keywords of the next request: with another seed, where some generations came of the earlier ones."""
        seed, got = keywords.get("seed"), self._before + self._got
        if not got or not isinstance(seed, int):
            return keywords
        # No request for several counts on so far.
        return {**keywords, "seed": seed + got * (self._before + self._wanted)}

    def take(self, output: GenerateOutput) -> None:
        if output["generations"] or "embeddings" in output:
            self._outputs.append(output)
        else:
            self._wasted += usage_of(output)

    def take_failure(self, error: LLMError) -> None:
        for output in error.beside:
            self.take(output)
        self._wasted += error.usage

    def tell(self) -> None:
        """Give `keep` what came since it was given something, if some is missing, or some was given."""
        if self._keep is None or not (self.missing or self._told):
            return
        for place in range(self._told, len(self._outputs)):
            output = masked_values(self._outputs[place])
            if self._wasted:
                output = output.copy()
                output["usage"] = [*self._wasted, *usage_of(output)]
                self._wasted = []
            self._outputs[place] = output
            self._keep(output)
        self._told = len(self._outputs)

    def usage(self) -> list[Usage]:
        """Of all requests, but those for outputs that are kept."""
        return [*self._wasted, *(usage for output in self._outputs[self._told :] for usage in usage_of(output))]

    def output(self) -> GenerateOutput:
        """As many generations as were wanted."""
        whole = self._outputs[0] if len(self._outputs) == 1 else combined(self._outputs)
        if self._wasted:
            whole = whole.copy()
            whole["usage"] = [*self._wasted, *usage_of(whole)]
        return whole if "embeddings" in whole else first_generations(whole, self._wanted)


class _Worker:
    """The one thread in which a local engine works. It makes no difference between two models, and doesn't travel."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()
        """Of what waits for the thread as well: inputs may arrive on several event loops."""

    def thread(self) -> ThreadPoolExecutor:
        """Started when there is work for it."""
        with self.lock:
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

    def __init__(
        self, prompt: Any, schema: JSONSchema | None, num_generations: int, output: asyncio.Future[GenerateOutput]
    ) -> None:
        self.prompt, self.schema = prompt, schema
        self.num_generations = num_generations
        self.output = output

    def resolve(self, value: GenerateOutput | Exception) -> None:
        """From any thread. Whoever waited may be gone, and the loop with it."""
        loop = self.output.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, self.output, value)


def _alike(batch: list[_Pending]) -> list[tuple[int, JSONSchema | None, list[_Pending]]]:
    """The batch in groups that one call of `generate` can answer."""
    groups: list[tuple[int, JSONSchema | None, list[_Pending]]] = []
    for each in batch:
        wanted = (each.num_generations, each.schema)
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


def own_code(kind: type) -> dict[str, Any]:
    """The code of the classes that aren't ours, by which their answers are told from others."""
    foreign = [each for each in kind.__mro__ if issubclass(each, LLM) and not is_ours(each)]
    return {"code": [code_digest(each) for each in foreign]} if foreign else {}


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
        raise TypeError(f"{owner} takes bare texts, got a chat among {quantity(len(inputs), 'input')}")
    return texts


def cut_off_in(output: GenerateOutput) -> list[bool]:
    """By generation: whether the limit of tokens ended it."""
    return output.get("cut_off") or [False] * len(output["generations"])


def unfinished_in(output: GenerateOutput) -> list[bool]:
    """By generation: whether it isn't known to be whole, for another reason than the limit of tokens."""
    return output.get("unfinished") or [False] * len(output["generations"])


def finish_reasons_in(output: GenerateOutput) -> list[str | None]:
    """By generation: why it ended, in the provider's word."""
    return output.get("finish_reasons") or [None] * len(output["generations"])


def failed_output(error: LLMError, num_generations: int, usage: Sequence[Usage] | None = None) -> GenerateOutput:
    """The output of a request that failed for good, with what was paid all the same: the error's, or `usage`."""
    spent = list(error.usage if usage is None else usage)
    rest = [0] * (num_generations - 1)
    output = GenerateOutput(
        generations=[None] * num_generations,
        statistics=TokenCounts(
            input_tokens=[sum(each["input_tokens"] for each in spent), *rest],
            output_tokens=[sum(each["output_tokens"] for each in spent), *rest],
        ),
        error=failure_of(error),
    )
    if spent:
        output["usage"] = spent
    return output


async def side_by_side(requests: Iterable[Awaitable[GenerateOutput]]) -> GenerateOutput:
    """The outputs of several requests for one input, as one.

    Raises:
        LLMError: one of them failed. It has what came of the others, and what was paid for nothing.
    """
    done = await asyncio.gather(*requests, return_exceptions=True)
    outputs = [each for each in done if not isinstance(each, BaseException)]
    failures: list[LLMError] = []
    for each in done:
        if isinstance(each, LLMError):
            failures.append(each)
        elif isinstance(each, BaseException):
            raise each
    if not failures:
        return combined(outputs)
    # One that is final outweighs those that may pass.
    gravest = min(failures, key=lambda failure: (not failure.fatal, failure.retryable))
    gravest.beside = [*outputs, *(output for failure in failures for output in failure.beside)]
    gravest.usage = [usage for failure in failures for usage in failure.usage]
    raise gravest


def combined(outputs: Sequence[GenerateOutput]) -> GenerateOutput:
    """Outputs of several requests for one input, as one."""
    whole = GenerateOutput(
        generations=[text for output in outputs for text in output["generations"]],
        statistics=TokenCounts(
            input_tokens=[count for output in outputs for count in output["statistics"]["input_tokens"]],
            output_tokens=[count for output in outputs for count in output["statistics"]["output_tokens"]],
        ),
    )
    for name in PARTS_OF_TOKENS:
        parts = [output["statistics"].get(name) or [0] * len(output["generations"]) for output in outputs]
        if any(map(any, parts)):
            whole["statistics"][name] = [count for part in parts for count in part]
    logprobs = [each for output in outputs for each in output.get("logprobs") or []]
    if logprobs:
        whole["logprobs"] = logprobs
    cut_off = [each for output in outputs for each in cut_off_in(output)]
    if any(cut_off):
        whole["cut_off"] = cut_off
    unfinished = [each for output in outputs for each in unfinished_in(output)]
    if any(unfinished):
        whole["unfinished"] = unfinished
    if any("finish_reasons" in output for output in outputs):
        whole["finish_reasons"] = [each for output in outputs for each in finish_reasons_in(output)]
    if any("reasoning" in output for output in outputs):
        whole["reasoning"] = [
            each for output in outputs for each in output.get("reasoning") or [None] * len(output["generations"])
        ]
    if any("usage" in output for output in outputs):
        whole["usage"] = [usage for output in outputs for usage in usage_of(output)]
    embeddings = [each for output in outputs for each in output.get("embeddings", [])]
    if embeddings:
        whole["embeddings"] = embeddings
    return whole
