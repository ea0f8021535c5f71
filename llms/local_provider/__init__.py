"""A server for rehearsals, tests and demos that speaks OpenAI's protocol, and Anthropic's for messages and batches.
It is not a model: its answers are made up by rules.

    with LocalProvider(latency=0.05) as provider:
        client = OpenAI(base_url=provider.base_url, api_key="none")

Or `python -m llms.local_provider --port 8399`.
"""

from llms.local_provider.control import LocalProvider, ProviderHandle, SeenRequest, SpawnedProvider, Stats
from llms.local_provider.options import AnswerRule, BatchOrder, FaultRule, ProviderOptions
from llms.local_provider.wire import ApiError

__all__ = [
    "AnswerRule",
    "ApiError",
    "BatchOrder",
    "FaultRule",
    "LocalProvider",
    "ProviderHandle",
    "ProviderOptions",
    "SeenRequest",
    "SpawnedProvider",
    "Stats",
]
