"""What is there to run with: keys, models, packages, the storage, Prefect's server; and what to do about what isn't.

Nothing is started, and nobody is asked for anything that costs: of providers only which models a key may use.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from flows.store.storage import STORAGE_VARIABLE, Storage, StorageError, storage_at
from llms.credentials import WithKey
from llms.errors import AuthenticationError, LLMError
from llms.extras import PROJECT, declared, how_to_install, pip_install
from llms.local_model import MODEL, LocalModelError
from llms.loop import run_sync
from llms.parameters import short
from llms.providers.openai import ChatCompletionsLLM
from llms.registry import LLM_VARIANTS
from llms.secrets import masked

State: TypeAlias = Literal["ok", "missing", "wrong"]
"""`missing` is what not everybody needs; `wrong`, what keeps a run from working."""
SECONDS_TO_ANSWER = 5.0
FEW_BYTES_FREE = 1_000_000_000
WITHOUT_A_LIST = frozenset({"azure-openai", "openai-responses", "litellm", "llama-cpp"})
"""Providers whose adapters know of no list of models, or whose list is another one's."""
USUAL_MODEL = "gpt-4o-mini"
"""That of the ready-made flows, at OpenAI."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    about: str
    state: State
    found: str
    to_do: str = ""


def check_all() -> list[Check]:
    """Everything that was looked at, in the order in which it's needed. Takes some seconds where networks are slow."""
    parts: list[Callable[[], Iterable[Check]]] = [versions, keys, models, packages, storage_checks, server_checks]
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(_listed, part) for part in parts]
        return [check for each in started for check in each.result()]


def _listed(part: Callable[[], Iterable[Check]]) -> list[Check]:
    return list(part())


def version() -> str:
    """The project's, installed or of the clone."""
    if PROJECT.exists():
        return str(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"])
    return importlib.metadata.version("stillflow")


def versions() -> Iterator[Check]:
    prefect = importlib.metadata.version("prefect")
    yield Check("versions", "ok", f"stillflow {version()}, Prefect {prefect}, Python {platform.python_version()}")


# Keys and models


def keys() -> Iterator[Check]:
    """Whose keys are in the environment. A key is never shown."""
    without: list[str] = []
    for provider, kind in _providers_with_keys():
        try:
            name = _variable_with_key(kind)
        except AuthenticationError as error:
            yield Check(f"key: {provider}", "wrong", masked(str(error)), f"set {kind.key_variables[0]} again")
            continue
        if name:
            yield Check(f"key: {provider}", "ok", f"{name} is set")
        elif provider == "openai":
            yield Check(
                "key: openai",
                "missing",
                "no OPENAI_API_KEY; the ready-made flows ask OpenAI where nothing else is said",
                "set it, or name another: llm.provider=anthropic, a block with llm.credentials=NAME, --local-model",
            )
        else:
            without.append(f"{provider} ({' or '.join(kind.key_variables)})")
    if without:
        yield Check(
            "other keys", "missing", f"none of {', '.join(without)}", "set the variable of whom you want to ask"
        )


def _providers_with_keys() -> Iterator[tuple[str, type[WithKey]]]:
    """The providers whose adapters take a key from the environment, each variable's first alone."""
    seen: set[str] = set()
    for provider in LLM_VARIANTS.ours:
        kind: Any = LLM_VARIANTS.find(provider)
        names = getattr(kind, "key_variables", ())
        if names and names[0] not in seen:
            seen.update(names)
            yield provider, kind


def _variable_with_key(kind: type[WithKey]) -> str:
    """Where the key was found; empty where there's none. Raises AuthenticationError where it can't be a key."""
    from llms.credentials import key_from_environment

    names = kind.key_variables
    if key_from_environment(*names) is not None:
        return next(name for name in names if os.environ.get(name, "").strip())
    if names == ("HF_TOKEN",):
        from huggingface_hub import get_token

        return "a login of Hugging Face" if get_token() else ""
    return ""


def models() -> Iterator[Check]:
    """The model on this machine, and how many there are where a key, or a server's address, is set."""
    yield _local_model()
    asked = [(provider, llm) for provider, llm in _adapters() if _is_set(llm)]
    if asked:
        with ThreadPoolExecutor(len(asked)) as pool:
            started = [pool.submit(_models_at, provider, llm) for provider, llm in asked]
            yield from (each.result() for each in started)


def _local_model() -> Check:
    from llms.local_model.server import weights

    try:
        weights()
    except LocalModelError as error:
        return Check("model: on this machine", "missing", str(error), "make model (127 MB); then --local-model")
    return Check("model: on this machine", "ok", f"{MODEL}, by --local-model")


def _adapters() -> Iterator[tuple[str, ChatCompletionsLLM]]:
    """Adapters of OpenAI's protocol, which has a list of models."""
    for provider in LLM_VARIANTS.ours:
        kind = LLM_VARIANTS.find(provider)
        if provider in WITHOUT_A_LIST or not issubclass(kind, ChatCompletionsLLM):
            continue
        yield provider, kind.model_validate({"model": USUAL_MODEL, "timeout": SECONDS_TO_ANSWER})


def _is_set(llm: ChatCompletionsLLM) -> bool:
    return any(os.environ.get(name, "").strip() for name in (*llm.key_variables, llm.url_variable))


def _models_at(provider: str, llm: ChatCompletionsLLM) -> Check:
    about, where = f"models: {provider}", without_user(llm.url())
    try:
        answer = run_sync(llm.call("GET", "/models"))
    except AuthenticationError as error:
        return Check(about, "wrong", masked(str(error)), f"set {' or '.join(llm.key_variables)} to a key for {where}")
    except LLMError as error:
        return Check(
            about, "wrong", masked(str(error)), f"see that {where} is right ({llm.url_variable}), and can be reached"
        )
    listed = answer.get("data")
    every = cast("list[Any]", listed) if isinstance(listed, list) else []
    names = {str(cast("dict[str, Any]", each).get("id")) for each in every if isinstance(each, dict)}
    if not names:
        return Check(about, "missing", f"{where} answers, and lists none", "name one with llm.model=")
    if provider == "openai" and USUAL_MODEL not in names:
        some = ", ".join(sorted(names)[:3])
        return Check(
            about,
            "missing",
            f"{len(names):,} at {where}, {USUAL_MODEL} not among them",
            f"name one with llm.model=, such as {some}",
        )
    return Check(about, "ok", f"{len(names):,} at {where}")


# Packages


def packages() -> Iterator[Check]:
    """What the project needs, and what its extras do."""
    extras = declared()
    lost = [each for each in extras.pop("") if not is_installed(each)]
    in_clone = "make setup, or: python -m pip install -r requirements.lock"
    to_do = in_clone if PROJECT.exists() else pip_install(*lost)
    yield Check("packages", "wrong" if lost else "ok", _installed(lost), to_do if lost else "")
    for extra, requirements in extras.items():
        lost = [each for each in requirements if not is_installed(each)]
        yield Check(
            f"extra: {extra}",
            "missing" if lost else "ok",
            _installed(lost),
            how_to_install(extra) if lost else "",
        )


def _installed(lost: Iterable[str]) -> str:
    names = ", ".join(_distribution(each) for each in lost)
    return f"not installed: {names}" if names else "installed"


def is_installed(requirement: str) -> bool:
    """Whether a package is there, in whichever version."""
    try:
        importlib.metadata.version(_distribution(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


# The storage and the server


def storage_checks() -> Iterator[Check]:
    storage = storage_at()
    where = without_user(storage.root)
    try:
        yield _local_storage(storage) if storage.is_local else _remote_storage(storage, where)
    except StorageError as error:
        yield Check("storage", "wrong", masked(str(error)), f"set {STORAGE_VARIABLE} to a folder, or an address")


def _local_storage(storage: Storage) -> Check:
    root = Path(storage.root)
    there = next(each for each in (root, *root.parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(
            "storage",
            "wrong",
            f"{root} can't be written to",
            f"make it writable, or set {STORAGE_VARIABLE} to another folder",
        )
    free = shutil.disk_usage(there).free
    found = f"{root}{'' if root.exists() else ', made by the first run'}, {free / 1e9:,.1f} GB free"
    if free < FEW_BYTES_FREE:
        return Check(
            "storage", "wrong", found, f"python -m flows clean, or set {STORAGE_VARIABLE} to where there's room"
        )
    return Check("storage", "ok", found)


def _remote_storage(storage: Storage, where: str) -> Check:
    """Raises StorageError."""
    storage.exists(storage.path("runs"))
    return Check("storage", "ok", f"{where} can be read")


def server_checks() -> Iterator[Check]:
    """The Prefect server that is set, if one is. None is started."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        yield Check(
            "Prefect's server",
            "ok",
            "none is set: each run has one for itself",
            "for batches that wait without a process: make ui, and export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
        return
    yield _server_at(url)


def _server_at(url: str) -> Check:
    import httpx
    from prefect.client.orchestration import get_client

    about, where = "Prefect's server", without_user(url)
    start = f"start it (prefect server start), or unset PREFECT_API_URL in {_settings_place()}"
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": SECONDS_TO_ANSWER}) as client:
            theirs, ours = client.api_version(), client.client_version()
            # By a call that is allowed to those alone who may use it.
            client.count_flow_runs()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        to_do = "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY" if status in {401, 403} else start
        return Check(about, "wrong", f"{where} answers with {status}", to_do)
    except (httpx.HTTPError, RuntimeError, ValueError) as error:
        return Check(about, "wrong", masked(f"{where} can't be reached: {short(error)}"), start)
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return Check(about, "wrong", f"{where} has {theirs}, here is {ours}", "give both the same version of Prefect")
    return Check(about, "ok", f"{where}, version {theirs}")


def _settings_place() -> str:
    return "the environment" if os.environ.get("PREFECT_API_URL") else "your profile (prefect config unset)"


def without_user(url: str) -> str:
    """An address without a name and a password in it, and without its query.

    Example:
        >>> without_user("https://me:secret@host:8000/v1?key=1")
        'https://host:8000/v1'
    """
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def table(checks: Iterable[Check], *, width: int | None = None) -> None:
    """Print what was found, a line each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("", "What", "Found", "What to do"):
        shown.add_column(name, overflow="fold")
    colors = {"ok": "green", "missing": "yellow", "wrong": "red"}
    for each in checks:
        shown.add_row(Text(each.state, colors[each.state]), Text(each.about), Text(each.found), Text(each.to_do))
    Console(file=sys.stdout, width=width).print(shown)
