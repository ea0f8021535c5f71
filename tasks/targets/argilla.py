"""Savers to Argilla, where people look at rows, correct and rate them."""

# datasets has no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, cast

from pydantic import Field, SecretStr

from llms.extras import MissingPackageError, package
from llms.parameters import Unasked, short
from llms.quantities import quantity
from tasks.cells import any_text_in, list_in
from tasks.sources.tables import rows_of_dataset
from tasks.steps import failure_in, shadowing
from tasks.targets.places import TargetError
from tasks.targets.savers import Saver, parts_of
from tasks.typing import Columns, Row

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

LOCAL = "http://localhost:6900"
"""Where Argilla is, unless it's said otherwise."""
RECORDS_PER_REQUEST = 250
CONNECTION_RETRIES = 2
RATINGS = (1, 2, 3, 4, 5)
MAY_ONLY_ANSWER = "annotator"

logger = logging.getLogger(__name__)


class Record(NamedTuple):
    """What becomes of a row, or of one of its generations."""

    fields: dict[str, str]
    suggestions: dict[str, Any]
    """What is proposed for the questions, by their names."""

    @property
    def id(self) -> str:
        """A digest of what people see: the same row sent again is the same record."""
        return hashlib.sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()


class ArgillaSaver(Saver, ABC):
    """A saver to a dataset of Argilla. Write `settings` and `records`.

    The dataset is made where it isn't there. Where it is, records of rows that were sent before are updated, new
    ones are added, and what people answered stays. Several datasets get one each, as `stories-train`.

    A row that failed, or has nothing to show, is left out; the log says how many, and why.
    """

    form_first: ClassVar[tuple[str, ...]] = ("dataset_name", "dataset_workspace", "api_url")
    names_place: ClassVar[tuple[str, ...]] = ("dataset_name",)

    dataset_name: Annotated[str, Field(title="Dataset", description="Its name in Argilla.")] = ""
    dataset_workspace: Annotated[
        str | None, Field(title="Workspace", description="Empty: the first that the key's owner has.")
    ] = None
    api_url: Annotated[
        str, Field(title="Address", description="Of Argilla. Empty: by ARGILLA_API_URL, or this machine.")
    ] = ""
    api_key: Annotated[
        SecretStr | None, Field(exclude=True, description="The key itself; better by ARGILLA_API_KEY."), Unasked()
    ] = None

    @abstractmethod
    def settings(self, argilla: Any) -> Any:
        """The fields and questions of the dataset, made with the package."""

    @abstractmethod
    def records(self, row: Row) -> list[Record]:
        """What becomes of a row. Raises ValueError where there's nothing to show."""

    def check(self) -> None:
        """Ask Argilla whether the key may write there. Raises TargetError."""
        if not self.dataset_name:
            raise TargetError(f"dataset_name of {self.name!r} is empty; name a dataset of Argilla")
        with self._explained():
            client = self._client()
            if client.me.role.value == MAY_ONLY_ANSWER:
                raise TargetError(
                    f"{self}: {client.me.username!r} may only answer questions there; take the key of an admin or owner"
                )
            there = self._there(client, self.dataset_name)
            if there is not None:
                self._check_fits(there)

    def save(self, dataset: Dataset | DatasetDict, card: str) -> str:
        """Send the rows. A dataset made for them is taken away again where they can't be sent."""
        parts = parts_of(dataset)
        names = [self.dataset_name if len(parts) == 1 else f"{self.dataset_name}-{part.name}" for part in parts]
        with self._explained():
            client = self._client()
            return ", ".join(self._save(client, name, part.dataset) for name, part in zip(names, parts, strict=True))

    def _save(self, client: Any, name: str, dataset: Dataset) -> str:
        found = self._there(client, name)
        if found is not None:
            self._check_fits(found)
        lost: Counter[str] = Counter()
        records = self._records_of(dataset, lost)
        some = list(islice(records, RECORDS_PER_REQUEST))
        if not some:
            raise TargetError(f"{self}: none of {quantity(len(dataset), 'row')} can be shown: {reasons(lost)}")
        target = found or self._made(client, name)
        try:
            while some:
                self._send(client, target, some)
                some = list(islice(records, RECORDS_PER_REQUEST))
        except BaseException:
            if found is None:
                target.delete()
            raise
        if lost:
            logger.warning(
                "%s: left out %s of %s: %s", self, f"{lost.total():,}", quantity(len(dataset), "row"), reasons(lost)
            )
        return f"{self._url()}/dataset/{target.id}/annotation-mode"

    def _made(self, client: Any, name: str) -> Any:
        argilla, workspace = self._argilla(), self._workspace(client)
        return argilla.Dataset(name, workspace=workspace, settings=self.settings(argilla), client=client).create()

    def _records_of(self, dataset: Dataset, lost: Counter[str]) -> Iterator[Record]:
        """The records of all rows, each once; `lost` counts the rows that have none, by the reason."""
        seen: set[str] = set()
        for row in rows_of_dataset(dataset, 0):
            failure = failure_in(row)
            try:
                if failure is not None:
                    raise ValueError(f"failed in {failure['step']}")
                found = self.records(shadowing(row, self.input_mappings))
            except ValueError as error:
                lost[str(error)] += 1
                continue
            for record in found:
                if record.id not in seen:
                    seen.add(record.id)
                    yield record

    def _send(self, client: Any, target: Any, records: list[Record]) -> None:
        argilla = self._argilla()
        made: list[Any] = []
        for record in records:
            suggestions = [argilla.Suggestion(name, value) for name, value in record.suggestions.items()]
            one = argilla.Record(id=record.id, fields=record.fields, suggestions=suggestions)
            one.dataset = target
            made.append(one.api_model())
        # `target.records.log` does the same, with a progress bar for each request.
        client.api.records.bulk_upsert(dataset_id=target.id, records=made)

    def _check_fits(self, there: Any) -> None:
        """Raises TargetError where the dataset isn't to be written to, or is of another kind."""
        if not self.overwrite:
            raise TargetError(
                f"{self} is there already and overwrite=False; choose another dataset_name, or set overwrite to"
                " update it"
            )
        wanted = self.settings(self._argilla())
        for kind in ("fields", "questions"):
            names = {each.name for each in getattr(wanted, kind)}
            found = {each.name for each in getattr(there, kind)}
            needed = {each.name for each in getattr(there, kind) if each.required} if kind == "fields" else set[str]()
            if names - found or needed - names:
                raise TargetError(
                    f"{self} is there already, with the {kind} {sorted(found)!r}; {type(self).__name__} writes"
                    f" {sorted(names)!r}. Choose another dataset_name"
                )

    def _there(self, client: Any, name: str) -> Any:
        """The dataset of that name, or None."""
        for dataset in self._workspace(client).datasets:
            if dataset.name == name:
                return dataset.get()
        return None

    def _workspace(self, client: Any) -> Any:
        """Raises TargetError where it isn't there."""
        every = {each.name: each for each in client.workspaces.list()}
        found = every.get(self.dataset_workspace) if self.dataset_workspace else next(iter(every.values()), None)
        if found is None:
            raise TargetError(
                f"{self}: there's no workspace {self.dataset_workspace or 'at all'!r}; there are {sorted(every)!r}"
            )
        return found

    def _client(self) -> Any:
        key = self.api_key.get_secret_value() if self.api_key else os.environ.get("ARGILLA_API_KEY", "")
        if not key:
            raise TargetError(f"{self}: no key; set ARGILLA_API_KEY to that of an admin or owner")
        return self._argilla().Argilla(api_url=self._url(), api_key=key, retries=CONNECTION_RETRIES)

    def _url(self) -> str:
        return (self.api_url or os.environ.get("ARGILLA_API_URL") or LOCAL).rstrip("/")

    def _argilla(self) -> Any:
        return package("argilla", "argilla", type(self).__name__)

    def __str__(self) -> str:
        return f"dataset {self.dataset_name!r} of Argilla at {self._url()}"

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Every failure of Argilla as a TargetError."""
        try:
            errors = package("argilla._exceptions", "argilla", type(self).__name__)
        except MissingPackageError as error:
            raise TargetError(str(error)) from None
        import httpx

        try:
            yield
        except TargetError:
            raise
        except errors.ArgillaCredentialsError as error:
            raise TargetError(f"{self}: the key is refused; set ARGILLA_API_KEY to a valid one") from error
        except errors.ArgillaError as error:
            raise TargetError(f"{self} can't be saved: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TargetError(f"{self} can't be reached: {error or type(error).__name__}. Check its address") from error
        except (ValueError, KeyError) as error:
            raise TargetError(f"{self}: the server doesn't answer as Argilla does: {short(error)}") from error


class TextGenerationToArgilla(ArgillaSaver):
    """Sends generated texts to Argilla, where people say of each whether it's good or bad.

    Several generations of a row, as a list, are a record each. It needs the extra `argilla`.

    Input columns:
        instruction: the prompt.
        generation: the answer, or a list of them.

    Example:
        >>> from tasks import TextGenerationToArgilla
        >>> saver = TextGenerationToArgilla(dataset_name="stories")
        >>> saver.records({"instruction": "How high is K2?", "generation": ["8,611 m.", None]})[0].fields
        {'instruction': 'How high is K2?', 'generation': '8,611 m.'}
    """

    form_title = "Argilla: texts"

    kind: Annotated[Literal["argilla-text-generation"], Field(title="Target")] = "argilla-text-generation"

    @property
    def inputs(self) -> Columns:
        return ["instruction", "generation"]

    def settings(self, argilla: Any) -> Any:
        return argilla.Settings(
            fields=[argilla.TextField(name=name, use_markdown=True) for name in ("instruction", "generation")],
            questions=[
                argilla.LabelQuestion(
                    name="quality",
                    title="How good is the generation for the instruction?",
                    labels={"bad": "Bad", "good": "Good"},
                )
            ],
        )

    def records(self, row: Row) -> list[Record]:
        instruction = shown(row, "instruction")
        value = row.get("generation")
        texts: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
        found = [text for text in texts if isinstance(text, str) and text.strip()]
        if not found:
            raise ValueError("without a generation")
        return [Record({"instruction": instruction, "generation": text}, {}) for text in found]


class PreferenceToArgilla(ArgillaSaver):
    """Sends several answers to an instruction to Argilla, where people rate each from 1 to 5 and say why.

    Ratings and rationales of a judge are there as suggestions. A generation that is None is left out, with its
    rating; the others of the row follow up. It needs the extra `argilla`.

    Input columns:
        instruction: the prompt.
        generations: the answers, at most `num_generations`.
        ratings (optional): a whole number from 1 to 5 per answer, or None.
        rationales (optional): a text per answer, or None.

    Example:
        >>> from tasks import PreferenceToArgilla
        >>> saver = PreferenceToArgilla(dataset_name="answers", num_generations=2)
        >>> row = {"instruction": "How high is K2?", "generations": ["High.", "8,611 m."], "ratings": [2, 5]}
        >>> saver.records(row)[0].suggestions
        {'generations-0-rating': 2, 'generations-1-rating': 5}
    """

    form_title = "Argilla: preferences"
    form_first = ("dataset_name", "num_generations")

    kind: Annotated[Literal["argilla-preference"], Field(title="Target")] = "argilla-preference"
    num_generations: Annotated[int, Field(ge=1, title="Answers", description="Per row, at most.")] = 2

    @property
    def inputs(self) -> Columns:
        return {"instruction": True, "generations": True, "ratings": False, "rationales": False}

    def settings(self, argilla: Any) -> Any:
        names = [f"generations-{number}" for number in range(self.num_generations)]
        answers = [argilla.TextField(name=name, use_markdown=True, required=name == names[0]) for name in names]
        questions: list[Any] = []
        for name in names:
            required = name == names[0]
            hint = None if required else f"Leave it empty where there's no {name}."
            rating = {"title": f"How good is {name}?", "description": hint, "required": required}
            why = {"title": f"Why this rating of {name}?", "description": hint, "required": False}
            questions.append(argilla.RatingQuestion(name=f"{name}-rating", values=list(RATINGS), **rating))
            questions.append(argilla.TextQuestion(name=f"{name}-rationale", **why))
        return argilla.Settings(
            fields=[argilla.TextField(name="instruction", use_markdown=True), *answers], questions=questions
        )

    def records(self, row: Row) -> list[Record]:
        instruction = shown(row, "instruction")
        answers = list_in(row, "generations") if row.get("generations") is not None else []
        places = [place for place, text in enumerate(answers) if isinstance(text, str) and text.strip()]
        if not places:
            raise ValueError("without a generation")
        if len(places) > self.num_generations:
            raise ValueError(f"with more generations than num_generations={self.num_generations}")
        fields, suggestions = {"instruction": instruction}, dict[str, Any]()
        for number, place in enumerate(places):
            name = f"generations-{number}"
            fields[name] = answers[place]
            rating, rationale = item_in(row, "ratings", place), item_in(row, "rationales", place)
            if is_rating(rating):
                suggestions[f"{name}-rating"] = int(rating)
            if isinstance(rationale, str) and rationale.strip():
                suggestions[f"{name}-rationale"] = rationale
        return [Record(fields, suggestions)]


def shown(row: Row, column: str) -> str:
    """The text in a column. Raises ValueError where there's none to show."""
    text = any_text_in(row, column) if row.get(column) is not None else ""
    if not text.strip():
        raise ValueError(f"without {column}")
    return text


def is_rating(value: Any) -> bool:
    return not isinstance(value, bool) and value in RATINGS


def item_in(row: Row, column: str, place: int) -> Any:
    """The item of a list that may not be there, or be shorter."""
    value = row.get(column)
    items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else []
    return items[place] if place < len(items) else None


def reasons(lost: Counter[str]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in lost.most_common(5)) or "there are none"
