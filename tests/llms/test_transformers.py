"""Language models by Transformers, in this process: a tiny model that is made here answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from flows.ledger import question_of, space_of
from llms import AnyLLM, ModelNotFoundError, TransformersLLM
from llms.extras import MissingPackageError
from llms.typing import FormattedInput, GenerateOutput
from tasks import Magpie, TextGeneration
from tests.conftest import ROOT
from tests.llms.tiny_model import CONTEXT, QUESTION

OTHER: Any = [{"role": "user", "content": "Tell me of foxes, of brown ones, and how quick they are."}]
LONG = "fox " * CONTEXT
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
NUMBER = {"type": "integer", "minimum": 10, "maximum": 99}


def test_without_the_package_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    way_out = r"needs torch: .* -m pip install '(accelerate.*transformers>=|stillflow\[transformers\])"
    with pytest.raises(MissingPackageError, match=way_out):
        TransformersLLM(model="some/model").load()


def test_a_form_may_choose_it() -> None:
    given = {"provider": "transformers", "model": "m", "generation_kwargs": {"temperature": "0.5"}}
    made = TypeAdapter[Any](AnyLLM).validate_python(given)
    assert isinstance(made, TransformersLLM) and made.generation_kwargs == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("changes", "asks_anew"),
    [
        ({"device": "cuda:1", "device_map": "auto", "input_batch_size": 2, "token": "hf_secret"}, False),
        ({"generation_kwargs": {"max_new_tokens": 7}}, False),
        ({"generation_kwargs": {"seed": 7}}, True),
        ({"revision": "v2"}, True),
        ({"dtype": "float16"}, True),
        ({"chat_template": "{{ messages }}"}, True),
        ({"model_kwargs": {"quantization_config": {"load_in_4bit": True}}}, True),
        ({"structured_output": CITY}, True),
    ],
)
def test_what_decides_the_answer_asks_anew_and_what_says_only_how_fast_doesnt(
    changes: dict[str, Any], asks_anew: bool
) -> None:
    one, other = TransformersLLM(model="m"), TransformersLLM(model="m", **changes)
    differs = (space_of(one), question_of(one, QUESTION, 1)) != (space_of(other), question_of(other, QUESTION, 1))
    assert differs == asks_anew


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> TransformersLLM:
    llm = TransformersLLM(model=str(tiny_model), device="cpu", generation_kwargs={"max_new_tokens": 40})
    llm.load()
    return llm


def texts_of(outputs: list[GenerateOutput]) -> list[list[str | None]]:
    return [output["generations"] for output in outputs]


def test_the_likeliest_answer_to_a_chat_has_its_thoughts_beside_it_and_its_tokens_counted(llm: TransformersLLM) -> None:
    [output] = llm.generate_outputs([QUESTION], temperature=0)
    assert output["generations"] == ["Madrid."] and output.get("reasoning") == ["Iberia."]
    assert output.get("finish_reasons") == ["stop"] and "cut_off" not in output
    tokenizer = llm.loaded().tokenizer
    asked = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    said = tokenizer("<think>Iberia.</think>Madrid.<|im_end|>")["input_ids"]
    assert output["statistics"] == {"input_tokens": [len(asked)], "output_tokens": [len(said)]}


def test_the_likeliest_texts_are_those_of_the_library_whatever_is_asked_beside_them(llm: TransformersLLM) -> None:
    import torch

    inputs: list[FormattedInput] = ["The quick", OTHER, "Spain is"]
    together = texts_of(llm.generate_outputs(inputs, temperature=0, repetition_penalty=1.3))
    engine = llm.loaded()
    for place in (0, 2):
        tokens = engine.tokenizer(inputs[place], add_special_tokens=True, return_tensors="pt")["input_ids"]
        whole = engine.model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, repetition_penalty=1.3, max_new_tokens=40
        )
        assert together[place] == [engine.tokenizer.decode(whole[0, tokens.shape[1] :], skip_special_tokens=True)]


def test_a_seed_gives_the_same_texts_alone_and_among_others_and_one_of_each_generation(llm: TransformersLLM) -> None:
    wanted = {"seed": 3, "temperature": 2.0, "stop": ["\x00"]}
    [alone] = texts_of(llm.generate_outputs([OTHER], 3, **wanted))
    assert texts_of(llm.generate_outputs(["The", OTHER, QUESTION], 3, **wanted))[1] == alone
    assert len(set(alone)) == 3
    assert texts_of(llm.generate_outputs([OTHER], 3, **{**wanted, "seed": 4})) != [alone]
    assert texts_of(llm.generate_outputs([OTHER], 3, temperature=2.0)) != [alone]


def test_sampling_from_one_token_is_the_likeliest_text(llm: TransformersLLM) -> None:
    likeliest = texts_of(llm.generate_outputs([OTHER], temperature=0))
    for one in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        assert texts_of(llm.generate_outputs([OTHER], temperature=2.0, **one)) == likeliest


class Counted(TransformersLLM):
    """Notes how many inputs came with each call."""

    calls: list[int] = []

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> Any:
        self.calls.append(len(inputs))
        return super().generate(inputs, num_generations, **kwargs)


def test_inputs_of_different_schemas_are_answered_in_one_call_and_each_fits_its_own(tiny_model: Path) -> None:
    llm = Counted(model=str(tiny_model), device="cpu", structured_output=NUMBER)
    outputs = llm.generate_outputs([(QUESTION, CITY), OTHER, (OTHER, {"type": "string", "maxLength": 3})], 2)
    cities, numbers, strings = [[json.loads(str(text)) for text in texts] for texts in texts_of(outputs)]
    assert all(city["city"] in {"Rome", "Oslo"} for city in cities)
    assert all(10 <= number <= 99 for number in numbers) and all(len(text) <= 3 for text in strings)
    assert llm.calls == [3]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"regex": "[a-f]{3,5}!"}, "[a-f]{3,5}!"),
        ({"choice": ['say "yes"', "no"]}, 'say "yes"|no'),
        ({"grammar": 'start: "x" "y"+ "z"'}, "xy+z"),
    ],
)
def test_an_answer_is_held_to_a_form(llm: TransformersLLM, wanted: dict[str, Any], fits: str) -> None:
    [output] = llm.generate_outputs([OTHER], 3, **wanted)
    assert all(re.fullmatch(fits, str(text)) for text in output["generations"])
    assert output.get("finish_reasons") == ["stop"] * 3


def test_what_cant_be_asked_fails_alone_and_says_why(llm: TransformersLLM) -> None:
    picture: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]}]
    lost = {"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}}
    outputs = llm.generate_outputs([LONG, QUESTION, picture, (QUESTION, lost), [], OTHER], 2, temperature=0)
    kinds = [output["error"]["type"] if "error" in output else "" for output in outputs]
    assert kinds == ["ContextLengthError", "", "BadRequestError", "BadRequestError", "BadRequestError", ""]
    assert outputs[1]["generations"] == ["Madrid."] * 2
    assert f"takes {CONTEXT} with its answer" in outputs[0].get("error", {"message": ""})["message"]


def test_an_answer_ends_at_its_limit_or_where_the_context_does_and_says_so(llm: TransformersLLM) -> None:
    wanted = {"regex": "[a-z]{3000}", "temperature": 0}
    for most in (9, 4 * CONTEXT):
        outputs = llm.generate_outputs(["The", "fox " * 50], max_new_tokens=most, **wanted)
        assert [(each.get("finish_reasons"), each.get("cut_off")) for each in outputs] == [(["length"], [True])] * 2
        counts = [each["statistics"] for each in outputs]
        if most == 9:
            assert [each["output_tokens"] for each in counts] == [[9], [9]]
        else:
            assert [each["input_tokens"][0] + each["output_tokens"][0] for each in counts] == [CONTEXT] * 2


def test_a_stop_string_ends_the_text_before_it_even_where_it_is_a_special_token(llm: TransformersLLM) -> None:
    [output] = llm.generate_outputs([QUESTION], temperature=0, stop=["adr"])
    assert (output["generations"], output.get("finish_reasons")) == (["M"], ["stop"])
    wanted = {"grammar": 'start: "ab" <|im_start|> "cd"', "temperature": 0}
    [whole] = llm.generate_outputs([OTHER], **wanted)
    [ended] = llm.generate_outputs([OTHER], **wanted, stop=["<|im_start|>"])
    assert whole["generations"] == ["abcd"] and ended["generations"] == ["ab"]


def test_an_answer_that_an_assistant_has_begun_is_gone_on_with(llm: TransformersLLM) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "<think>Iberia.</think>Ma"}]
    assert texts_of(llm.generate_outputs([begun], temperature=0)) == [["drid."]]


def test_another_chat_template_is_used_and_thoughts_that_it_opens_are_known(tiny_model: Path) -> None:
    thinking = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    llm = TransformersLLM(
        model=str(tiny_model), device="cpu", chat_template=thinking + "<|im_start|>assistant\n<think>"
    )
    [output] = llm.generate_outputs([QUESTION], temperature=0)
    assert (output["generations"], output.get("reasoning")) == (["Madrid."], ["Iberia."])
    refusing = TransformersLLM(
        model=str(tiny_model), device="cpu", chat_template="{{ raise_exception('no system prompts') }}"
    )
    [output] = refusing.generate_outputs([QUESTION])
    assert "no system prompts" in output.get("error", {"message": ""})["message"]


def test_hidden_states_are_those_of_each_chat_alone(llm: TransformersLLM) -> None:
    import torch

    engine = llm.loaded()
    for chat, states in zip([QUESTION, OTHER], llm.get_last_hidden_state([QUESTION, OTHER]), strict=True):
        text = engine.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        tokens = engine.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            alone = engine.model(input_ids=tokens, output_hidden_states=True).hidden_states[-1][0]
        assert torch.allclose(torch.tensor(states), alone, atol=1e-4)


def test_llms_of_the_same_settings_share_what_is_loaded_until_the_last_is_unloaded(tiny_model: Path) -> None:
    one = TransformersLLM(model=str(tiny_model), device="cpu", dtype="float32")
    other = one.merged({"generation_kwargs": {"temperature": 0.5}})
    third = TransformersLLM(model=str(tiny_model), device="cpu", dtype="bfloat16")
    for each in (one, other, third):
        each.load()
    weights = weakref.ref(one.loaded().model)
    assert other.loaded().model is weights() and third.loaded().model is not weights()
    one.unload()
    assert weights() is not None
    other.unload()
    assert weights() is None


def test_a_model_that_isnt_there_says_so(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra `transformers`")
    with pytest.raises(ModelNotFoundError, match="can't be loaded"):
        TransformersLLM(model=str(tmp_path / "nothing")).load()


def test_tasks_work_with_it_those_of_bare_prompts_too(llm: TransformersLLM) -> None:
    greedy = llm.with_generation_kwargs({"temperature": 0})
    task = TextGeneration(name="text", llm=greedy, system_prompt="Be brief.", add_reasoning=True)
    task.load()
    [row] = next(task.process([{"instruction": "The capital of Spain?"}]))
    assert (row["generation"], row["reasoning"]) == ("Madrid.", "Iberia.")
    sampling = llm.with_generation_kwargs({"temperature": 1.5, "seed": 1, "stop": ["<|im_end|>"]})
    magpie = Magpie(name="magpie", llm=sampling, chat_template="qwen2", only_instruction=True)
    magpie.load()
    [row] = next(magpie.process([{}]))
    assert row["instruction"]


SCARCE = """
import logging, resource, sys
import torch
from llms import TransformersLLM

torch.set_num_threads(1)
logging.basicConfig(level="WARNING", stream=sys.stdout)
llm = TransformersLLM(model=sys.argv[1], device="cpu", input_batch_size=512)
wanted = {"temperature": 0, "max_new_tokens": 2}
[alone] = llm.generate_outputs(["fox " * 50], **wanted)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
outputs = llm.generate_outputs(["fox " * 50] * 512, **wanted)
print("same" if [each["generations"] for each in outputs] == [alone["generations"]] * 512 else outputs[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS, by which memory runs out here, holds on Linux alone")
def test_where_the_memory_isnt_enough_fewer_are_written_at_once_and_all_are_answered(tiny_model: Path) -> None:
    command = [sys.executable, "-c", SCARCE, str(tiny_model), "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.rstrip().endswith("same"), done.stdout + done.stderr
    assert "isn't enough for 512 texts at once; 256 from now on" in done.stdout
