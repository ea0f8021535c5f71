"""Stand-ins for providers on loopback, each with a wire of its own.

What a request may hold, and how an answer looks, is written down from the types of the provider's SDK and from its
documents, not from our adapters. A field that the SDK doesn't know is refused.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KEY = "key-of-a-test"


@dataclass(frozen=True)
class Saying:
    """What a model says, in no provider's form."""

    text: str | None = "Fine."
    thoughts: str = ""
    end: str = ""
    """The provider's word. Empty: that of a whole answer."""
    prompt: int = 100
    written: int = 20
    """The thoughts included."""
    cached: int = 0
    thought: int = 0


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What comes in place of an answer."""

    status: int = 0
    said: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    cut: bool = False


class Refused(Exception):
    """The stand-in doesn't take a request."""


@dataclass(frozen=True)
class Wire:
    """OpenAI's protocol as one provider has it."""

    fields: str
    """What a chat's body may hold beside `model`, `messages`, and what is common to all of them."""
    common: str = "temperature top_p stop response_format"
    path: str = "/v1/chat/completions"
    tokens: str = "max_tokens"
    top_p: str = "top_p"
    stop: str = "stop"
    seed: str = "seed"
    several: bool = True
    """Whether `n` may be more than 1."""
    thoughts: str = "reasoning_content"
    whole: str = "stop"
    cut: str = "length"
    withheld: str = "content_filter"
    cached: tuple[str, ...] = ("prompt_tokens_details", "cached_tokens")
    """Where usage has them; empty where it hasn't."""
    thought: tuple[str, ...] = ("completion_tokens_details", "reasoning_tokens")
    thought_beside: bool = False
    """Whether `completion_tokens` leaves out what was thought."""
    schema: str = "json_schema"
    too_long: str = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
    refusal: Callable[[int, str], Any] = lambda status, said: {
        "error": {"message": said, "type": "invalid_request_error", "code": None, "param": None}
    }

    def key_in(self, headers: Mapping[str, str]) -> str | None:
        """The key that came along."""
        return headers.get("Authorization", "").removeprefix("Bearer ")

    def model_in(self, asked: Asked) -> str:
        return asked.body["model"]

    def check(self, body: dict[str, Any]) -> None:
        """Raises Refused for what the provider doesn't take."""
        known = {"model", "messages", *self.common.split(), *self.fields.split()}
        if unknown := sorted(set(body) - known):
            raise Refused(f"Unrecognized request arguments: {', '.join(unknown)}")
        if not self.several and body.get("n", 1) != 1:
            raise Refused("'n' : number must be at most 1")

    def count(self, body: dict[str, Any]) -> int:
        return body.get("n", 1)

    def system(self, body: dict[str, Any]) -> str:
        return body["messages"][0]["content"]

    def prompt(self, body: dict[str, Any]) -> str:
        return body["messages"][-1]["content"]

    def parameters(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as the place of parameters."""
        return body

    def schema_in(self, body: dict[str, Any]) -> Any:
        """The schema that the provider would hold an answer to."""
        form = body["response_format"]
        if form["type"] != self.schema:
            raise Refused(f"This response_format type is unavailable: {form['type']}")
        return form["json_schema"]["schema"]

    def message(self, saying: Saying) -> dict[str, Any]:
        thoughts = {self.thoughts: saying.thoughts} if saying.thoughts else {}
        return {"role": "assistant", "content": saying.text, **thoughts}

    def usage(self, saying: Saying) -> dict[str, Any]:
        written = saying.written - (saying.thought if self.thought_beside else 0)
        usage: dict[str, Any] = {
            "prompt_tokens": saying.prompt,
            "completion_tokens": written,
            "total_tokens": saying.prompt + saying.written,
        }
        for place, number in ((self.cached, saying.cached), (self.thought, saying.thought)):
            if place and number:
                inner = usage
                for name in place[:-1]:
                    inner = inner.setdefault(name, {})
                inner[place[-1]] = number
        return usage

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        choices = [
            {
                "index": number,
                "finish_reason": saying.end or self.whole,
                "message": self.message(saying),
                "logprobs": None,
            }
            for number in range(self.count(body))
        ]
        return {
            "id": "c-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": choices,
            "usage": self.usage(saying),
        }


class StandIn:
    """`with StandIn(wire) as server:` answers every chat with `server.saying`, after the `server.faults` in a row."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.saying = Saying()
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    @property
    def body(self) -> dict[str, Any]:
        """That of the only request."""
        (asked,) = self.asked
        return asked.body

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self.say(*stand_in.reply(self.path, self.headers, content))

            def do_GET(self) -> None:
                self.say(*stand_in.got(self.path, self.headers))

            def do_DELETE(self) -> None:
                self.say(*stand_in.deleted(self.path, self.headers))

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self.say(*stand_in.put(self.path, self.headers, content))

            def say(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
                if status < 0:
                    # Closed with a reset, in the middle of nothing.
                    option = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, path: str, headers: Any, content: bytes) -> tuple[int, bytes, Mapping[str, str]]:
        if path != self.wire.path:
            return self._refused(404, f"no such address: {path}")
        body = json.loads(content)
        with self._lock:
            self.asked.append(Asked(path, headers, body))
            fault = self.faults.pop(0) if self.faults else self.always
        if fault is not None:
            if fault.cut:
                return -1, b"", {}
            if fault.content is not None:
                return fault.status or 200, fault.content, fault.headers
            return (*self._refused(fault.status, fault.said)[:2], fault.headers)
        if self.wire.key_in(headers) != KEY:
            return self._refused(401, "Incorrect API key provided.")
        try:
            self.wire.check(body)
        except Refused as refused:
            return self._refused(400, str(refused))
        return 200, json.dumps(self.wire.answer(body, self.saying)).encode(), {}

    def _refused(self, status: int, said: str) -> tuple[int, bytes, Mapping[str, str]]:
        return status, json.dumps(self.wire.refusal(status, said)).encode(), {}

    def got(self, path: str, headers: Any) -> tuple[int, bytes, Mapping[str, str]]:
        return self._refused(404, f"no such address: {path}")

    def deleted(self, path: str, headers: Any) -> tuple[int, bytes, Mapping[str, str]]:
        return self._refused(404, f"no such address: {path}")

    def put(self, path: str, headers: Any, content: bytes) -> tuple[int, bytes, Mapping[str, str]]:
        return self._refused(404, f"no such address: {path}")


OPENAI = "frequency_penalty presence_penalty n seed logprobs top_logprobs logit_bias user tools tool_choice"
"""Fields that most of them have of OpenAI's."""


class MistralWire(Wire):
    """mistralai 3.7: thoughts are parts of the content; `n`, but `random_seed`."""

    def message(self, saying: Saying) -> dict[str, Any]:
        if not saying.thoughts:
            return {"role": "assistant", "content": saying.text, "tool_calls": None}
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": saying.thoughts}]}
        text = [{"type": "text", "text": saying.text}] if saying.text is not None else []
        return {"role": "assistant", "content": [thinking, *text], "tool_calls": None}


# mistralai 3.7, client/models/chatcompletionrequest.py.
MISTRAL = MistralWire(
    fields="max_tokens random_seed metadata tools tool_choice presence_penalty frequency_penalty min_tokens top_k"
    " repetition_penalty logprobs top_logprobs prompt_logprobs n prediction parallel_tool_calls reasoning_effort"
    " prompt_mode guardrails prompt_cache_key service_tier safe_prompt",
    seed="random_seed",
    cut="model_length",
    withheld="",
    thought=(),
    too_long="Prompt contains 9000 tokens and 0 draft tokens, too large for model with 8192 maximum context length",
    refusal=lambda status, said: (
        {"detail": [{"type": "extra_forbidden", "loc": ["body"], "msg": said}]}
        if status == 422
        else {"object": "error", "message": said, "type": "invalid_request_error", "param": None, "code": "3051"}
    ),
)

# groq 1.7, types/chat/completion_create_params.py. The penalties and log probabilities in it "aren't supported yet".
GROQ = Wire(
    fields="max_completion_tokens max_tokens n seed tools tool_choice parallel_tool_calls user reasoning_effort"
    " reasoning_format include_reasoning service_tier metadata store disable_tool_validation",
    path="/openai/v1/chat/completions",
    tokens="max_completion_tokens",
    several=False,
    thoughts="reasoning",
    withheld="",
    too_long="Please reduce the length of the messages or completion.",
)

# together 3.1, types/chat/completion_create_params.py and chat_completion_usage.py: no parts of usage.
TOGETHER = Wire(
    fields="max_tokens chat_template_kwargs compliance context_length_exceeded_behavior echo frequency_penalty"
    " logit_bias logprobs min_p n presence_penalty reasoning reasoning_effort repetition_penalty safety_model seed"
    " tool_choice tools top_k",
    thoughts="reasoning",
    whole="eos",
    withheld="",
    cached=(),
    thought=(),
    too_long="Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193.",
)


class OllamaWire(Wire):
    """ollama 0.6, _types.py: parameters are options, an answer is one message with counts beside it."""

    options = (
        "num_ctx num_predict seed temperature top_k top_p min_p typical_p repeat_last_n repeat_penalty presence_penalty"
        " frequency_penalty mirostat mirostat_tau mirostat_eta stop num_gpu num_thread num_keep num_batch"
    )

    def check(self, body: dict[str, Any]) -> None:
        super().check(body)
        if unknown := sorted(set(body.get("options", {})) - set(self.options.split())):
            raise Refused(f"invalid option provided: {', '.join(unknown)}")
        if body.get("stream") is not False:
            raise Refused("the stand-in doesn't stream")

    def parameters(self, body: dict[str, Any]) -> dict[str, Any]:
        return body["options"]

    def schema_in(self, body: dict[str, Any]) -> Any:
        return body["format"]

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        thinking = {"thinking": saying.thoughts} if saying.thoughts else {}
        return {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": saying.text or "", **thinking},
            "done": True,
            "done_reason": saying.end or self.whole,
            "total_duration": 1,
            "prompt_eval_count": saying.prompt,
            "eval_count": saying.written,
        }


OLLAMA = OllamaWire(
    # `truncate` and `shift` stand in the server's api/types.go.
    fields="tools stream format keep_alive options think logprobs top_logprobs truncate shift",
    common="",
    path="/api/chat",
    tokens="num_predict",
    several=False,
    withheld="",
    cached=(),
    thought=(),
    too_long="the input length exceeds the context length",
    refusal=lambda status, said: {"error": said},
)


class JsonModeWire(Wire):
    """A provider that answers in JSON where the chat says so, and knows no schemas."""

    def schema_in(self, body: dict[str, Any]) -> Any:
        if body["response_format"] != {"type": "json_object"}:
            raise Refused("This response_format type is unavailable now")
        said = body["messages"][0]["content"]
        if "json" not in said.lower():
            raise Refused("Prompt must contain the word 'json'")
        return json.loads(said[said.index("{") :])


# openrouter 1.3, components/chatrequest.py and chatusage.py.
OPENROUTER = Wire(
    fields="frequency_penalty logit_bias logprobs max_completion_tokens max_tokens metadata min_p models"
    " parallel_tool_calls plugins prediction presence_penalty prompt_cache_key provider reasoning reasoning_effort"
    " repetition_penalty seed service_tier session_id tool_choice tools top_a top_k top_logprobs user",
    path="/api/v1/chat/completions",
    several=False,
    thoughts="reasoning",
)

# https://api-docs.deepseek.com/api/create-chat-completion, and thinking as inspect_ai and litellm send it.
DEEPSEEK = JsonModeWire(
    fields="max_tokens frequency_penalty presence_penalty tools tool_choice logprobs top_logprobs thinking"
    " reasoning_effort",
    path="/chat/completions",
    seed="",
    several=False,
    cached=("prompt_cache_hit_tokens",),
)

# fireworks-ai 1.2, types/chat/completion_create_params.py.
FIREWORKS = Wire(
    fields="context_length_exceeded_behavior echo frequency_penalty ignore_eos logit_bias logprobs max_tokens"
    " max_completion_tokens metadata min_p mirostat_lr mirostat_target n parallel_tool_calls prediction"
    " presence_penalty prompt_cache_key prompt_truncate_len reasoning_effort reasoning_history repetition_penalty"
    " seed service_tier thinking tool_choice tools top_k top_logprobs typical_p user",
    path="/inference/v1/chat/completions",
    withheld="",
    thought=(),
    too_long="The prompt is too long: 9000, model maximum context length: 8191",
)

# https://docs.x.ai/docs/api-reference#chat-completions; usage as in xai-sdk 1.21, proto usage.proto.
XAI = Wire(
    fields="frequency_penalty logprobs max_completion_tokens max_tokens n parallel_tool_calls presence_penalty"
    " reasoning_effort seed service_tier tool_choice tools top_logprobs user",
    thought_beside=True,
    withheld="",
    too_long="This model's maximum prompt length is 8192 but the request contains 9000 tokens.",
)

# cerebras-cloud-sdk 1.91, types/chat/completion_create_params.py and chat_completion.py.
CEREBRAS = Wire(
    fields="clear_thinking disable_reasoning frequency_penalty logit_bias logprobs max_completion_tokens max_tokens"
    " min_tokens n parallel_tool_calls prediction presence_penalty prompt_cache_key reasoning_effort reasoning_format"
    " seed service_tier tool_choice tools top_logprobs user",
    tokens="max_completion_tokens",
    thoughts="reasoning",
    too_long="Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
    refusal=lambda status, said: {"message": said, "type": "invalid_request_error", "param": "", "code": "wrong"},
)

# perplexityai 0.46, types/chat/completion_create_params.py and shared/usage_info.py.
PERPLEXITY = Wire(
    fields="max_tokens top_k frequency_penalty presence_penalty n disable_search search_mode search_domain_filter"
    " search_recency_filter reasoning_effort logprobs top_logprobs tools tool_choice web_search_options",
    path="/chat/completions",
    seed="",
    several=False,
    withheld="",
    cached=(),
    thought=("reasoning_tokens",),
)

# https://www.alibabacloud.com/help/en/model-studio/qwen-api-reference.
DASHSCOPE = Wire(
    fields="max_tokens top_k presence_penalty repetition_penalty seed n logprobs top_logprobs enable_thinking"
    " thinking_budget tools tool_choice enable_search",
    path="/compatible-mode/v1/chat/completions",
    several=False,
    withheld="",
    too_long="Range of input length should be [1, 30720]",
    refusal=lambda status, said: {
        "error": {"message": said, "type": "invalid_request_error", "param": None, "code": "InvalidParameter"},
        "request_id": "r",
    },
)

# https://platform.moonshot.ai/docs/api/chat; cached tokens stand in `usage` itself.
MOONSHOT = JsonModeWire(
    fields="max_tokens n frequency_penalty presence_penalty tools tool_choice thinking",
    seed="",
    cached=("cached_tokens",),
    thought=(),
    too_long="Invalid request: Your request exceeded model token limit: 8192",
)

# https://docs.bigmodel.cn/cn/api/api-code, one by each status. An empty account has 429 there.
ZAI_CODES = {400: "1210", 401: "1002", 402: "1113", 403: "1220", 404: "1211", 429: "1302", 503: "1234"}

# zai-sdk 0.2, api_resource/chat/completions.py and types/chat/chat_completion.py.
ZAI = JsonModeWire(
    fields="request_id user_id do_sample max_tokens seed sensitive_word_check tools tool_choice meta thinking"
    " watermark_enabled tool_stream reasoning_effort",
    path="/api/paas/v4/chat/completions",
    several=False,
    withheld="sensitive",
    cut="model_context_window_exceeded",
    too_long="Prompt exceeds the context window of the model",
    refusal=lambda status, said: {"error": {"code": ZAI_CODES.get(status, str(status)), "message": said}},
)

# https://docs.tokenfactory.nebius.com/api-reference: vLLM's.
NEBIUS = Wire(fields=f"{OPENAI} max_tokens top_k extra_body", withheld="")

# https://docs.deepinfra.com/api-reference/openai-chat-completions-1 and https://docs.deepinfra.com/chat/overview.
DEEPINFRA = JsonModeWire(
    fields="max_tokens min_p top_k n presence_penalty frequency_penalty repetition_penalty tools tool_choice user seed"
    " logprobs reasoning_effort reasoning prompt_cache_key chat_template_kwargs service_tier",
    path="/v1/openai/chat/completions",
    withheld="",
    refusal=lambda status, said: (
        {"detail": [{"loc": ["body"], "msg": said, "type": "value_error"}]}
        if status == 422
        else {"error": {"message": said}}
    ),
)

# https://docs.sambanova.ai/docs/api-reference/chat-completion.
SAMBANOVA = Wire(
    fields="max_tokens max_completion_tokens top_k tools tool_choice parallel_tool_calls reasoning_effort",
    seed="",
    several=False,
    thoughts="reasoning",
    withheld="",
)

# vllm 0.33, entrypoints/openai/chat_completion/protocol.py.
VLLM = Wire(
    fields=f"{OPENAI} max_tokens max_completion_tokens top_k min_p repetition_penalty min_tokens stop_token_ids"
    " bad_words allowed_token_ids prompt_logprobs chat_template chat_template_kwargs continue_final_message"
    " add_generation_prompt thinking_token_budget include_reasoning reasoning_effort priority cache_salt"
    " structured_outputs truncate_prompt_tokens",
    thoughts="reasoning",
    withheld="",
    refusal=lambda status, said: {"error": {"message": said, "type": "BadRequestError", "param": None, "code": status}},
)

# sglang 0.5, srt/entrypoints/openai/protocol.py.
SGLANG = Wire(
    fields=f"{OPENAI} max_tokens max_completion_tokens top_k min_p repetition_penalty min_tokens stop_token_ids regex"
    " ebnf chat_template_kwargs separate_reasoning stream_reasoning reasoning_effort ignore_eos lora_path"
    " return_hidden_states continue_final_message skip_special_tokens no_stop_trim",
    withheld="",
    thought=("reasoning_tokens",),
    too_long="The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    refusal=lambda status, said: {
        "object": "error",
        "message": said,
        "type": "BadRequestError",
        "param": None,
        "code": status,
    },
)

# llama.cpp, tools/server/README.md, and as xllamacpp 2026.10 answered.
LLAMA_SERVER = Wire(
    fields=f"{OPENAI} max_tokens top_k min_p repeat_penalty chat_template_kwargs grammar mirostat typical_p"
    " cache_prompt samplers",
    withheld="",
    thought=(),
    too_long="request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
    refusal=lambda status, said: {"error": {"code": status, "message": said, "type": "invalid_request_error"}},
)

# https://lmstudio.ai/docs/developer/openai-compat/chat-completions: its list of supported fields.
LM_STUDIO = Wire(
    fields="max_tokens top_k presence_penalty frequency_penalty logit_bias repeat_penalty seed tools",
    several=False,
    withheld="",
    cached=(),
    thought=(),
    too_long="The number of tokens to keep from the initial prompt is greater than the context length.",
    refusal=lambda status, said: {"error": said},
)


class ResponsesWire(Wire):
    """openai 3.57, types/responses: input and output are lists of items."""

    def system(self, body: dict[str, Any]) -> str:
        return body["input"][0]["content"]

    def prompt(self, body: dict[str, Any]) -> str:
        return body["input"][-1]["content"]

    def check(self, body: dict[str, Any]) -> None:
        super().check({**body, "messages": []})
        if body.get("store") is not False:
            raise Refused("the stand-in keeps nothing: `store` is true where it isn't said")

    def schema_in(self, body: dict[str, Any]) -> Any:
        form = body["text"]["format"]
        assert (form["type"], form["strict"]) == ("json_schema", True)
        return form["schema"]

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        thought = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": saying.thoughts}]}
        text: dict[str, Any] = {"type": "output_text", "text": saying.text, "annotations": [], "logprobs": []}
        said: dict[str, Any] = {
            "type": "message",
            "id": "msg",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
        end = saying.end or self.whole
        return {
            "id": "resp",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": "completed" if end == "stop" else "incomplete",
            "error": None,
            "incomplete_details": None if end == "stop" else {"reason": end},
            "output": [*([thought] if saying.thoughts else []), *([said] if saying.text is not None else [])],
            "parallel_tool_calls": True,
            "service_tier": "default",
            "usage": {
                "input_tokens": saying.prompt,
                "input_tokens_details": {"cached_tokens": saying.cached, "cache_write_tokens": 0},
                "output_tokens": saying.written,
                "output_tokens_details": {"reasoning_tokens": saying.thought},
                "total_tokens": saying.prompt + saying.written,
            },
        }


RESPONSES = ResponsesWire(
    fields="input instructions include max_output_tokens max_tool_calls metadata parallel_tool_calls prompt_cache_key"
    " reasoning safety_identifier service_tier store text tool_choice tools top_logprobs truncation background"
    " previous_response_id conversation prompt user",
    common="temperature top_p",
    path="/v1/responses",
    tokens="max_output_tokens",
    seed="",
    several=False,
    cut="max_output_tokens",
    too_long="Your input exceeds the context window of this model. Please adjust your input and try again.",
)


class GeminiWire(Wire):
    """google-genai 3.6, models.py and types.py: contents of parts, parameters in `generationConfig`, candidates."""

    config = (
        "temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs presencePenalty"
        " frequencyPenalty seed responseMimeType responseSchema responseJsonSchema responseModalities mediaResolution"
        " speechConfig thinkingConfig imageConfig continuationToken"
    )

    def key_in(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-goog-api-key")

    def model_in(self, asked: Asked) -> str:
        return asked.path.rpartition("/")[2].partition(":")[0]

    def check(self, body: dict[str, Any]) -> None:
        if unknown := sorted(set(body) - set(self.fields.split())):
            raise Refused(f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.')
        if unknown := sorted(set(body.get("generationConfig", {})) - set(self.config.split())):
            raise Refused(f"Invalid JSON payload received. Unknown name at 'generation_config': {unknown[0]}")
        roles = [each["role"] for each in body["contents"]]
        if not set(roles) <= {"user", "model"} or any(one == two for one, two in itertools.pairwise(roles)):
            raise Refused("Please ensure that multiturn requests alternate between user and model.")
        if not all(part for each in body["contents"] for part in each["parts"]):
            raise Refused("contents.parts must not be empty.")

    def count(self, body: dict[str, Any]) -> int:
        return body.get("generationConfig", {}).get("candidateCount", 1)

    def system(self, body: dict[str, Any]) -> str:
        (part,) = body["systemInstruction"]["parts"]
        return part["text"]

    def prompt(self, body: dict[str, Any]) -> str:
        (part,) = body["contents"][-1]["parts"]
        return part["text"]

    def parameters(self, body: dict[str, Any]) -> dict[str, Any]:
        return body["generationConfig"]

    def schema_in(self, body: dict[str, Any]) -> Any:
        if body["generationConfig"]["responseMimeType"] != "application/json":
            raise Refused("Function calling with a response mime type is unsupported")
        return body["generationConfig"]["responseJsonSchema"]

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        thoughts = [{"text": saying.thoughts, "thought": True}] if saying.thoughts else []
        text = [{"text": saying.text}] if saying.text is not None else []
        # A candidate without parts has a content without any.
        parts = {"parts": [*thoughts, *text]} if thoughts or text else {}
        candidates: list[dict[str, Any]] = [
            {"content": {"role": "model", **parts}, "finishReason": saying.end or self.whole, "index": number}
            for number in range(self.count(body))
        ]
        counts: dict[str, Any] = {
            "promptTokenCount": saying.prompt,
            "candidatesTokenCount": saying.written - saying.thought,
            "totalTokenCount": saying.prompt + saying.written,
        }
        counts |= {"thoughtsTokenCount": saying.thought} if saying.thought else {}
        counts |= {"cachedContentTokenCount": saying.cached} if saying.cached else {}
        return {"candidates": candidates, "usageMetadata": counts, "modelVersion": "m", "responseId": "r"}


RPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
GEMINI = GeminiWire(
    fields="contents systemInstruction generationConfig safetySettings tools toolConfig cachedContent serviceTier"
    " store",
    path="/v1/models/m:generateContent",
    tokens="maxOutputTokens",
    top_p="topP",
    stop="stopSequences",
    whole="STOP",
    cut="MAX_TOKENS",
    withheld="SAFETY",
    cached=("cachedContentTokenCount",),
    too_long="The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    refusal=lambda status, said: {"error": {"code": status, "message": said, "status": RPC.get(status, "UNKNOWN")}},
)

# The same, google-genai 3.6, `_to_vertex` in models.py: labels, and the addresses of its express mode.
VERTEX = replace(GEMINI, fields=f"{GEMINI.fields} labels", path="/v1beta1/publishers/google/models/m:generateContent")


class CohereWire(Wire):
    """cohere 7.3, v2/raw_client.py and types: one answer in parts, counts of what is paid and of all tokens."""

    def check(self, body: dict[str, Any]) -> None:
        super().check(body)
        if body.get("stream") is not False:
            raise Refused("the stand-in doesn't stream")

    def schema_in(self, body: dict[str, Any]) -> Any:
        if body["response_format"]["type"] != "json_object":
            raise Refused("invalid request: response_format.type must be json_object")
        return body["response_format"]["json_schema"]

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        thoughts = [{"type": "thinking", "thinking": saying.thoughts}] if saying.thoughts else []
        text = [{"type": "text", "text": saying.text}] if saying.text is not None else []
        content = {"content": [*thoughts, *text]} if thoughts or text else {}
        usage: dict[str, Any] = {
            "billed_units": {"input_tokens": float(saying.prompt), "output_tokens": float(saying.written)},
            "tokens": {"input_tokens": saying.prompt + 496.0, "output_tokens": saying.written + 4.0},
        }
        return {
            "id": "c14c80c3",
            "finish_reason": saying.end or self.whole,
            "message": {"role": "assistant", **content},
            "usage": {**usage, "cached_tokens": float(saying.cached)},
        }


COHERE = CohereWire(
    fields="tools strict_tools documents citation_options response_format safety_mode max_tokens stop_sequences"
    " temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking priority stream",
    common="",
    path="/v2/chat",
    top_p="p",
    stop="stop_sequences",
    several=False,
    whole="COMPLETE",
    cut="MAX_TOKENS",
    withheld="",
    cached=("cached_tokens",),
    thought=(),
    too_long="too many tokens: size limit exceeded by 1808 tokens. Try using shorter or fewer inputs.",
    refusal=lambda status, said: {"id": "8e9f", "message": said},
)


class BedrockWire(Wire):
    """botocore 1.43, bedrock-runtime: ConverseRequest and ConverseResponse. Blobs are base64, a schema is a text."""

    config = "maxTokens temperature topP stopSequences"

    def model_in(self, asked: Asked) -> str:
        return asked.path.split("/")[2]

    def check(self, body: dict[str, Any]) -> None:
        if unknown := sorted(set(body) - set(self.fields.split())):
            raise Refused(f"Malformed input request: #: extraneous key [{unknown[0]}] is not permitted")
        if unknown := sorted(set(body.get("inferenceConfig", {})) - set(self.config.split())):
            raise Refused(f"#/inferenceConfig: extraneous key [{unknown[0]}] is not permitted")
        if any(not block.get("text", "x") for each in body["messages"] for block in each["content"]):
            raise Refused("The text field in the ContentBlock object is blank.")
        roles = [each["role"] for each in body["messages"]]
        if roles[0] != "user" or any(one == two for one, two in itertools.pairwise(roles)):
            raise Refused("A conversation must alternate between user and assistant roles.")

    def system(self, body: dict[str, Any]) -> str:
        (block,) = body["system"]
        return block["text"]

    def prompt(self, body: dict[str, Any]) -> str:
        (block,) = body["messages"][-1]["content"]
        return block["text"]

    def parameters(self, body: dict[str, Any]) -> dict[str, Any]:
        return body["inferenceConfig"]

    def schema_in(self, body: dict[str, Any]) -> Any:
        form = body["outputConfig"]["textFormat"]
        assert form["type"] == "json_schema"
        return json.loads(form["structure"]["jsonSchema"]["schema"])

    def answer(self, body: dict[str, Any], saying: Saying) -> dict[str, Any]:
        thought = [{"reasoningContent": {"reasoningText": {"text": saying.thoughts, "signature": "s"}}}]
        text = [{"text": saying.text}] if saying.text is not None else []
        counts = {
            "inputTokens": saying.prompt - saying.cached,
            "outputTokens": saying.written,
            "totalTokens": saying.prompt + saying.written,
        }
        counts |= {"cacheReadInputTokens": saying.cached, "cacheWriteInputTokens": 0} if saying.cached else {}
        return {
            "output": {"message": {"role": "assistant", "content": [*(thought if saying.thoughts else []), *text]}},
            "stopReason": saying.end or self.whole,
            "usage": counts,
            "metrics": {"latencyMs": 7},
        }


BEDROCK = BedrockWire(
    fields="messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields promptVariables"
    " additionalModelResponseFieldPaths requestMetadata performanceConfig serviceTier outputConfig",
    path="/model/m/converse",
    tokens="maxTokens",
    top_p="topP",
    stop="stopSequences",
    seed="",
    several=False,
    whole="end_turn",
    cut="max_tokens",
    withheld="guardrail_intervened",
    cached=("cacheReadInputTokens",),
    thought=(),
    too_long="The model returned the following errors: Input is too long for requested model.",
    refusal=lambda status, said: {"message": said},
)

# litellm 1.110 in this process, to a server of OpenAI's protocol, by the SDK of that.
LITELLM = Wire(fields=f"{OPENAI} max_tokens max_completion_tokens reasoning_effort service_tier", withheld="")
