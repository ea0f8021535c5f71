"""What follows where a provider didn't say that it created a job."""

from __future__ import annotations

import pytest

from flows.ledger.creating import after_failure
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    InvalidResponseError,
    LLMError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)

NO: list[LLMError] = [
    AuthenticationError("wrong key"),
    BadRequestError("no such model"),
    QuotaExceededError("no money left"),
]
MAYBE: list[LLMError] = [
    ConnectionFailedError("reset"),
    RequestTimeoutError("no answer"),
    OverloadedError("503"),
    InvalidResponseError("not JSON"),
]


def names(failures: list[LLMError]) -> list[str]:
    return [type(each).__name__ for each in failures]


@pytest.mark.parametrize("failure", NO, ids=names(NO))
def test_a_no_of_the_provider_is_final_and_no_job_is_looked_for(failure: LLMError) -> None:
    doubt = after_failure(failure, tries=1, max_retries=6)

    assert doubt.is_over
    assert doubt.is_void


@pytest.mark.parametrize("failure", MAYBE, ids=names(MAYBE))
@pytest.mark.parametrize("tries", [1, 6, 7])
def test_a_job_that_may_have_been_created_is_never_void(failure: LLMError, tries: int) -> None:
    doubt = after_failure(failure, tries, max_retries=6)

    assert not doubt.is_void
    assert doubt.is_over == (tries == 7)


@pytest.mark.parametrize("tries", [1, 7])
def test_where_there_is_no_room_it_is_tried_again_at_the_providers_pace_without_a_look(tries: int) -> None:
    doubt = after_failure(RateLimitError("slow down"), tries, max_retries=6)

    assert doubt.is_void
    assert doubt.shows_at_once
    assert doubt.is_over == (tries == 7)


def test_only_a_job_whose_answer_was_on_its_way_may_show_up_later() -> None:
    later = {
        name for name, each in zip(names(MAYBE), MAYBE, strict=True) if not after_failure(each, 1, 6).shows_at_once
    }

    assert later == {"RequestTimeoutError", "OverloadedError", "InvalidResponseError"}
