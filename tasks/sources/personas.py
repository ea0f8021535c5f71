"""Persons, put together from lists: who they are, where they live, what they like and want."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from llms.parameters import Configurable
from tasks.typing import Row

PERSON_COLUMNS = ("age", "occupation", "region", "interests", "trait", "goal")
INTERESTS = 2
"""Of one person."""
YOUNGEST, OLDEST = 18, 100


class Occupation(NamedTuple):
    """An occupation, and the ages at which one has it."""

    name: str
    youngest: int = YOUNGEST
    oldest: int = OLDEST


class Lists(NamedTuple):
    """What persons are put together from."""

    occupations: tuple[Occupation, ...]
    interests: tuple[str, ...]
    regions: tuple[str, ...]
    traits: tuple[str, ...]
    goals: tuple[str, ...]


class PersonChoices(Configurable):
    """The fields by which persons are chosen."""

    youngest: Annotated[int, Field(ge=YOUNGEST, le=OLDEST, title="Youngest", description="Years of age.")] = YOUNGEST
    oldest: Annotated[int, Field(ge=YOUNGEST, le=OLDEST, title="Oldest", description="Years of age.")] = 80
    occupations: Annotated[
        list[str], Field(title="Occupations", description="Such as bus driver. Empty: ours, by age.")
    ] = []
    interests: Annotated[
        list[str], Field(title="Interests", description="Such as chess; a person has two. Empty: ours.")
    ] = []
    regions: Annotated[
        list[str], Field(title="Regions", description="As after `from`: the Alps. Empty: ours, all over the world.")
    ] = []
    traits: Annotated[list[str], Field(title="Traits", description="Such as patient. Empty: ours.")] = []
    goals: Annotated[
        list[str], Field(title="Goals", description="As after `wants to`: learn to swim. Empty: ours.")
    ] = []

    @model_validator(mode="after")
    def _check_ages(self) -> Self:
        if self.youngest > self.oldest:
            raise ValueError(f"youngest={self.youngest} is above oldest={self.oldest}")
        return self

    def lists(self) -> Lists:
        """The lists that were given, ours where none was."""
        ours = our_lists()
        return Lists(
            tuple(map(Occupation, self.occupations)) or ours.occupations,
            tuple(self.interests) or ours.interests,
            tuple(self.regions) or ours.regions,
            tuple(self.traits) or ours.traits,
            tuple(self.goals) or ours.goals,
        )

    def person(self, random: Random) -> Row:
        """A person, by `PERSON_COLUMNS`."""
        lists = self.lists()
        age = random.randint(self.youngest, self.oldest)
        fitting = [each.name for each in lists.occupations if each.youngest <= age <= each.oldest]
        return {
            "age": age,
            "occupation": random.choice(fitting),
            "region": random.choice(lists.regions),
            "interests": random.sample(lists.interests, min(INTERESTS, len(lists.interests))),
            "trait": random.choice(lists.traits),
            "goal": random.choice(lists.goals),
        }


@cache
def our_lists() -> Lists:
    """The lists that come with the project."""
    lists = json.loads((Path(__file__).parent / "data" / "personas.json").read_text(encoding="utf-8"))
    occupations = tuple(Occupation(**each) for each in lists.pop("occupations"))
    return Lists(occupations=occupations, **{name: tuple(values) for name, values in lists.items()})


def persona(person: Row) -> str:
    """A person in one sentence."""
    return (
        f"{article(person['age'])} {person['age']}-year-old {person['occupation']} from {person['region']},"
        f" {person['trait']} and keen on {joined(person['interests'])}, who wants to {person['goal']}."
    )


def article(number: int) -> str:
    """`A` or `An`, as it is spoken before a number below 110."""
    return "An" if number in {8, 11, 18} or 80 <= number < 90 else "A"


def joined(words: Sequence[str]) -> str:
    return " and ".join(words)
