"""The secrets that this process knows, and texts without them: a provider, or a proxy before it, may repeat a key.

Whoever reads a key makes it known with `know`. Errors, quotations, answers and log lines go through `masked`. What is
secret for a while alone, as a signed address is, goes to `forget` after its use.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from operator import is_
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from pydantic import SecretStr

T = TypeVar("T")

MASK = "***"
SHORTEST = 8
"""Characters of a secret that is masked: a shorter one is a stand-in ("none", "key"), or stands in many a word."""
LONG = 24
"""Characters from which on the first half of a secret gives it away: messages are cut."""
NAME = re.compile(
    r"(^|[-_ ])(authorization|cookie|pass(word|wd|phrase)?|secret|token|auth[-_]string"
    r"|(api|access|account|signing|encryption|secret|private|subscription)?[-_]?key|bearer[-_]token[-_]\w+)$",
    re.IGNORECASE,
)
"""The names that headers, options and environment variables with a secret have."""
NEVER_SECRET = frozenset({"bearer", "basic", "token"})
KEPT_ASIDE = frozenset({"embeddings", "logprobs"})
"""The parts of an answer that hold numbers, and many of them."""
NUMBERS = (int, float)

_secrets: dict[str, frozenset[str]] = {}
"""Each with its forms."""
_times: Counter[str] = Counter()
"""How often each was made known, and not forgotten since: two jobs may have one signed address."""
_forms: tuple[tuple[str, str], ...] = ()
"""Of all of them, each once with its beginning, the longest first: one may hold another."""
_lock = threading.Lock()


def know(secret: SecretStr | str | None) -> None:
    """Mask `secret` from now on, wherever it is kept, logged or shown."""
    global _forms
    text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret or ""
    for each in {text, text.strip()}:
        if len(each) < SHORTEST:
            continue
        forms = _secrets.get(each) or frozenset(forms_of(each))
        with _lock:
            _times[each] += 1
            if each not in _secrets:
                added = forms.difference(*_secrets.values())
                both = [*_forms, *((beginning_of(form), form) for form in added)]
                # Before the other: a process that is forked between them masks it too.
                _forms = tuple(sorted(both, key=_length, reverse=True))
                _secrets[each] = forms
        _mask_log_lines()


def forget(secret: str) -> None:
    """Mask `secret` no more, once it was forgotten as often as it was made known. It's not for keys."""
    global _forms
    for each in {secret, secret.strip()}:
        with _lock:
            if each not in _secrets:
                continue
            _times[each] -= 1
            if not _times[each]:
                del _times[each]
                gone = _secrets.pop(each).difference(*_secrets.values())
                _forms = tuple(pair for pair in _forms if pair[1] not in gone)


def _length(form: tuple[str, str]) -> int:
    return len(form[1])


def _unlock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)


def is_secret_name(name: str) -> bool:
    """Whether a header, an option or an environment variable of this name holds a secret."""
    return NAME.search(name) is not None


def know_named(values: Mapping[str, Any]) -> None:
    """Mask the values whose names say that they are secret: of headers, options, environment variables."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            know_named(cast("Mapping[str, Any]", value))
        elif isinstance(value, SecretStr):
            know(value)
        elif isinstance(value, str):
            if is_secret_name(name):
                know(value)
                scheme, _, rest = value.partition(" ")
                know(rest if scheme.lower() in NEVER_SECRET else None)
            know_address(value)


def know_address(text: str) -> None:
    """Mask the secrets in an address: the password, and those in its query."""
    if "://" not in text or not ("@" in text or "?" in text):
        return
    try:
        parts = urlsplit(text)
        know(parts.password)
    except ValueError:
        return
    know_named(dict(parse_qsl(parts.query)))


def masked(text: str) -> str:
    """`text` with `***` for every secret, also where it's written in another form or cut off."""
    # A process that was forked may have got another environment.
    _know_environment(os.getpid())
    found = [(beginning, form) for beginning, form in _forms if beginning in text]
    for _, form in found:
        text = text.replace(form, MASK)
    for beginning, form in found:
        text = _without(text, beginning, form)
    return text


def masked_values(value: T) -> T:
    """A JSON value, such as an answer, with its texts masked. The same object where there's nothing to mask."""
    found: Any = value
    if isinstance(found, str):
        return cast("T", masked(found))
    if isinstance(found, list):
        listed = cast("list[Any]", found)
        items = [each if isinstance(each, NUMBERS) else masked_values(each) for each in listed]
        return value if all(map(is_, items, listed)) else cast("T", items)
    if isinstance(found, dict):
        given = cast("dict[str, Any]", found)
        fields = {
            name: each if name in KEPT_ASIDE or isinstance(each, NUMBERS) else masked_values(each)
            for name, each in given.items()
        }
        return value if all(map(is_, fields.values(), given.values())) else cast("T", fields)
    return value


def without_secrets(error: Exception) -> Exception:
    """The same error, its texts and those of its causes masked; another one where its words come from elsewhere."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.args = tuple(masked(one) if isinstance(one, str) else one for one in each.args)
        each = each.__cause__ or each.__context__
    said = str(error)
    return error if (shown := masked(said)) == said else RuntimeError(f"{type(error).__name__}: {shown}")


def _without(text: str, beginning: str, form: str) -> str:
    """`text` without as much of a secret as stands there."""
    parts: list[str] = []
    start = 0
    while (place := text.find(beginning, start)) >= 0:
        parts += [text[start:place], MASK]
        same = takewhile(lambda pair: pair[0] == pair[1], zip(text[place : place + len(form)], form, strict=False))
        start = place + sum(1 for _ in same)
    return "".join([*parts, text[start:]])


def beginning_of(form: str) -> str:
    """What of a form is enough to know it by."""
    return form if len(form) < LONG else form[: max(LONG // 2, len(form) // 2)]


def forms_of(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, escaped, quoted, and inside of base64."""
    escaped = json.dumps(secret)[1:-1]
    percent = quote(secret, safe="")
    yield from (secret, repr(secret)[1:-1], html.escape(secret))
    yield from (escaped, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(escaped)[1:-1])
    yield from (percent, quote(secret), quote_plus(secret))
    yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), percent)
    for place in range(3):
        inside = base64_inside(secret.encode("utf-8", "surrogatepass"), place)
        yield from (inside, inside.replace("+", "-").replace("/", "_"))


def base64_inside(content: bytes, place: int) -> str:
    """What is the same in base64 of all that holds `content` after `place` bytes, or 3 more, 6 more and so on.

    Example:
        >>> base64_inside(b"a secret", 2) in base64.b64encode(b"a:a secret, and more").decode()
        True
    """
    encoded = base64.b64encode(bytes(place) + content).decode()
    return encoded[(8 * place + 5) // 6 : (8 * (place + len(content))) // 6]


@lru_cache(maxsize=1)
def _know_environment(process: int) -> None:
    know_named(os.environ)


def _mask_log_lines() -> None:
    """Have every log record of this process made without secrets, whichever logger and handler it's for."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks_secrets", False):
        return

    def without(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Said by the handler, as for any line that can't be formatted.
            return record
        if (shown := masked(message)) != message:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            if (shown := masked(told)) != told:
                record.exc_info, record.exc_text = None, shown
        return record

    without.masks_secrets = True  # pyright: ignore[reportFunctionMemberAccess] -- a mark on a function of ours
    logging.setLogRecordFactory(without)
