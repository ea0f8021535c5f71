"""What travels between a flow's process and those that work on its shards: orders, and what comes back."""

# cloudpickle has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, validate_call

from flows.engine.answering import Missing
from flows.engine.errors import CLEAR_ERRORS, SpreadError
from flows.store.digest import digest
from flows.store.shards import ShardRef, Work
from llms.parameters import Configurable, import_path
from llms.scripts import is_script

if TYPE_CHECKING:
    from flows.engine.graph import Node


@dataclass(frozen=True)
class ShardOrder:
    """What another process has to know to make a shard. It holds no row and no secret."""

    step: bytes
    """Pickled, with its model and without what belongs to a process."""
    name: str
    decides: str
    """A digest of what decides the step's rows, where any process with the same code finds the same."""
    path: str
    """Empty: only the shard's questions are wanted, so that they can be numbered."""
    estimated: bool
    """Whether what is missing of their answers is wanted with them."""
    place: int
    inputs: tuple[ShardRef, ...]
    before: tuple[int, ...]
    """How often each of its questions was asked in the shards before; empty, where none was."""
    lane: int
    use_cache: bool
    storage: str
    run: str
    attempt: str
    shard_rows: int


@dataclass(frozen=True)
class ShardMade:
    """What comes back of a shard: where it is, and what is counted."""

    ref: ShardRef | None = None
    reused: bool = False
    """Whether it was there before."""
    questions: tuple[int, ...] = ()
    missing: Missing = field(default_factory=Missing)
    answered: int = 0
    failed: int = 0
    work: Work = field(default_factory=Work)
    reasons: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])


def packed(node: Node) -> tuple[bytes, str]:
    """A node's step as it travels, and the digest by which the other side knows that it has the same code.

    Raises:
        SpreadError: a key was given in code, or it can't travel for another reason.
    """
    models = list(models_in(node.step))
    for model in models:
        check_no_secret(node.name, model)
    try:
        step = pickled(node.step)
    # Nothing is swallowed: pickling calls the code of a user's classes, which may raise anything, and it's said whose.
    except Exception as error:
        raise SpreadError(
            f"{node.name}: {type(node.step).__name__} can't be sent to another process ({error}); keep connections and"
            " engines out of its fields, and make them in `load`"
        ) from error
    foreign = any(is_script(type(model).__module__) for model in models)
    return step, "" if foreign else decisive(node.name, node.step)


def decisive(name: str, step: Configurable) -> str:
    """A digest of what decides a step's rows, but for the constants of its code, such as paths of a machine."""
    return digest({"name": name, **step.identity(), "constants": ""})


def models_in(model: Configurable) -> Generator[Configurable]:
    """A step, its model, and whatever else is configurable in them."""
    yield model
    for name in type(model).model_fields:
        value = getattr(model, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Configurable):
                yield from models_in(each)


def check_no_secret(name: str, model: Configurable) -> None:
    """Raises SpreadError where a key was given in code: keys stay where they are."""
    for field_name, info in type(model).model_fields.items():
        value = getattr(model, field_name)
        if value and (isinstance(value, SecretStr) or (info.exclude and info.repr is False)):
            raise SpreadError(
                f"{name}: `{field_name}` of {type(model).__name__} was given in code, and doesn't travel to other"
                " machines. Name a Prefect block in `credentials`, or set the provider's environment variable where"
                " the shards are worked on"
            )


def pickled(step: Configurable) -> bytes:
    """The step, and the code of its class where no other process could import it."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # pyright: ignore[reportUntypedBaseClass]
        def reducer_override(self, obj: Any) -> Any:
            # What pydantic makes of a function can't be pickled: the other side has it made anew.
            raw = getattr(obj, "raw_function", None) if isinstance(obj, FunctionType) else None
            if raw is not None and is_script(obj.__module__):
                return revalidated, (raw, *options_of(obj))
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    with passed_on_as_code():
        Pickler(buffer).dump(step)
    return buffer.getvalue()


def options_of(function: FunctionType) -> tuple[Any, bool]:
    """What `validate_call` was given for a function: its config, and whether it checks what is returned."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    made = next((each for each in cells if hasattr(each, "validate_return")), None)
    config = getattr(getattr(made, "config_wrapper", None), "config_dict", None)
    return config or None, bool(getattr(made, "validate_return", False))


def revalidated(function: Any, config: Any, validate_return: bool) -> Any:
    """The function as `validate_call` makes it."""
    return validate_call(config=config, validate_return=validate_return)(function)


@contextmanager
def passed_on_as_code() -> Generator[None]:
    """Pickle the classes of scripts as code."""
    import cloudpickle

    modules = [sys.modules[name] for name in list(sys.modules) if name != "__main__" and is_script(name)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def portable(error: Exception) -> Exception:
    """The error, or where it can't travel one that says the same; with where it was raised, unless its message does."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 -- whatever an error of a user's class does
        told: Exception = RuntimeError(f"{import_path(type(error))}: {error}")
    else:
        told = error
    if not isinstance(error, CLEAR_ERRORS):
        told.add_note(f"In the process that worked on the shard:\n{''.join(traceback.format_exception(error))}")
    return told
