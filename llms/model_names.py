"""Whether an answer names another model than the one that was asked: a wrong answer is worse than none."""

from __future__ import annotations

import re

FAMILIES = re.compile(
    r"(?<![a-z])(claude|(?:chat)?gpt|o(?=\d)|gemini|gemma|(?:code)?llama|mistral|ministral|mixtral|magistral|codestral"
    r"|pixtral|devstral|qwen|qwq|deepseek|grok|command|phi|nova|glm|kimi|embedding|dall-e)"
)
SIZES = frozenset(
    {
        *("mini", "nano", "micro", "lite", "tiny", "small", "medium", "large", "max", "ultra", "pro", "plus", "turbo"),
        *("flash", "opus", "sonnet", "haiku", "fable", "mythos", "instant", "instruct", "codex", "coder"),
        *("image", "audio", "realtime", "vl"),
    }
)
"""The words of a name that tell the models of a family apart, beside their numbers. Others (`latest`, `preview`,
`versatile`) say how a model is offered."""

# 2024-08-06, 20250929, 0613, 05-06, 001; and the version of a model at a cloud, v1:0.
_DATES = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{2}-\d{2}|00\d)(?![\da-z])|v\d+:\d+$")


def is_other_model(asked: str, answered: object) -> bool:
    """Whether `answered`, the model that an answer names, is surely another one than `asked`.

    A name may stand for a dated one (`gpt-4o`: `gpt-4o-2024-08-06`), and a server may have names of its own: of these
    nothing can be said.

    Example:
        >>> is_other_model("claude-sonnet-4-5", "claude-sonnet-4-5-20250929")
        False
        >>> is_other_model("claude-sonnet-4-5", "claude-haiku-4-5-20251001")
        True
    """
    if not isinstance(answered, str) or asked.lower() == answered.lower():
        return False
    ours, theirs = _plain(asked), _plain(answered)
    family, other = FAMILIES.search(ours), FAMILIES.search(theirs)
    if family is None or other is None:
        return False
    if family[1].removeprefix("chat") != other[1].removeprefix("chat"):
        return True
    if _sizes(ours) != _sizes(theirs):
        return True
    numbers, others = _numbers(ours), _numbers(theirs)
    return not (numbers <= others if "latest" in ours else numbers == others)


def _plain(name: str) -> str:
    """The name in small letters, without the path before it and the date in it."""
    return _DATES.sub("", name.lower().rstrip("/").rpartition("/")[2])


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[^a-z0-9]+", name) if part]


def _sizes(name: str) -> set[str]:
    return {part for part in _parts(name) if part in SIZES}


def _numbers(name: str) -> set[str]:
    """Versions and sizes: 4o, 3, 5, 70b. A 0 is the first of a version, which is left out as well."""
    return {part for part in _parts(name) if any(map(str.isdigit, part)) and part != "0"}
