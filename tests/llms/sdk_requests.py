"""Records what the providers' own SDKs send for a chat, as `sdk_requests.json` beside it has it.

It writes to its standard output, and needs the SDKs alone, at the versions in `SDKS`, which aren't among the tests'
requirements: it's run in an environment of its own (`python -m venv sdks`, then `sdks/bin/pip install $(python
tests/llms/sdk_requests.py --packages)`). `test_same_as_sdks.py` compares our requests with the records, and with
STILLFLOW_TEST_SDKS the records with what the SDKs send. A provider that documents OpenAI's SDK is asked by that.

Where an SDK has classes for what it sends they're used: what they don't know, they refuse or leave out.
"""

from __future__ import annotations

import base64
import copy
import importlib
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self

SDKS = {
    "anthropic": "2.14.0",
    "cerebras-cloud-sdk": "1.91.0",
    "cohere": "7.3.1",
    "fireworks-ai": "1.2.30",
    "google-genai": "3.6.1",
    "groq": "1.7.0",
    "huggingface_hub": "2.4.0",
    "mistralai": "3.7.0",
    "ollama": "0.6.3",
    "openai": "3.54.0",
    "openrouter": "1.3.84",
    "perplexityai": "0.46.1",
    "together": "3.1.1",
    "zai-sdk": "0.2.3",
}
KEY = "key-of-a-test"
HUB_KEY = "hf_key-of-a-test"
"""As the Hub's begin: its router takes no others."""
DOT = "iVBORw0KGgo="
CHAT: Any = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}},
        ],
    },
    {"role": "assistant", "content": "A dot."},
    {"role": "user", "content": "And now?"},
]
CITY = {"city": "Oslo"}
MARK = "a" * 32
"""What a job of a batch is found by."""
CALLS: Any = [
    {"role": "user", "content": "How warm is it in Oslo?"},
    {
        "role": "assistant",
        "content": "I'll look.",
        "tool_calls": [
            {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(CITY)}}
        ],
    },
    {"role": "tool", "tool_call_id": "call-1", "name": "weather", "content": "4 degrees"},
]
"""A chat with a call of a tool and its result."""
SCHEMA: Any = {
    "type": "object",
    "properties": {"height": {"type": "integer"}},
    "required": ["height"],
    "additionalProperties": False,
}
CONSTRAINED: Any = {
    "type": "object",
    "properties": {
        "height": {"type": "integer", "minimum": 0, "maximum": 9000, "description": "In metres."},
        "share": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
        "name": {"type": "string", "minLength": 1, "maxLength": 80},
        "day": {"type": "string", "format": "date"},
        "host": {"type": "string", "format": "idn-hostname"},
        "peaks": {"type": "array", "items": {"$ref": "#/$defs/Peak"}, "minItems": 1, "maxItems": 3},
        "pair": {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
        "either": {"oneOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["height", "share", "name", "day", "host", "peaks", "pair", "either"],
    "$defs": {"Peak": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
"""A schema with what not every API takes."""
COMMON: dict[str, Any] = {"model": "m", "messages": CHAT, "temperature": 0.5, "top_p": 0.75, "stop": ["END"]}
TOKENS: dict[str, Any] = {"max_tokens": 64}
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.25, "presence_penalty": 0.5}
LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
SAMPLING: dict[str, Any] = {"top_k": 5, "min_p": 0.125, "repetition_penalty": 1.25}
OF_SCHEMA: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
}
OF_JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}
THINKING: dict[str, Any] = {"thinking": {"type": "enabled"}}
USAGE = {"input_tokens": 1, "output_tokens": 1}
ANSWERS: dict[str, Any] = {
    "/chat/completions": {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "system_fingerprint": None,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Fine."}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "/v1/messages": {
        "id": "m-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Fine."}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    },
    "/v1/messages/batches": {"id": "b-1", "type": "message_batch", "processing_status": "in_progress"},
    "/batches": {
        "id": "b-1",
        "object": "batch",
        "status": "validating",
        "created_at": 1,
        "completion_window": "24h",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
    },
    ":generateContent": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Fine."}]}, "finishReason": "STOP"}]
    },
    "/v2/chat": {
        "id": "c-1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Fine."}]},
        "usage": {"billed_units": USAGE},
    },
    "/api/chat": {
        "model": "m",
        "message": {"role": "assistant", "content": "Fine."},
        "done": True,
        "done_reason": "stop",
    },
    "/v1/models": {"data": [{"id": "m"}]},
}
"""By the end of the path: what is answered."""
HEADERS = ("Authorization", "Content-Type", "anthropic-version", "api-key", "x-api-key", "x-goog-api-key")
"""Those that are recorded, where they're there."""


def sdk(module: str) -> Any:
    return importlib.import_module(module)


def by_openai(root: str, below: str, **given: Any) -> None:
    sdk("openai").OpenAI(api_key=KEY, base_url=f"{root}{below}").chat.completions.create(**COMMON, **given)


def openai(root: str) -> None:
    given = {"max_completion_tokens": 64, "reasoning_effort": "low", "seed": 7, "n": 2}
    by_openai(root, "/v1", **given, **PENALTIES, **LOGPROBS, **OF_SCHEMA)


def mistral(root: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema_definition": SCHEMA, "strict": True}}
    own = {"random_seed": 7, "n": 2, "reasoning_effort": "high", "prompt_mode": "reasoning", "safe_prompt": True}
    chats = sdk("mistralai.client").Mistral(api_key=KEY, server_url=root).chat
    chats.complete(**COMMON, **TOKENS, **PENALTIES, **LOGPROBS, **own, service_tier="auto", response_format=form)


def groq(root: str) -> None:
    own = {"max_completion_tokens": 64, "reasoning_effort": "low", "reasoning_format": "parsed", "service_tier": "flex"}
    sdk("groq").Groq(api_key=KEY, base_url=root).chat.completions.create(**COMMON, **own, **OF_SCHEMA, seed=7)


def together(root: str) -> None:
    own = {"seed": 7, "n": 2, "reasoning_effort": "low", "context_length_exceeded_behavior": "error"}
    chats = sdk("together").Together(api_key=KEY, base_url=root).chat.completions
    chats.create(**COMMON, **TOKENS, **PENALTIES, **SAMPLING, **own, **OF_SCHEMA)


def fireworks(root: str) -> None:
    own = {"seed": 7, "n": 2, "reasoning_effort": "low", "context_length_exceeded_behavior": "error"}
    chats = sdk("fireworks").Fireworks(api_key=KEY, base_url=f"{root}/inference").chat.completions
    chats.create(**COMMON, **TOKENS, **PENALTIES, **SAMPLING, **LOGPROBS, **own, **OF_SCHEMA, service_tier="priority")


def xai(root: str) -> None:
    own = {"seed": 7, "n": 2, "reasoning_effort": "low", "service_tier": "priority"}
    by_openai(root, "/v1", **TOKENS, **PENALTIES, **LOGPROBS, **own, **OF_SCHEMA)


def deepseek(root: str) -> None:
    by_openai(root, "", **TOKENS, **PENALTIES, **LOGPROBS, **OF_JSON, reasoning_effort="high", extra_body=THINKING)


def openrouter(root: str) -> None:
    own = {"seed": 7, "reasoning_effort": "low", "provider": {"only": ["openai"], "require_parameters": True}}
    chats = sdk("openrouter").OpenRouter(api_key=KEY, server_url=f"{root}/api/v1").chat
    chats.send(**COMMON, **TOKENS, **PENALTIES, **SAMPLING, **LOGPROBS, **own, **OF_SCHEMA, service_tier="flex")


def cerebras(root: str) -> None:
    own = {"max_completion_tokens": 64, "seed": 7, "n": 2, "reasoning_effort": "low", "reasoning_format": "parsed"}
    client = sdk("cerebras.cloud.sdk").Cerebras(api_key=KEY, base_url=root, warm_tcp_connection=False)
    client.chat.completions.create(**COMMON, **PENALTIES, **LOGPROBS, **own, **OF_SCHEMA, service_tier="flex")


def perplexity(root: str) -> None:
    own = {"top_k": 5, "reasoning_effort": "low", "disable_search": True, "search_mode": "academic"}
    chats = sdk("perplexity").Perplexity(api_key=KEY, base_url=root).chat.completions
    chats.create(**COMMON, **TOKENS, **PENALTIES, **own, **OF_SCHEMA, search_domain_filter=["arxiv.org"])


def dashscope(root: str) -> None:
    own = {"top_k": 5, "repetition_penalty": 1.25, "enable_thinking": True, "thinking_budget": 50}
    given = {"seed": 7, "presence_penalty": 0.5, "extra_body": own}
    by_openai(root, "/compatible-mode/v1", **TOKENS, **LOGPROBS, **OF_SCHEMA, **given)


def moonshot(root: str) -> None:
    by_openai(root, "/v1", **TOKENS, **PENALTIES, **OF_JSON, n=2, extra_body=THINKING)


def zai(root: str) -> None:
    own = {"seed": 7, "do_sample": True, "reasoning_effort": "high"}
    chats = sdk("zai").ZaiClient(api_key=KEY, base_url=f"{root}/api/paas/v4").chat.completions
    # It changes the chat that it is given.
    chats.create(**copy.deepcopy(COMMON), **TOKENS, **own, **THINKING, **OF_JSON)


def job_by_openai(root: str, below: str, metadata: dict[str, str]) -> None:
    given = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    sdk("openai").OpenAI(api_key=KEY, base_url=f"{root}{below}").batches.create(**given, metadata=metadata)


def dashscope_job(root: str) -> None:
    job_by_openai(root, "/compatible-mode/v1", {"ds_name": MARK})


def moonshot_job(root: str) -> None:
    job_by_openai(root, "/v1", {"stillflow": MARK})


def nebius_job(root: str) -> None:
    job_by_openai(root, "/v1", {"stillflow": MARK})


def zai_job(root: str) -> None:
    batches = sdk("zai").ZaiClient(api_key=KEY, base_url=f"{root}/api/paas/v4").batches
    given = {"input_file_id": "file-1", "endpoint": "/v4/chat/completions", "metadata": {"stillflow": MARK}}
    batches.create(**given, auto_delete_input_file=False)


def nebius(root: str) -> None:
    by_openai(root, "/v1", **TOKENS, **PENALTIES, **LOGPROBS, **OF_SCHEMA, seed=7, n=2)


def sambanova(root: str) -> None:
    by_openai(root, "/v1", **TOKENS, **OF_SCHEMA, extra_body={"top_k": 5})


def deepinfra(root: str) -> None:
    own = {"seed": 7, "n": 2, "reasoning_effort": "low", "service_tier": "priority", "extra_body": SAMPLING}
    by_openai(root, "/v1/openai", **TOKENS, **PENALTIES, **OF_JSON, **own, logprobs=True)


def anthropic_client(root: str) -> Any:
    return sdk("anthropic").Anthropic(api_key=KEY, base_url=root, max_retries=0)


def of_claude() -> dict[str, Any]:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DOT}}
    return {
        "max_tokens": 64,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
            {"role": "assistant", "content": "A dot."},
            {"role": "user", "content": "And now?"},
        ],
        "stop_sequences": ["END"],
    }


def anthropic(root: str) -> None:
    # What the newest models don't take has no place in its types any more.
    sampling = {"temperature": 0.5, "top_p": 0.75, "top_k": 5}
    output = {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
    own = {"thinking": {"type": "adaptive"}, "output_config": output, "extra_body": sampling}
    anthropic_client(root).messages.create(**of_claude(), **own, model="m")


def anthropic_calls(root: str) -> None:
    """An older model, which thinks to a budget and can't be held to a schema: a tool takes the answer."""
    call = {"type": "tool_use", "id": "call-1", "name": "weather", "input": CITY}
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": "4 degrees"}
    messages = [
        {"role": "user", "content": "How warm is it in Oslo?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I'll look."}, call]},
        {"role": "user", "content": [result]},
    ]
    own = {
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "answer", "description": "Takes the answer.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto"},
    }
    anthropic_client(root).messages.create(model="claude-sonnet-4-0", max_tokens=1088, messages=messages, **own)


def anthropic_batch(root: str) -> None:
    """A newer model, which thinks no less than between tools."""
    config = {"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}}
    requests = [
        {"custom_id": custom_id, "params": {**of_claude(), **config, "model": "claude-sonnet-5-5"}}
        for custom_id in ("first", "second")
    ]
    anthropic_client(root).messages.batches.create(requests=requests)


def anthropic_schema(root: str) -> None:
    """A schema with what the API doesn't take, as the SDK has it for that."""
    output = {
        "format": {"type": "json_schema", "schema": sdk("anthropic").transform_schema(copy.deepcopy(CONSTRAINED))}
    }
    messages = [{"role": "user", "content": "How high?"}]
    anthropic_client(root).messages.create(model="m", max_tokens=64, messages=messages, output_config=output)


def google_client(root: str, **given: Any) -> Any:
    return sdk("google.genai").Client(**given, http_options=sdk("google.genai.types").HttpOptions(base_url=root))


def by_google(client: Any) -> None:
    types = sdk("google.genai.types")
    image = types.Part.from_bytes(data=base64.b64decode(DOT), mime_type="image/png")
    contents = [
        types.Content(role="user", parts=[types.Part(text="What is it?"), image]),
        types.Content(role="model", parts=[types.Part(text="A dot.")]),
        types.Content(role="user", parts=[types.Part(text="And now?")]),
    ]
    config = types.GenerateContentConfig(
        system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
        max_output_tokens=64,
        temperature=0.5,
        top_p=0.75,
        top_k=5,
        stop_sequences=["END"],
        seed=7,
        candidate_count=2,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
        response_logprobs=True,
        logprobs=2,
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level="LOW"),
        safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
        service_tier="flex",
    )
    client.models.generate_content(model="m", contents=contents, config=config)


def gemini(root: str) -> None:
    by_google(google_client(root, api_key=KEY))


def gemini_calls(root: str) -> None:
    types = sdk("google.genai.types")
    call, response = types.FunctionCall(name="weather", args=CITY), {"output": "4 degrees"}
    contents = [
        types.Content(role="user", parts=[types.Part(text="How warm is it in Oslo?")]),
        types.Content(role="model", parts=[types.Part(text="I'll look."), types.Part(function_call=call)]),
        types.Content(role="user", parts=[types.Part.from_function_response(name="weather", response=response)]),
    ]
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(thinking_budget=0))
    client = google_client(root, api_key=KEY)
    client.models.generate_content(model="m", contents=contents, config=config)


def vertex(root: str) -> None:
    """Vertex AI for one with a key, in its express mode."""
    by_google(google_client(root, vertexai=True, api_key=KEY))


def vertex_project(root: str) -> None:
    """Vertex AI for one that is signed in."""
    signed = sdk("google.oauth2.credentials").Credentials(token=KEY)
    by_google(google_client(root, vertexai=True, credentials=signed, project="my-project", location="europe-west4"))


def cohere(root: str) -> None:
    co = sdk("cohere")
    image = co.ImageUrlContent(image_url=co.ImageUrl(url=f"data:image/png;base64,{DOT}"))
    messages = [
        co.SystemChatMessageV2(content="Be brief."),
        co.UserChatMessageV2(content=[co.TextContent(text="What is it?"), image]),
        co.AssistantChatMessageV2(content="A dot."),
        co.UserChatMessageV2(content="And now?"),
    ]
    own = {"k": 5, "p": 0.75, "seed": 7, "logprobs": True, "safety_mode": "STRICT", "priority": 3}
    co.ClientV2(api_key=KEY, base_url=root).chat(
        model="m",
        messages=messages,
        temperature=0.5,
        stop_sequences=["END"],
        **TOKENS,
        **PENALTIES,
        **own,
        thinking=co.Thinking(type="enabled", token_budget=50),
        response_format=co.JsonObjectResponseFormatV2(json_schema=SCHEMA),
    )


def cohere_calls(root: str) -> None:
    co = sdk("cohere")
    function = co.ToolCallV2Function(name="weather", arguments=json.dumps(CITY))
    messages = [
        co.UserChatMessageV2(content="How warm is it in Oslo?"),
        co.AssistantChatMessageV2(content="I'll look.", tool_calls=[co.ToolCallV2(id="call-1", function=function)]),
        co.ToolChatMessageV2(tool_call_id="call-1", content="4 degrees"),
    ]
    co.ClientV2(api_key=KEY, base_url=root).chat(model="m", messages=messages)


def by_ollama(root: str, messages: list[Any], **given: Any) -> None:
    client = sdk("ollama").Client(host=root, headers={"Authorization": f"Bearer {KEY}"})
    client.chat(model="m", messages=messages, **given)


def ollama(root: str) -> None:
    message, image = sdk("ollama").Message, sdk("ollama").Image(value=base64.b64decode(DOT))
    messages = [
        message(role="system", content="Be brief."),
        message(role="user", content="What is it?", images=[image]),
        message(role="assistant", content="A dot."),
        message(role="user", content="And now?"),
    ]
    sampling = {"num_ctx": 512, "num_predict": 64, "temperature": 0.5, "top_p": 0.75, "top_k": 5}
    options = sdk("ollama").Options(**sampling, **PENALTIES, repeat_penalty=1.25, seed=7, stop=["END"])
    by_ollama(root, messages, options=options, **LOGPROBS, think="low", format=SCHEMA, keep_alive="10m")


def ollama_calls(root: str) -> None:
    message = sdk("ollama").Message
    call = message.ToolCall(function=message.ToolCall.Function(name="weather", arguments=CITY))
    messages = [
        message(role="user", content="How warm is it in Oslo?"),
        message(role="assistant", content="I'll look.", tool_calls=[call]),
        message(role="tool", content="4 degrees", tool_name="weather"),
    ]
    by_ollama(root, messages, think=False)


def azure(root: str) -> None:
    """By its v1 API, which documents OpenAI's own client."""
    given = {"max_completion_tokens": 64, "reasoning_effort": "low", "seed": 7, "n": 2}
    by_openai(root, "/openai/v1", **given, **PENALTIES, **LOGPROBS, **OF_SCHEMA)


def azure_dated(root: str) -> None:
    client = sdk("openai").AzureOpenAI(api_key=KEY, azure_endpoint=root, api_version="2024-10-21")
    client.chat.completions.create(**COMMON, **TOKENS, **PENALTIES, **LOGPROBS, **OF_SCHEMA, seed=7, n=2)


def by_hub(client: Any, **given: Any) -> None:
    common = {name: value for name, value in COMMON.items() if name != "model"}
    client.chat_completion(**common, **TOKENS, **PENALTIES, **LOGPROBS, **OF_SCHEMA, seed=7, **given)


def hugging_face(root: str) -> None:
    """A server at an address, of which the client asks no model's name."""
    by_hub(sdk("huggingface_hub").InferenceClient(base_url=f"{root}/v1", token=HUB_KEY), model="m")


def hugging_face_router(root: str) -> None:
    """Inference Providers, at whose address the recorder stands."""
    task = sdk("huggingface_hub.inference._providers._common").AutoRouterConversationalTask

    def place(task: Any, api_key: str) -> str:
        return root

    task._prepare_base_url = place
    by_hub(sdk("huggingface_hub").InferenceClient(model="m", token=HUB_KEY))


ASKED: dict[str, tuple[Callable[[str], None], ...]] = {
    "openai": (
        *(openai, xai, deepseek, dashscope, moonshot, nebius, sambanova, deepinfra, azure, azure_dated),
        *(dashscope_job, moonshot_job, nebius_job),
    ),
    "mistralai": (mistral,),
    "groq": (groq,),
    "together": (together,),
    "fireworks-ai": (fireworks,),
    "openrouter": (openrouter,),
    "cerebras-cloud-sdk": (cerebras,),
    "perplexityai": (perplexity,),
    "zai-sdk": (zai, zai_job),
    "anthropic": (anthropic, anthropic_calls, anthropic_batch, anthropic_schema),
    "google-genai": (gemini, gemini_calls, vertex, vertex_project),
    "cohere": (cohere, cohere_calls),
    "ollama": (ollama, ollama_calls),
    "huggingface_hub": (hugging_face, hugging_face_router),
}


class Recorder:
    """`with Recorder() as recorder:` keeps what is posted to `recorder.root`, on loopback, and answers it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        """With their `path`, `headers` and `body`."""

    def __enter__(self) -> Self:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name: self.headers[name] for name in HEADERS if name in self.headers}
                requests.append({"path": self.path, "headers": headers, "body": json.loads(content)})
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                answer = json.dumps(next(said for end, said in ANSWERS.items() if path.endswith(end))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def recorded(package: str, ask: Callable[[str], None]) -> dict[str, Any]:
    """The one request that `ask` sends to an address on loopback, with the SDK that made it."""
    with Recorder() as recorder:
        ask(recorder.root)
    (request,) = recorder.requests
    return {"sdk": f"{package} {SDKS[package]}", **request}


def main() -> None:
    if sys.argv[1:] == ["--packages"]:
        sys.stdout.write(" ".join(f"{name}=={version}" for name, version in SDKS.items()))
        return
    records = {ask.__name__: recorded(package, ask) for package, asks in ASKED.items() for ask in asks}
    sys.stdout.write(json.dumps(records, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
