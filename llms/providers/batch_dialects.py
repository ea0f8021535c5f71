"""What the batch APIs made after OpenAI's do differently: one row each, found by the host of an address."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

from llms.batch import BatchLimits


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
    window: str = "24h"
    """The time to answer within."""
    short_lines: bool = False
    """Whether a line has `custom_id` and `body` alone."""
    takes_metadata: bool = True
    keeps_metadata: bool = False
    """Whether a job surely shows the metadata it was created with. Where not, the name of its file holds its mark."""
    newest_first: bool = False
    """Whether jobs are surely listed in that order, over all pages."""
    expires_files: bool = False
    """Whether files can be given the time of their end."""
    several_answers: bool = True
    """Whether one request can ask for several answers (`n`)."""


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

DIALECTS = (
    OPENAI,
    GROQ,
    TOGETHER,
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
