"""The port of a run's own Prefect server, which takes seconds to be served."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from flows.temporary_server import TemporaryServer


def test_nobody_else_gets_the_port_of_a_server_before_it_serves() -> None:
    server = TemporaryServer.start()
    try:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", urlsplit(server.api_url).port or 0))
    finally:
        server.stop()
