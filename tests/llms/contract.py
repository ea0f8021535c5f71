"""What every adapter keeps to, seen from outside, against a stand-in with the provider's own wire.

A check is a function of an adapter's class and of the stand-in; `CHECKS` has them by what they show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from typing import Any, TypeAlias

import pytest
from pydantic import TypeAdapter

from llms import AnyLLM, AuthenticationError, LLMError, ModelNotFoundError, QuotaExceededError
from llms.base import NOT_PARAMETERS, AsyncLLM
from llms.parameters import ParameterError, import_path, signature_model
from llms.registry import LLM_VARIANTS
from llms.typing import GenerateOutput
from tests.llms.wires import KEY, Fault, Saying, StandIn, Wire

CHAT: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me about the sea."}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"height": {"type": "integer"}},
    "required": ["height"],
    "additionalProperties": False,
}
SAMPLES: dict[str, Any] = {
    "max_new_tokens": 64,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["END"],
    "seed": 7,
    "top_logprobs": 2,
    "num_ctx": 4096,
    "stop_token_ids": [2],
    "extra_body": {},
}
"""Values of parameters. Of others, the first that their type allows."""


@dataclass(frozen=True)
class Adapter:
    """An adapter, the wire of its provider, and what has to be there beside the model's name."""

    kind: type[AsyncLLM]
    wire: Wire
    key: str = ""
    """The variable with the key, by the provider's documents. Empty: it needs none."""
    base: str = ""
    """The address below the server's root that is given to it."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    needs: str = ""
    """A package that it needs, which the tests' own requirements don't have."""

    def at(self, server: StandIn, **more: Any) -> AsyncLLM:
        return self.made(base_url=f"{server.root}{self.base}", api_key=KEY, **more)

    def made(self, **more: Any) -> AsyncLLM:
        kind: Any = self.kind
        return kind(**{"model": "m", **self.fields, **more})


Check: TypeAlias = Callable[[Adapter, StandIn], None]


def answered(adapter: Adapter, server: StandIn, times: int = 1, given: Any = CHAT, **parameters: Any) -> GenerateOutput:
    (output,) = adapter.at(server).generate_outputs(inputs=[given], num_generations=times, **parameters)
    return output


def failed(adapter: Adapter, server: StandIn) -> tuple[str, str]:
    """Of the error: its type and its message."""
    output = answered(adapter, server)
    assert output["generations"] == [None]
    error = output.get("error")
    assert error is not None
    return error["type"], error["message"]


def check_a_chat(adapter: Adapter, server: StandIn) -> None:
    output = answered(adapter, server)

    assert (output["generations"], output["statistics"]["input_tokens"]) == (["Fine."], [100])
    assert output["statistics"]["output_tokens"] == [20]
    assert not {"cut_off", "unfinished", "reasoning", "error"} & set(output)
    (asked,) = server.asked
    assert server.wire.key_in(asked.headers) == KEY
    assert server.wire.model_in(asked) == "m"
    assert server.wire.system(asked.body) == "Be brief."
    assert server.wire.prompt(asked.body) == "Tell me about the sea."


def check_the_chat_stays_as_it_was(adapter: Adapter, server: StandIn) -> None:
    given = [dict(message) for message in CHAT]
    answered(adapter, server, given=(given, SCHEMA) if adapter.wire.schema else given)

    assert given == CHAT


def check_parameters_go_by_the_names_that_the_provider_has(adapter: Adapter, server: StandIn) -> None:
    answered(adapter, server, max_new_tokens=64, temperature=0.5, top_p=0.9)

    sent = server.wire.parameters(server.body)
    assert {"temperature": 0.5, server.wire.top_p: 0.9, server.wire.tokens: 64}.items() <= sent.items()


def check_text_that_ends_an_answer(adapter: Adapter, server: StandIn) -> None:
    if "stop" not in known_parameters(adapter):
        with pytest.raises(ParameterError, match="has no parameter 'stop'"):
            answered(adapter, server, stop=["END"])
        return
    answered(adapter, server, stop=["END"])

    assert server.wire.parameters(server.body)[server.wire.stop] == ["END"]


def check_a_seed(adapter: Adapter, server: StandIn) -> None:
    if not server.wire.seed:
        with pytest.raises(ParameterError, match="has no parameter 'seed'"):
            answered(adapter, server, seed=7)
        return
    answered(adapter, server, seed=7)

    assert server.wire.parameters(server.body)[server.wire.seed] == 7


def check_what_it_declares_its_provider_takes(adapter: Adapter, server: StandIn) -> None:
    for name in known_parameters(adapter):
        server.asked.clear()
        output = answered(adapter, server, **{name: sample(adapter, name)})
        assert output["generations"] == ["Fine."], name
        assert "error" not in output, (name, output.get("error"))


def check_a_name_that_another_library_has_is_refused_with_its_own(adapter: Adapter, server: StandIn) -> None:
    with pytest.raises(ParameterError, match="Here it is 'max_new_tokens'"):
        answered(adapter, server, max_tokens=5)


def check_several_answers(adapter: Adapter, server: StandIn) -> None:
    output = answered(adapter, server, 3, **({"seed": 7} if server.wire.seed else {}))

    assert output["generations"] == ["Fine."] * 3
    if server.wire.several:
        assert server.wire.count(server.body) == 3
        return
    assert len(server.asked) == 3
    if seed := server.wire.seed:
        seeds = [server.wire.parameters(each.body)[seed] for each in server.asked]
        assert sorted(seeds) == [7, 8, 9]


def check_a_schema(adapter: Adapter, server: StandIn) -> None:
    if not adapter.wire.schema:
        assert not adapter.kind.takes_structured_output()
        return
    output = answered(adapter, server, given=(CHAT, SCHEMA))

    assert output["generations"] == ["Fine."]
    assert server.wire.schema_in(server.body) == SCHEMA


def check_a_bare_prompt_is_taken_or_refused_before_it_is_sent(adapter: Adapter, server: StandIn) -> None:
    if getattr(adapter.kind, "takes_prompts", True):
        return
    output = answered(adapter, server, given="Once upon")

    assert output.get("error", {"message": ""})["message"].startswith(f"{adapter.kind.__name__} takes chats")
    assert server.asked == []


def check_an_answer_that_was_cut_off(adapter: Adapter, server: StandIn) -> None:
    server.saying = Saying("Fi", end=server.wire.cut)
    output = answered(adapter, server)

    assert (output["generations"], output.get("cut_off")) == (["Fi"], [True])
    assert output.get("finish_reasons") == [server.wire.cut]


def check_an_end_that_nobody_knows_is_not_taken_for_whole(adapter: Adapter, server: StandIn) -> None:
    server.saying = Saying(end="a-word-of-next-year")

    assert answered(adapter, server).get("unfinished") == [True]


def check_an_answer_that_was_withheld(adapter: Adapter, server: StandIn) -> None:
    if not server.wire.withheld:
        return
    server.saying = Saying(None, end=server.wire.withheld)

    assert failed(adapter, server)[0] == "ContentFilterError"
    assert len(server.asked) == 1


def check_thoughts_alone_are_asked_once_with_what_they_cost(adapter: Adapter, server: StandIn) -> None:
    server.saying = Saying(None, thoughts="Waves.", end=server.wire.cut)
    output = answered(adapter, server)

    error = output.get("error")
    assert error is not None
    assert (error["type"], len(server.asked)) == ("EmptyAnswerError", 1)
    assert "max_new_tokens" in error["message"]
    assert [each["output_tokens"] for each in output.get("usage", [])] == [20]


def check_thoughts_stand_beside_the_answer(adapter: Adapter, server: StandIn) -> None:
    server.saying = Saying(thoughts="Waves, tides.")
    output = answered(adapter, server)

    assert (output["generations"], output.get("reasoning")) == (["Fine."], ["Waves, tides."])


def check_usage_with_its_parts(adapter: Adapter, server: StandIn) -> None:
    server.saying = Saying(prompt=100, written=20, cached=60, thought=15)
    (usage,) = answered(adapter, server).get("usage", [])

    expected: dict[str, Any] = {"input_tokens": 100, "output_tokens": 20}
    expected |= {"cached_tokens": 60} if server.wire.cached else {}
    expected |= {"reasoning_tokens": 15} if server.wire.thought else {}
    assert {name: usage.get(name) for name in expected} == expected
    assert not {"cached_tokens", "reasoning_tokens"} & (set(usage) - set(expected))


def check_a_request_that_is_refused_is_sent_once(adapter: Adapter, server: StandIn) -> None:
    for status in (400, 422):
        server.asked.clear()
        server.always = Fault(status, "that is no temperature")
        kind, said = failed(adapter, server)
        assert (kind, len(server.asked)) == ("BadRequestError", 1)
        assert "that is no temperature" in said


def check_a_prompt_that_is_too_long(adapter: Adapter, server: StandIn) -> None:
    server.always = Fault(400, server.wire.too_long)

    assert failed(adapter, server)[0] == "ContextLengthError"


def check_what_no_other_request_can_do_better_stops_the_run(adapter: Adapter, server: StandIn) -> None:
    fatal: Sequence[tuple[int, type[LLMError]]] = (
        (401, AuthenticationError),
        (402, QuotaExceededError),
        (403, AuthenticationError),
        (404, ModelNotFoundError),
    )
    for status, kind in fatal:
        server.always = Fault(status, "not with me")
        with pytest.raises(kind, match="not with me"):
            answered(adapter, server)


def check_failures_that_pass_are_sent_again(adapter: Adapter, server: StandIn) -> None:
    html = b"<html><body>Bad gateway</body></html>"
    passing = {
        "overloaded": Fault(500),
        "away": Fault(503),
        "cut": Fault(cut=True),
        "a page": Fault(502, content=html),
        "not JSON": Fault(200, content=html),
        "empty": Fault(200, content=b""),
    }
    for name, fault in passing.items():
        server.asked.clear()
        server.faults = [fault]
        output = answered(adapter, server)
        assert (output["generations"], len(server.asked)) == (["Fine."], 2), (name, output)


def check_key(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the provider's own variable, and its absence is told with it."""
    if not adapter.key:
        return
    monkeypatch.delenv(adapter.key, raising=False)
    with pytest.raises(AuthenticationError, match=rf"set {adapter.key}\b"):
        adapter.made().load()
    monkeypatch.setenv(adapter.key, KEY)
    adapter.made().load()


def check_waits(adapter: Adapter, server: StandIn, waits: list[float]) -> None:
    """A provider that says how long to wait is waited for, in seconds and until a date."""
    server.faults = [Fault(429, headers={"Retry-After": "0.25"})]
    assert answered(adapter, server)["generations"] == ["Fine."]
    assert any(wait >= 0.2 for wait in waits), waits

    waits.clear()
    # A date has whole seconds: so has the clock that it's compared with.
    now = datetime.now(UTC).replace(microsecond=0)
    server.faults = [Fault(429, headers={"Retry-After": format_datetime(now + timedelta(seconds=1), usegmt=True)})]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("llms.reading.datetime", stopped_at(now))
        assert answered(adapter, server)["generations"] == ["Fine."]
    assert any(1.0 <= wait <= 1.1 for wait in waits), waits


def stopped_at(time: datetime) -> type[datetime]:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
            return time.astimezone(tz)

    return Stopped


def check_registry(adapter: Adapter, server: StandIn) -> None:
    """It's found by its name, written down and read again, with the same question."""
    llm = adapter.at(server)
    fields = TypeAdapter(AnyLLM).dump_python(llm, mode="json")

    assert KEY not in str(fields)
    assert LLM_VARIANTS.ours[llm.provider] == import_path(adapter.kind)
    again = TypeAdapter(AnyLLM).validate_python(fields)
    assert type(again) is adapter.kind
    assert again.identity() == llm.identity()
    assert re.fullmatch(r"[a-z0-9-]+", llm.provider)
    assert adapter.kind.form_title


def known_parameters(adapter: Adapter) -> list[str]:
    return list(signature_model(adapter.kind.generating_function(), NOT_PARAMETERS).model_fields)


def sample(adapter: Adapter, name: str) -> Any:
    """A value that the parameter takes."""
    if name in SAMPLES:
        return SAMPLES[name]
    schema = signature_model(adapter.kind.generating_function(), NOT_PARAMETERS).model_json_schema()
    given = schema["properties"][name]
    (variant, *_) = [each for each in given.get("anyOf", [given]) if each.get("type") != "null"]
    if "enum" in variant or "const" in variant:
        return variant.get("const", variant.get("enum", [None])[0])
    by_type: dict[str, Any] = {"boolean": True, "string": "low", "object": {}, "array": ["x"], "integer": 2}
    return by_type.get(variant["type"], 1.0)


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_") and name not in {"check_key", "check_waits"}
}
