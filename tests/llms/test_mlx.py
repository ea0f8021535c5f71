"""Language models by MLX, in this process: where it's installed, a tiny model that is made here answers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from flows.ledger import question_of, space_of
from llms import AnyLLM, MlxLLM
from llms.extras import MissingPackageError
from tests.llms.tiny_model import CONTEXT, QUESTION

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
NUMBER = {"type": "integer", "minimum": 10, "maximum": 99}


def test_without_the_package_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    way_out = r"MlxLLM needs mlx_lm: .* -m pip install .*'(mlx-lm>=|stillflow\[mlx\])"
    with pytest.raises(MissingPackageError, match=way_out):
        MlxLLM(model="some/model").load()


def test_a_form_may_choose_it() -> None:
    made = TypeAdapter[Any](AnyLLM).validate_python({"provider": "mlx", "model": "m", "adapter_path": "lora"})
    assert isinstance(made, MlxLLM) and made.adapter_path == "lora"


@pytest.mark.parametrize(
    ("changes", "asks_anew"),
    [
        ({"input_batch_size": 2, "token": "hf_secret"}, False),
        ({"generation_kwargs": {"max_new_tokens": 7}}, False),
        ({"adapter_path": "lora"}, True),
    ],
)
def test_what_decides_the_answer_asks_anew_and_what_says_only_how_fast_doesnt(
    changes: dict[str, Any], asks_anew: bool
) -> None:
    one, other = MlxLLM(model="m"), MlxLLM(model="m", **changes)
    differs = (space_of(one), question_of(one, QUESTION, 1)) != (space_of(other), question_of(other, QUESTION, 1))
    assert differs == asks_anew


@pytest.fixture(scope="module")
def llm(request: pytest.FixtureRequest) -> MlxLLM:
    pytest.importorskip("mlx_lm", reason="needs the extra `mlx`, which tests don't install: it's for Macs")
    folder: Path = request.getfixturevalue("tiny_model")
    llm = MlxLLM(model=str(folder), generation_kwargs={"max_new_tokens": 40})
    llm.load()
    return llm


def test_the_likeliest_answer_to_a_chat_has_its_thoughts_beside_it_and_its_tokens_counted(llm: MlxLLM) -> None:
    [output] = llm.generate_outputs([QUESTION], 2, temperature=0)
    assert output["generations"] == ["Madrid."] * 2 and output.get("reasoning") == ["Iberia."] * 2
    assert output.get("finish_reasons") == ["stop"] * 2
    tokenizer = llm.loaded().tokenizer
    asked = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    said = len(tokenizer("<think>Iberia.</think>Madrid.<|im_end|>")["input_ids"])
    assert output["statistics"] == {"input_tokens": [len(asked), 0], "output_tokens": [said, said]}


def test_schemas_of_a_call_are_held_and_what_cant_be_asked_fails_alone(llm: MlxLLM) -> None:
    lost = {"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}}
    outputs = llm.generate_outputs(
        [(QUESTION, CITY), "x" * 2 * CONTEXT, (QUESTION, NUMBER), (QUESTION, lost)], 2, max_new_tokens=200
    )
    assert all(json.loads(str(text))["city"] in {"Rome", "Oslo"} for text in outputs[0]["generations"])
    assert all(10 <= json.loads(str(text)) <= 99 for text in outputs[2]["generations"])
    kinds = [output["error"]["type"] if "error" in output else "" for output in outputs]
    assert kinds == ["", "ContextLengthError", "", "BadRequestError"]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [({"regex": "[a-f]{3,5}!"}, "[a-f]{3,5}!"), ({"choice": ["yes", "no"]}, "yes|no")],
)
def test_an_answer_is_held_to_a_form(llm: MlxLLM, wanted: dict[str, Any], fits: str) -> None:
    [output] = llm.generate_outputs([QUESTION], 2, **wanted)
    assert all(re.fullmatch(fits, str(text)) for text in output["generations"])


def test_an_answer_ends_at_its_limit_and_at_a_stop_string(llm: MlxLLM) -> None:
    [cut] = llm.generate_outputs([QUESTION], max_new_tokens=9, regex="[a-z]{90}")
    assert (cut.get("finish_reasons"), cut.get("cut_off")) == (["length"], [True])
    assert cut["statistics"]["output_tokens"] == [9]
    [ended, whole] = llm.generate_outputs([QUESTION, "Spain"], temperature=0, stop=["adr"])
    assert (ended["generations"], ended.get("finish_reasons")) == (["M"], ["stop"])
    assert whole["generations"] == llm.generate_outputs(["Spain"], temperature=0, stop=["adr"])[0]["generations"]


def test_a_seed_gives_the_same_texts_alone_and_among_others_and_one_of_each_generation(llm: MlxLLM) -> None:
    wanted = {"seed": 3, "temperature": 2.0}
    [alone] = llm.generate_outputs(["The"], 3, **wanted)
    assert llm.generate_outputs([QUESTION, "The"], 3, **wanted)[1]["generations"] == alone["generations"]
    assert len(set(alone["generations"])) == 3


def test_sampling_from_one_token_is_the_likeliest_text(llm: MlxLLM) -> None:
    likeliest = llm.generate_outputs(["The"], temperature=0)[0]["generations"]
    for one in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        assert llm.generate_outputs(["The"], temperature=2.0, **one)[0]["generations"] == likeliest
