"""An S3-compatible store on loopback, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import LONGEST, free_port, wait_for

BUCKET = "shards"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

# moto looks whether an object is there, and writes it then, in as many threads as there are requests.
MOTO = """
import threading

from moto.s3.responses import S3Response
from moto.server import main

put_object, writing = S3Response.put_object, threading.Lock()


def put_object_at_once(self):
    with writing:
        return put_object(self)


S3Response.put_object = put_object_at_once
main()
"""
"""A server whose writes are atomic, as those of S3 are."""


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """A store with the bucket `shards`. Yields the environment that s3fs finds it by."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-c", MOTO, "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "object-store.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **KEYS})
    try:
        wait_for(lambda: is_there(url), what="the object store")
        urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=LONGEST).close()
        yield {**KEYS, "AWS_ENDPOINT_URL": url}
    finally:
        process.kill()
        process.wait()


def is_there(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/moto-api/", timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
