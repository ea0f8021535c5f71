"""LLMs that a user writes, as the guide shows them."""

from __future__ import annotations

import asyncio
import importlib
import linecache
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, PrivateAttr, TypeAdapter, validate_call

from flows.ledger import space_of
from llms import LLM, AnyLLM, AsyncLLM, LLMError, ParameterError, RateLimitError
from llms.loop import run_sync
from llms.typing import ChatType, GenerateOutput, HiddenState
from llms.variants import ALLOWED_VARIABLE, is_allowed

CHAT: ChatType = [{"role": "user", "content": "Hello"}]

SEED_MODULE = """
from typing import Any, List

from pydantic import validate_call

from llms import LLM, AsyncLLM
from llms.typing import GenerateOutput, HiddenState
from llms.typing import ChatType

class CustomLLM(LLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    def generate(self, inputs: List[ChatType], num_generations: int = 1, **kwargs: Any) -> List[GenerateOutput]:
        outputs = []
        for chat in inputs:
            texts = []
            for _ in range(num_generations):
                texts.append(f"{chat[-1]['content']} {kwargs}")
            counts = {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations}
            outputs.append({"generations": texts, "statistics": counts})
        return outputs

    def get_last_hidden_state(self, inputs: List[ChatType]) -> List[HiddenState]:
        return [[[0.5, 1.5]] for _ in inputs]

class CustomAsyncLLM(AsyncLLM):
    @property
    def model_name(self) -> str:
        return "my-model"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        texts = []
        for _ in range(num_generations):
            texts.append(f"{input[-1]['content']} {kwargs}")
        counts = {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations}
        return {"generations": texts, "statistics": counts}

    def get_last_hidden_state(self, inputs: List[ChatType]) -> List[HiddenState]:
        return [[[0.5, 1.5]] for _ in inputs]
"""


@pytest.fixture
def my_llms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's own module, importable as `my_llms`."""
    (tmp_path / "my_llms.py").write_text(SEED_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("my_llms")
    del sys.modules["my_llms"]


def answered(text: str | None, times: int = 1) -> GenerateOutput:
    return {"generations": [text] * times, "statistics": {"input_tokens": [1] * times, "output_tokens": [1] * times}}


@pytest.mark.parametrize("name", ["CustomLLM", "CustomAsyncLLM"])
def test_the_custom_llms_of_the_guide_answer(my_llms: Any, name: str) -> None:
    llm = getattr(my_llms, name)()
    llm.load()

    (output,) = llm.generate_outputs(inputs=[CHAT], num_generations=2)

    assert output["generations"] == ["Hello {}", "Hello {}"]
    assert llm.model_name == "my-model"
    assert llm.provider == f"my_llms:{name}"
    assert llm.get_last_hidden_state([CHAT]) == [[[0.5, 1.5]]]


@pytest.mark.parametrize("name", ["CustomLLM", "CustomAsyncLLM"])
def test_further_keywords_reach_a_function_that_takes_any(my_llms: Any, name: str) -> None:
    llm = getattr(my_llms, name)(generation_kwargs={"temperature": 0.3})

    (output,) = llm.generate_outputs(inputs=[CHAT], beams=4)

    assert output["generations"] == ["Hello {'temperature': 0.3, 'beams': 4}"]


@pytest.mark.parametrize("name", ["CustomLLM", "CustomAsyncLLM"])
def test_the_custom_llms_of_the_guide_take_part_by_their_import_path(my_llms: Any, name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyLLM)

    llm = adapter.validate_python({"provider": f"my_llms:{name}", "generation_kwargs": {"k": 1}})

    assert isinstance(llm, getattr(my_llms, name))
    assert llm.generate_outputs(inputs=[CHAT])[0]["generations"] == ["Hello {'k': 1}"]
    assert adapter.validate_json(adapter.dump_json(llm)).identity() == llm.identity()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_llms:Custom", "can't be imported"),
        ("nowhere_at_all:Custom", "The module must be importable where the flow runs"),
        ("collections:OrderedDict", "is no kind of LLM"),
        ("opnai", "'openai'"),
    ],
)
@pytest.mark.usefixtures("my_llms")
def test_an_import_path_that_leads_nowhere_is_told(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TypeAdapter(AnyLLM).validate_python({"provider": path})


HELPED_MODULE = """
from typing import ClassVar

from llms import AsyncLLM

def said(text):
    return text.upper()

class Helped(AsyncLLM):
    version: ClassVar[int] = 1

    @property
    def model_name(self):
        return "my-model"

    async def agenerate(self, input, num_generations: int = 1):
        texts = [said(input[-1]["content"])] * num_generations
        counts = [0] * num_generations
        return {"generations": texts, "statistics": {"input_tokens": counts, "output_tokens": counts}}
"""


def test_kept_answers_belong_to_the_class_of_an_own_llm_and_not_to_what_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def space(old: str = "", new: str = "") -> str:
        (tmp_path / "my_helped.py").write_text(HELPED_MODULE.replace(old, new) if old else HELPED_MODULE)
        sys.modules.pop("my_helped", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        return space_of(importlib.import_module("my_helped").Helped())

    before = space()
    assert space("text.upper()", "text.lower()") == before
    # As the README has it.
    assert space("ClassVar[int] = 1", "ClassVar[int] = 2") != before
    del sys.modules["my_helped"]


SECRET = "the-value-of-another-variable"


@pytest.mark.parametrize(
    "path",
    [
        "os:environ",
        "os:environ.__class__",
        "os:environ.get.__self__",
        "os:environ.data",
        "my_llms:SETTINGS",
        "my_llms:SETTINGS.password",
        "my_llms:CustomLLM.token",
        "my_llms:CustomLLM.model_fields",
        "my_llms:made",
        "collections:OrderedDict",
        "builtins:object",
        "json:loads",
        "flows.__main__:main",
        "os.__dict__:environ",
        "os:__dict__",
        "os:environ:x",
        ":environ",
        "os:",
        "os: environ",
        "os:environ['SECRET']",
        "llms.base:LLM.__subclasses__",
    ],
)
def test_an_import_path_shows_no_value_of_what_it_leads_to(
    path: str, my_llms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_VARIABLE", SECRET)
    my_llms.SETTINGS = {"password": SECRET}
    my_llms.CustomLLM.token = SECRET
    my_llms.made = my_llms.CustomLLM()

    with pytest.raises(ValueError, match="is no kind of LLM|can't be imported") as caught:
        TypeAdapter(AnyLLM).validate_python({"provider": path})

    assert SECRET not in str(caught.value)
    assert "environ({" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_a_module_that_cant_be_imported_is_a_mistake_in_the_parameters(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_llms.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError, match=f"provider='broken_llms:Custom' can't be imported: .*{said}"):
        TypeAdapter(AnyLLM).validate_python({"provider": "broken_llms:Custom"})


@pytest.mark.parametrize(
    "listed", ["other", "my_llms_of_others", "my_llms:CustomAsyncLLM", "none", "my_llms.inner, x.*"]
)
def test_a_deployment_limits_the_packages_that_classes_come_from_and_imports_no_other(
    listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_llms.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED_VARIABLE, listed)

    with pytest.raises(ValueError, match="'my_llms:CustomLLM' isn't among the classes .* to STILLFLOW_ALLOWED_CLASSES"):
        TypeAdapter(AnyLLM).validate_python({"provider": "my_llms:CustomLLM"})
    # Nor to find out whether it's there.
    with pytest.raises(ValueError, match="isn't among the classes that may be used here"):
        TypeAdapter(AnyLLM).validate_python({"provider": "nowhere_at_all:CustomLLM"})
    assert TypeAdapter(AnyLLM).validate_python({"provider": "openai", "model": "m"}).model == "m"


@pytest.mark.parametrize("listed", ["", " ", "my_llms", "other, my_llms", "my_*", "my_llms:CustomLLM", "a b my_llms"])
def test_what_the_deployment_lists_takes_part(listed: str, my_llms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, listed)

    made = TypeAdapter(AnyLLM).validate_python({"provider": "my_llms:CustomLLM"})

    assert isinstance(made, my_llms.CustomLLM)


@pytest.mark.parametrize(
    ("path", "listed", "allowed"),
    [
        ("mine:A", "mine", True),
        ("mine.sub:A", "mine", True),
        ("mine.sub.deep:A", "mine.*", True),
        ("mine:A", "mine.*", False),
        ("mineral:A", "mine", False),
        ("mine.sub:A", "mine.sub", True),
        ("mine.other:A", "mine.sub", False),
        ("mine:B", "mine:A", False),
        ("MINE:A", "mine", False),
        ("llms.providers.openai:OpenAILLM", "mine", True),
        ("tasks.sources.loaders:LoadDataFromDicts", "mine", True),
        ("llms_of_others:A", "mine", False),
    ],
)
def test_what_a_list_of_packages_lets_in(
    path: str, listed: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, listed)

    assert is_allowed(path) is allowed


class Local(LLM):
    """An engine that takes several inputs at once and isn't made for several threads."""

    _weights: str = PrivateAttr(default="")
    _calls: list[list[Any]] = PrivateAttr(default_factory=list[list[Any]])
    _threads: set[int] = PrivateAttr(default_factory=set[int])
    _busy: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def model_name(self) -> str:
        return "local"

    def load(self) -> None:
        self._weights = "weights"

    @validate_call
    def generate(
        self,
        inputs: list[ChatType],
        num_generations: int = 1,
        temperature: float = 1.0,
        stop: list[str] | None = None,
        structured_output: dict[str, Any] | None = None,
    ) -> list[GenerateOutput]:
        """Answer.

        Args:
            temperature: how varied
                the answers are.
            stop (list): where they end.
        """
        assert self._weights, "load() was not called on what is asked"
        assert self._busy.acquire(blocking=False), "two calls at once"
        with_schema = " fitting" if structured_output else ""
        outputs = [answered(f"{each[-1]['content']} {temperature}{with_schema}", num_generations) for each in inputs]
        self._calls.append(inputs)
        self._threads.add(threading.get_ident())
        self._busy.release()
        return outputs


def chats(count: int) -> list[ChatType]:
    return [[{"role": "user", "content": str(number)}] for number in range(count)]


def test_inputs_go_to_a_local_engine_in_batches_in_their_order() -> None:
    llm = Local(input_batch_size=4)
    llm.load()

    outputs = llm.generate_outputs(inputs=chats(10))

    assert [output["generations"] for output in outputs] == [[f"{number} 1.0"] for number in range(10)]
    assert [len(call) for call in llm._calls] == [4, 4, 2]


def test_a_local_engine_works_in_one_thread_beside_the_loop() -> None:
    llm = Local(input_batch_size=2)
    llm.load()

    async def main() -> list[Any]:
        return await asyncio.gather(*(llm.answer(chat) for chat in chats(6)), llm.answer(CHAT, 3))

    outputs = asyncio.run(main())

    assert outputs[-1]["generations"] == ["Hello 1.0"] * 3
    assert len(llm._threads) == 1
    assert threading.get_ident() not in llm._threads


def test_what_load_made_is_there_when_a_call_has_keywords() -> None:
    llm = Local()
    llm.load()

    assert llm.generate_outputs(inputs=[CHAT], temperature="0.3")[0]["generations"] == ["Hello 0.3"]
    assert llm.generate_outputs(inputs=[CHAT])[0]["generations"] == ["Hello 1.0"]
    assert len(llm._threads) == 1


def test_inputs_with_a_schema_and_without_go_in_calls_of_their_own() -> None:
    class City(BaseModel):
        name: str

    llm = Local()
    llm.load()

    outputs = llm.generate_outputs(inputs=[CHAT, (CHAT, City.model_json_schema()), CHAT])

    assert [output["generations"] for output in outputs] == [["Hello 1.0"], ["Hello 1.0 fitting"], ["Hello 1.0"]]
    assert sorted(len(call) for call in llm._calls) == [1, 2]


def test_strings_of_a_command_line_are_coerced_by_the_annotations() -> None:
    llm = Local(generation_kwargs={"temperature": "0.25", "stop": ["x"]})

    assert llm.generation_kwargs == {"temperature": 0.25, "stop": ["x"]}
    with pytest.raises(ParameterError, match=r"temperature.*got 'hot'"):
        llm.merged({"generation_kwargs": {"temperature": "hot"}})
    with pytest.raises(ParameterError, match="Did you mean 'temperature'"):
        llm.generate_outputs(inputs=[CHAT], temprature=1)


def test_descriptions_come_from_the_docstring() -> None:
    info = {entry["name"]: entry for entry in Local().get_runtime_parameters_info()}

    assert info["generation_kwargs"]["keys"] == [
        {"name": "temperature", "optional": True, "description": "how varied the answers are."},
        {"name": "stop", "optional": True, "description": "where they end."},
    ]


class Failing(LLM):
    error: str = "none"

    @property
    def model_name(self) -> str:
        return "failing"

    def generate(self, inputs: list[Any], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        if self.error == "few":
            return [answered("one")]
        raise LLMError("out of memory") if self.error == "typed" else ZeroDivisionError("a mistake")


def test_a_typed_failure_of_an_engine_belongs_to_the_rows() -> None:
    outputs = Failing(error="typed").generate_outputs(inputs=chats(2))

    assert [output["error"]["message"] for output in outputs if "error" in output] == ["out of memory"] * 2


def test_a_mistake_in_an_engine_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        Failing().generate_outputs(inputs=chats(2))


def test_an_engine_that_loses_inputs_is_told() -> None:
    (first, _) = Failing(error="few").generate_outputs(inputs=chats(2))

    assert first.get("error", {}).get("message") == "Failing.generate got 2 inputs and gave 1 output"


def test_structured_output_of_an_engine_that_takes_none_is_told() -> None:
    (output,) = Failing(structured_output={"type": "object"}).generate_outputs(inputs=[CHAT])

    assert "takes no structured output" in output.get("error", {}).get("message", "")


class Remote(AsyncLLM):
    _tries: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "remote"

    @validate_call
    async def agenerate(
        self, input: ChatType | str, num_generations: int = 1, temperature: Annotated[float, "varied"] = 1.0
    ) -> GenerateOutput:
        self._tries += 1
        if self._tries < 3:
            raise RateLimitError("later", retry_after=0.01)
        return answered(f"{input if isinstance(input, str) else input[-1]['content']} {temperature!r}", num_generations)


def test_an_async_llm_is_retried_by_its_typed_errors() -> None:
    llm = Remote(generation_kwargs={"temperature": "0.5"})

    assert llm.generate_outputs(inputs=["Hello"])[0]["generations"] == ["Hello 0.5"]
    assert llm._tries == 3


def test_an_async_llm_is_awaited_where_a_loop_runs() -> None:
    llm = Remote()

    async def main() -> Any:
        return await llm.answer(CHAT)

    assert asyncio.run(main())["generations"] == ["Hello 1.0"]


def test_generate_of_an_async_llm_answers_a_list() -> None:
    assert Remote().generate([CHAT, "Hi"])[1]["generations"] == ["Hi 1.0"]


def test_a_mistake_in_one_request_ends_the_others() -> None:
    ended: list[str] = []

    class Mixed(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "mixed"

        async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
            if input == "bad":
                raise KeyError("a mistake")
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(input)
            return answered(input)

    with pytest.raises(KeyError):
        Mixed().generate_outputs(inputs=["good", "bad"])
    run_sync(asyncio.sleep(0))

    assert ended == ["good"]


def test_hidden_states_are_asked_for_in_vain_where_there_are_none() -> None:
    with pytest.raises(NotImplementedError, match="Remote gives no hidden states"):
        Remote().get_last_hidden_state([CHAT])


def test_hidden_states_have_the_shape_of_tokens_by_dimensions(my_llms: Any) -> None:
    states: list[HiddenState] = my_llms.CustomAsyncLLM().get_last_hidden_state([CHAT, CHAT])

    assert [[len(token) for token in state] for state in states] == [[2], [2]]
