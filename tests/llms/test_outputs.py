"""What models of a user's own give: read where nothing is lost by it, refused with what was expected elsewhere."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from llms import LLM, AsyncLLM, Embeddings, ImageGenerationModel
from llms.errors import failure_of
from llms.outputs import output_in
from llms.typing import ChatType, GenerateOutput

CHAT: ChatType = [{"role": "user", "content": "Hello"}]


class Giving(AsyncLLM):
    """Gives what it was made with."""

    # Not written down: half a character is refused in what is.
    given: Any = Field(default=None, exclude=True)

    @property
    def model_name(self) -> str:
        return "giving"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        return self.given


class LocalGiving(LLM):
    """The same, for each input."""

    # Not written down: half a character is refused in what is.
    given: Any = Field(default=None, exclude=True)

    @property
    def model_name(self) -> str:
        return "giving"

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        return [self.given for _ in inputs]


def counted(texts: list[str | None], inputs: list[int], outputs: list[int]) -> GenerateOutput:
    return {"generations": texts, "statistics": {"input_tokens": inputs, "output_tokens": outputs}}


GENEROUS = {
    "a list of texts, as before distilabel 1.5": (["a", "b"], counted(["a", "b"], [0, 0], [0, 0])),
    "a tuple": (("a", "b"), counted(["a", "b"], [0, 0], [0, 0])),
    "an array of texts": (np.array(["a", "b"]), counted(["a", "b"], [0, 0], [0, 0])),
    "half a character": (["a \ud83d", "\ud83d\ude00"], counted(["a \ufffd", "\U0001f600"], [0, 0], [0, 0])),
    "no answer": (None, counted([None, None], [0, 0], [0, 0])),
    "texts of which one is missing": ({"generations": ["a", None]}, counted(["a", None], [0, 0], [0, 0])),
    "no statistics": ({"generations": ["a", "b"]}, counted(["a", "b"], [0, 0], [0, 0])),
    "no statistics, said": ({"generations": ["a", "b"], "statistics": None}, counted(["a", "b"], [0, 0], [0, 0])),
    "one count for all": (counted(["a", "b"], [7], [9]), counted(["a", "b"], [7, 0], [9, 0])),
    "a count alone": (
        {"generations": ["a", "b"], "statistics": {"input_tokens": 7, "output_tokens": 9}},
        counted(["a", "b"], [7, 0], [9, 0]),
    ),
    "one of the counts": (
        {"generations": ["a", "b"], "statistics": {"output_tokens": [4, 5]}},
        counted(["a", "b"], [0, 0], [4, 5]),
    ),
    "counts that aren't known": (
        {"generations": ["a", "b"], "statistics": {"input_tokens": None, "output_tokens": [None, 5]}},
        counted(["a", "b"], [0, 0], [0, 5]),
    ),
    "numpy's numbers": (
        {
            "generations": ["a", "b"],
            "statistics": {"input_tokens": np.array([7, 8]), "output_tokens": [np.int64(9), 1]},
        },
        counted(["a", "b"], [7, 8], [9, 1]),
    ),
    "whole numbers with a point": (counted(["a", "b"], [7.0, 8.0], [9.0, 1.0]), counted(["a", "b"], [7, 8], [9, 1])),
    "keys of its own": ({**counted(["a", "b"], [1, 1], [1, 1]), "model": "x"}, counted(["a", "b"], [1, 1], [1, 1])),
}


@pytest.mark.parametrize("model", [LocalGiving, Giving])
@pytest.mark.parametrize(("given", "meant"), GENEROUS.values(), ids=GENEROUS)
def test_what_loses_nothing_is_taken(model: Any, given: Any, meant: GenerateOutput) -> None:
    (output,) = model(given=given).generate_outputs([CHAT], num_generations=2)

    assert output == meant
    counts = [*output["statistics"]["input_tokens"], *output["statistics"]["output_tokens"]]
    assert {type(count) for count in counts} == {int}


def test_a_text_alone_is_the_one_that_was_asked_for() -> None:
    (output,) = Giving(given="a").generate_outputs([CHAT])

    assert output["generations"] == ["a"]


REFUSED = {
    "a number": (3, "`generations` is no list, but 3"),
    "a dict of something else": ({"text": "a"}, "`generations` is no list, but None"),
    "a text in a dict": ({"generations": "ab"}, "`generations` is no list, but 'ab'"),
    "numbers": ([1, 2], "a generation is no text, but 1"),
    "a dict as a text": ([{"text": "a"}, "b"], "a generation is no text, but {'text': 'a'}"),
    "bytes": ([b"a", "b"], "a generation is no text, but b'a'"),
    "counts of others": (counted(["a", "b"], [1, 2, 3], [1, 1]), "`input_tokens` has 3 counts for 2 generations"),
    "a word for a count": (
        {"generations": ["a", "b"], "statistics": {"input_tokens": ["many", 1]}},
        "`input_tokens` holds 'many', which is no count of tokens",
    ),
    "part of a token": (counted(["a", "b"], [0.5, 1], [1, 1]), "`input_tokens` holds 0.5"),
    "less than none": (counted(["a", "b"], [-1, 1], [1, 1]), "`input_tokens` holds -1"),
    "statistics in a list": (
        {"generations": ["a", "b"], "statistics": [1, 1]},
        r"`statistics` is no dict, but \[1, 1\]",
    ),
    "log probabilities of others": (
        {**counted(["a", "b"], [1, 1], [1, 1]), "logprobs": [[]]},
        "`logprobs` has 1 entry for 2 generations",
    ),
}


@pytest.mark.parametrize("model", [LocalGiving, Giving])
@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_anything_else_fails_its_row_with_what_was_expected_and_who_gave_it(model: Any, given: Any, said: str) -> None:
    (output,) = model(given=given).generate_outputs([CHAT], num_generations=2)

    message = output.get("error", {}).get("message", "")
    name = "LocalGiving.generate" if model is LocalGiving else "Giving.agenerate"
    assert message.startswith(f"{name}: ")
    with pytest.raises(Exception, match=said):
        output_in(given, name, 2)
    assert 'expected {"generations": [<text>, ...], "statistics"' in message
    assert output["generations"] == [None, None]


def test_one_bad_output_of_an_engine_fails_its_row_alone() -> None:
    class Mixed(LocalGiving):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            return [3 if chat[-1]["content"] == "bad" else "good" for chat in inputs]

    chats: Any = [[{"role": "user", "content": text}] for text in ("fine", "bad", "fine")]

    outputs = Mixed().generate_outputs(chats)

    assert [output["generations"] for output in outputs] == [["good"], [None], ["good"]]


@pytest.mark.parametrize("given", [None, 3, "text", {"generations": ["a"]}])
def test_an_engine_that_gives_no_list_is_named(given: Any) -> None:
    class NoList(LocalGiving):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            return given

    (output,) = NoList().generate_outputs([CHAT])

    assert output.get("error", {}).get("message") == (
        f"NoList.generate gave {given!r}; expected a list with an output per input"
    )


def test_an_engine_may_give_its_outputs_one_by_one() -> None:
    class Lazy(LocalGiving):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            yield from ([chat[-1]["content"]] for chat in inputs)

    (output,) = Lazy().generate_outputs([CHAT])

    assert output["generations"] == ["Hello"]


def test_more_texts_than_were_asked_for_are_left_out_with_their_counts() -> None:
    given = {**counted(["a", "b", "c"], [7, 0, 0], [1, 2, 3]), "cut_off": [False, True, False]}

    (output,) = LocalGiving(given=given).generate_outputs([CHAT], num_generations=2)

    assert output == {**counted(["a", "b"], [7, 0], [1, 2]), "cut_off": [False, True]}


def test_too_few_texts_of_an_engine_are_named() -> None:
    (output,) = LocalGiving(given=["a"]).generate_outputs([CHAT], num_generations=2)

    assert output.get("error", {}).get("message") == "LocalGiving.generate was asked for 2 generations and gave 1"


class Vectors(Embeddings):
    # Not written down: half a character is refused in what is.
    given: Any = Field(default=None, exclude=True)

    @property
    def model_name(self) -> str:
        return "vectors"

    def encode(self, inputs: list[str]) -> Any:
        return self.given


@pytest.mark.parametrize(
    "given",
    [[[1, 2.5], [3.0, 4.0]], np.array([[1, 2.5], [3, 4]]), [np.array([1, 2.5]), (3, 4)]],
    ids=["lists", "2d", "mixed"],
)
def test_vectors_of_any_numbers_are_taken(given: Any) -> None:
    outputs = Vectors(given=given).generate_outputs(["a", "b"])

    assert [output.get("embeddings") for output in outputs] == [[[1.0, 2.5]], [[3.0, 4.0]]]


def test_a_vector_that_is_none_fails_its_text_alone() -> None:
    first, second = Vectors(given=[None, [1.0]]).generate_outputs(["a", "b"])

    assert first.get("error", {}).get("message", "").startswith("Vectors.encode: a vector is no list, but None")
    assert second.get("embeddings") == [[1.0]]


class Pictures(ImageGenerationModel):
    # Not written down: half a character is refused in what is.
    given: Any = Field(default=None, exclude=True)

    @property
    def model_name(self) -> str:
        return "pictures"

    def generate_images(self, inputs: list[str], num_generations: int = 1) -> Any:
        return self.given


def test_an_image_alone_is_taken_and_what_is_none_fails_its_prompt_alone() -> None:
    first, second = Pictures(given=[b"<svg/>", ["<svg/>"]]).generate_outputs(["a", "b"])

    assert first["generations"] == ["PHN2Zy8+"]
    assert second.get("error", {}).get("message") == (
        "Pictures.generate_images gave ['<svg/>'] for a prompt; expected a list of images as the bytes of a file"
    )


class Misnamed(Giving):
    """Its argument has another name than `agenerate` is called with."""

    async def agenerate(self, chat: Any, num_generations: int = 1) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ["never"]


class Direct(Giving):
    """It isn't asynchronous, and needn't be."""

    def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        return ["direct"]


class Mistaken(Giving):
    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        return {"texts": ["a"]}["generations"]


def test_an_agenerate_that_is_no_coroutine_is_taken_as_it_is() -> None:
    assert Direct().generate_outputs([CHAT])[0]["generations"] == ["direct"]


def test_arguments_of_another_name_are_told_with_those_it_is_called_with() -> None:
    message = Misnamed().generate_outputs([CHAT])[0]["error"]["message"]

    assert "Misnamed.agenerate() got an unexpected keyword argument 'input'" in message
    assert "it's called with `input`, `num_generations`" in message


def test_a_mistake_in_an_own_model_is_told_with_its_place() -> None:
    async def failure() -> str:
        with pytest.raises(KeyError) as raised:
            await Mistaken().answer(CHAT)
        return failure_of(raised.value)["message"]

    assert re.fullmatch(r"'generations' \(in agenerate, test_outputs\.py, line \d+\)", asyncio.run(failure()))


def test_what_an_error_says_by_itself_stands_alone() -> None:
    for error in (ValueError("expected a text, got None"), KeyError("not raised anywhere")):
        assert failure_of(error)["message"] == str(error)
