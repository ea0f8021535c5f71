"""What the batch APIs made after OpenAI's do differently: one row each, found by the host of an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias
from urllib.parse import urlsplit

from llms.batch import MARK, BatchLimits

Meanings: TypeAlias = Mapping[str, tuple[int, str]]
"""By a provider's own code: the HTTP status that means the same, and OpenAI's code where it has one for that."""


@dataclass(frozen=True)
class BatchDialect:
    """A batch API, by its differences. The defaults are for a server that isn't known: only what all of them take."""

    hosts: tuple[str, ...] = ()
    """Domains, with all below them."""
    limits: BatchLimits | None = None
    """Of one job. None: as at OpenAI."""
    purpose: str = "batch"
    """What a file is uploaded for."""
    upload_path: str = "/files"
    names_file: bool = False
    """Whether the upload has the file's name as a field of its own."""
    window: str | None = "24h"
    """The time to answer within. None: it isn't asked for."""
    short_lines: bool = False
    """Whether a line has `custom_id` and `body` alone."""
    takes_metadata: bool = True
    mark_key: str = MARK
    """The key in a job's metadata for its mark. Another one is the only one that the API surely has."""
    keeps_metadata: bool = False
    """Whether a job surely shows the metadata it was created with. Where not, the name of its file holds its mark."""
    newest_first: bool = False
    """Whether jobs are surely listed in that order, over all pages."""
    expires_files: bool = False
    """Whether files can be given the time of their end."""
    several_answers: bool = True
    """Whether one request can ask for several answers (`n`)."""
    chat_path: str = "/v1/chat/completions"
    """What lines and jobs call the place of chats."""
    takes_prompts: bool = True
    """Whether bare prompts have a place, which go to completions."""
    line_limit: int | None = None
    """The most bytes of one line."""
    deletes_input: bool = False
    """Whether the file that a job was made of is deleted by itself, where one doesn't say otherwise."""
    meanings: Meanings = field(default_factory=dict[str, tuple[int, str]])
    """Of codes that say more than the status beside them, where there is one; online as well."""


ANY = BatchDialect()

# https://platform.openai.com/docs/api-reference/batch
OPENAI = BatchDialect(hosts=("openai.com",), keeps_metadata=True, newest_first=True, expires_files=True)

# https://console.groq.com/docs/batch
GROQ = BatchDialect(
    hosts=("groq.com",), limits=BatchLimits(50_000, 100_000_000), keeps_metadata=True, several_answers=False
)

# https://docs.together.ai/docs/inference/batch/overview
TOGETHER = BatchDialect(
    hosts=("together.ai", "together.xyz"),
    limits=BatchLimits(50_000, 100_000_000),
    purpose="batch-api",
    upload_path="/files/upload",
    names_file=True,
    short_lines=True,
    takes_metadata=False,
)

# https://www.alibabacloud.com/help/en/model-studio/batch-interfaces-compatible-with-openai: 500 MB, 6 MB a line. Of
# metadata a name of 100 characters and a description are documented. Lists may show none, as an example there.
DASHSCOPE = BatchDialect(
    hosts=("aliyuncs.com",), limits=BatchLimits(50_000, 500_000_000), line_limit=5_999_000, mark_key="ds_name"
)

# https://platform.kimi.com/docs/guide/use-batch-api: 100 MB and no `n`; the most requests aren't told.
# What jobs show: https://platform.kimi.ai/docs/api/batch-cancel.
MOONSHOT = BatchDialect(
    hosts=("moonshot.ai", "moonshot.cn"),
    limits=BatchLimits(50_000, 100_000_000),
    keeps_metadata=True,
    several_answers=False,
)

# https://docs.bigmodel.cn/cn/api/api-code, those that leave no doubt. An empty account comes with the status 429.
ZAI_CODES: Meanings = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), (401, "")),
    **dict.fromkeys(("1110", "1111", "1112", "1121", "1220"), (403, "")),
    "1113": (402, ""),
    **dict.fromkeys(("1120", "1234", "1312"), (503, "")),
    **dict.fromkeys(("1210", "1212", "1213", "1214", "1215"), (400, "")),
    **dict.fromkeys(("1211", "1221", "1222"), (404, "")),
    "1261": (400, "context_length_exceeded"),
    **dict.fromkeys(("1300", "1301"), (400, "content_filter")),
    **dict.fromkeys(("1302", "1303", "1304", "1305"), (429, "")),
}

# https://docs.bigmodel.cn/cn/guide/tools/batch: the window isn't asked for any more. A file's name can't be looked up.
ZAI = BatchDialect(
    hosts=("z.ai", "bigmodel.cn"),
    limits=BatchLimits(50_000, 100_000_000),
    window=None,
    keeps_metadata=True,
    several_answers=False,
    chat_path="/v4/chat/completions",
    deletes_input=True,
    meanings=ZAI_CODES,
)

# https://docs.tokenfactory.nebius.com/ai-models-inference/batch-inference: of chats and embeddings. Its reference has
# metadata in jobs, its examples show others than were sent: so the name of a job's file counts as well.
NEBIUS = BatchDialect(
    hosts=("nebius.ai", "nebius.com"), limits=BatchLimits(5_000_000, 10_000_000_000), takes_prompts=False
)

DIALECTS = (
    OPENAI,
    GROQ,
    TOGETHER,
    DASHSCOPE,
    MOONSHOT,
    ZAI,
    NEBIUS,
    # https://novita.ai/docs/guides/llm-batch-api
    BatchDialect(
        hosts=("novita.ai",),
        limits=BatchLimits(50_000, 100_000_000),
        window="48h",
        short_lines=True,
        takes_metadata=False,
    ),
    # https://inference-docs.cerebras.ai/capabilities/batch
    BatchDialect(hosts=("cerebras.ai",), keeps_metadata=True),
    # https://docs.siliconflow.cn/cn/userguide/guides/batch
    BatchDialect(
        hosts=("siliconflow.cn", "siliconflow.com"), limits=BatchLimits(5_000, 200_000_000), keeps_metadata=True
    ),
)


@cache
def dialect_of(url: str) -> BatchDialect:
    """The dialect that the batch API at an address has."""
    host = urlsplit(url).hostname or ""
    return next((each for each in DIALECTS if _is_below(host, each.hosts)), ANY)


def _is_below(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
