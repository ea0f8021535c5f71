"""What a server stands on in production: a database in PostgreSQL, one in Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
import redis

HOST, PORT, REDIS_PORT = "127.0.0.1", 5432, 6379
REDIS_DATABASES = range(1, 16)
PATIENCE = 60
"""Seconds for an answer. A service that isn't there refuses at once."""


@contextmanager
def fresh_database() -> Iterator[str]:
    """The address of a fresh database, gone afterwards. Skips the test where none can be made."""
    name = f"stillflow_{uuid.uuid4().hex[:12]}"
    user = asyncio.run(user_who_may_make_databases())
    if user is None:
        pytest.skip(f"no PostgreSQL at {HOST}:{PORT} lets 'postgres' or 'root' in without a password to make databases")
    asyncio.run(command(user, f"CREATE DATABASE {name} OWNER {user}"))
    try:
        yield f"postgresql+asyncpg://{user}@{HOST}:{PORT}/{name}"
    finally:
        asyncio.run(command(user, f"DROP DATABASE {name} WITH (FORCE)"))


async def user_who_may_make_databases() -> str | None:
    for user in ("postgres", "root"):
        try:
            connection = await asyncpg.connect(host=HOST, port=PORT, user=user, database="postgres", timeout=PATIENCE)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            continue
        try:
            may = await connection.fetchval("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = $1", user)
        finally:
            await connection.close()
        if may:
            return user
    return None


async def command(user: str, statement: str) -> None:
    connection = await asyncpg.connect(host=HOST, port=PORT, user=user, database="postgres", timeout=PATIENCE)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def fresh_redis() -> Iterator[dict[str, str]]:
    """Settings of a Prefect server that keeps its messages in an empty database of Redis, empty again afterwards.

    Skips the test where there is none.
    """
    for number in REDIS_DATABASES:
        client = redis.Redis(HOST, REDIS_PORT, number, socket_timeout=PATIENCE)
        try:
            # Whoever comes at the same time sees that it's taken.
            if client.dbsize() == 0 and client.set("stillflow-test", uuid.uuid4().hex, nx=True):
                break
        except redis.RedisError as error:
            pytest.skip(f"no Redis at {HOST}:{REDIS_PORT}: {error}")
    else:
        pytest.skip(f"Redis at {HOST}:{REDIS_PORT} has no empty database")
    try:
        yield {
            "PREFECT_REDIS_MESSAGING_HOST": HOST,
            "PREFECT_REDIS_MESSAGING_PORT": str(REDIS_PORT),
            "PREFECT_REDIS_MESSAGING_DB": str(number),
            "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
            "PREFECT_SERVER_DOCKET_URL": f"redis://{HOST}:{REDIS_PORT}/{number}",
        }
    finally:
        client.flushdb()
        client.close()
