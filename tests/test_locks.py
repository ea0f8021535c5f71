"""The versions that are fixed, and why some are bounded."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
from prefect.server.schemas.schedules import CronSchedule

from tests.check_locks import bounded_in, versions_in
from tests.conftest import ROOT

LOCKS = ["requirements.lock", "requirements-machines.lock", "requirements-dev.lock"]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS)
def test_sqlalchemy_is_kept_below_2_1_with_which_no_schedule_of_prefect_fires(lock: str) -> None:
    """Its scheduler dies ("Can't evaluate bulk DML statement"), and only the server's log says so.

    That schedules do fire is tested in tests/integration/test_schedules.py and test_postgres.py; when they do with a
    newer one, `make check-locks` says that the bound can go.
    """
    assert versions_in((ROOT / lock).read_text(encoding="utf-8"))["sqlalchemy"].startswith("2.0.")


@pytest.mark.parametrize("zone", ["Etc/UTC", "Europe/Berlin", None])
def test_a_cron_has_times_in_every_zone_with_the_versions_that_are_locked(zone: str | None) -> None:
    """Where it has none, the server's log alone says so, and no run comes."""
    schedule = CronSchedule(cron="0 6 * * 1", timezone=zone)

    times = asyncio.run(schedule.get_dates(3, start=datetime(2026, 3, 18, tzinfo=UTC)))

    assert [(time.isoweekday(), time.hour) for time in times] == [(1, 6)] * 3


def test_what_is_tried_here_is_what_the_lock_says() -> None:
    locked = versions_in((ROOT / "requirements-dev.lock").read_text(encoding="utf-8"))

    assert {name: version(name) for name in ("prefect", "sqlalchemy")} == {
        name: locked[name] for name in ("prefect", "sqlalchemy")
    }


def test_the_daily_check_lifts_each_bound_alone() -> None:
    found = {name: (bounded, lifted) for bounded, lifted, name in bounded_in(PROJECT)}

    assert found["sqlalchemy"] == ("sqlalchemy>=2.0,<2.1", "sqlalchemy>=2.0")
    assert found["openai"] == ("openai[aiohttp]>=3.20,<4", "openai[aiohttp]>=3.20")
    assert all(f'"{bounded}"' in PROJECT for bounded, _ in found.values())
    bounds = set(re.findall(r'"([\w-]+)[^"]*,<', PROJECT.partition("[dependency-groups]")[0]))
    assert found.keys() == {name.replace("_", "-") for name in bounds}, "all but that of Python"
