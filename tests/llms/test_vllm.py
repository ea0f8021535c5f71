"""Language models by vLLM, in this process: where it's installed, a tiny model that is made here answers."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from flows.ledger import question_of, space_of
from llms import AnyLLM, vLLM
from llms.extras import MissingPackageError
from tests.llms.tiny_model import CONTEXT, QUESTION

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
NUMBER = {"type": "integer", "minimum": 10, "maximum": 99}


def test_without_the_package_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingPackageError, match=r"vLLM needs vllm: .* -m pip install '(vllm>=|stillflow\[vllm\])"):
        vLLM(model="some/model").load()


def test_a_form_may_choose_it() -> None:
    made = TypeAdapter[Any](AnyLLM).validate_python({"provider": "vllm", "model": "m", "quantization": "fp8"})
    assert isinstance(made, vLLM) and made.quantization == "fp8"


@pytest.mark.parametrize(
    ("changes", "asks_anew"),
    [
        ({"tensor_parallel_size": 4, "gpu_memory_utilization": 0.5, "max_model_len": 9, "input_batch_size": 2}, False),
        ({"generation_kwargs": {"max_new_tokens": 7}}, False),
        ({"quantization": "fp8"}, True),
        ({"generation_kwargs": {"min_p": 0.1}}, True),
    ],
)
def test_what_decides_the_answer_asks_anew_and_what_says_only_how_fast_doesnt(
    changes: dict[str, Any], asks_anew: bool
) -> None:
    one, other = vLLM(model="m"), vLLM(model="m", **changes)
    differs = (space_of(one), question_of(one, QUESTION, 1)) != (space_of(other), question_of(other, QUESTION, 1))
    assert differs == asks_anew


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> vLLM:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs the extra `vllm`: 3.3 GB, which the locks of tests leave out")
    folder: Path = request.getfixturevalue("tiny_model")
    environment = pytest.MonkeyPatch()
    # Within this process, and with little memory where there's no GPU.
    environment.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    request.addfinalizer(environment.undo)
    llm = vLLM(
        model=str(folder),
        dtype="float32",
        extra_kwargs={"enforce_eager": True},
        generation_kwargs={"max_new_tokens": 40},
    )
    llm.load()
    return llm


@pytest.mark.slow
def test_the_likeliest_answer_to_a_chat_has_its_thoughts_beside_it_and_its_tokens_counted(llm: vLLM) -> None:
    [output] = llm.generate_outputs([QUESTION], 2, temperature=0)
    assert output["generations"] == ["Madrid."] * 2 and output.get("reasoning") == ["Iberia."] * 2
    assert output.get("finish_reasons") == ["stop"] * 2
    tokenizer = llm.loaded().tokenizer
    asked = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    said = len(tokenizer("<think>Iberia.</think>Madrid.<|im_end|>")["input_ids"])
    assert output["statistics"] == {"input_tokens": [len(asked), 0], "output_tokens": [said, said]}


@pytest.mark.slow
def test_schemas_of_a_call_are_held_and_what_cant_be_asked_fails_alone(llm: vLLM) -> None:
    lost = {"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}}
    outputs = llm.generate_outputs(
        [(QUESTION, CITY), "x" * 2 * CONTEXT, (QUESTION, NUMBER), (QUESTION, lost)], 2, max_new_tokens=200, seed=1
    )
    assert all(json.loads(str(text))["city"] in {"Rome", "Oslo"} for text in outputs[0]["generations"])
    assert all(10 <= json.loads(str(text)) <= 99 for text in outputs[2]["generations"])
    kinds = [output["error"]["type"] if "error" in output else "" for output in outputs]
    assert kinds == ["", "ContextLengthError", "", "BadRequestError"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "fits"),
    [({"regex": "[a-f]{3,5}!"}, "[a-f]{3,5}!"), ({"choice": ["yes", "no"]}, "yes|no")],
)
def test_an_answer_is_held_to_a_form(llm: vLLM, wanted: dict[str, Any], fits: str) -> None:
    [output] = llm.generate_outputs([QUESTION], 2, **wanted)
    assert all(re.fullmatch(fits, str(text)) for text in output["generations"])


@pytest.mark.slow
def test_an_answer_ends_at_its_limit_at_a_stop_string_and_at_a_special_token(llm: vLLM) -> None:
    [cut] = llm.generate_outputs([QUESTION], max_new_tokens=9, regex="[a-z]{90}")
    assert (cut.get("finish_reasons"), cut.get("cut_off")) == (["length"], [True])
    assert cut["statistics"]["output_tokens"] == [9]
    [output] = llm.generate_outputs([QUESTION], temperature=0, stop=["adr"])
    assert (output["generations"], output.get("finish_reasons")) == (["M"], ["stop"])
    [turn] = llm.generate_outputs(
        ["<|im_start|>assistant\n<think>Iberia.</think>Madrid."], temperature=0, stop="<|im_end|>"
    )
    assert turn.get("finish_reasons") == ["stop"]


@pytest.mark.slow
def test_a_seed_gives_the_same_texts_and_one_of_each_generation(llm: vLLM) -> None:
    wanted = {"seed": 3, "temperature": 2.0}
    first, again = (llm.generate_outputs(["The"], 3, **wanted)[0]["generations"] for _ in range(2))
    assert first == again and len(set(first)) == 3
