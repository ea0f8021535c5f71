"""The pages on this machine: a server at a loopback address, and a browser that opens them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import webbrowser

import uvicorn

from flows.viewing.errors import ViewError
from flows.viewing.pages import Viewer, viewer_app

ADDRESS = "127.0.0.1"
PORT = 8420
"""Where nobody asked for another one. If it's taken, any that is free."""


def listening(port: int | None) -> socket.socket:
    """A socket that takes connections of this machine alone.

    Args:
        port: None for the usual one, or any that is free.

    Raises:
        ViewError: somebody else has the port.
    """
    try:
        return _bound(PORT if port is None else port)
    except OSError as error:
        if port is not None:
            raise ViewError(f"port {port} can't be used: {error}; give another one with --port") from None
    return _bound(0)


def _bound(port: int) -> socket.socket:
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Elsewhere it would let two programs have one port.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((ADDRESS, port))
        taken.listen()
    except OSError:
        taken.close()
        raise
    return taken


def address_of(taken: socket.socket) -> str:
    return f"http://{ADDRESS}:{taken.getsockname()[1]}"


def serve(viewer: Viewer, taken: socket.socket, *, browse: bool) -> None:
    """Serve the pages until Ctrl+C.

    Args:
        taken: a socket that listens; what is asked before this is called is answered then.
        browse: whether a browser is to open them.
    """
    settings = uvicorn.Config(viewer_app(viewer), log_level="warning", access_log=False, lifespan="off")
    if browse:
        threading.Thread(target=webbrowser.open, args=[address_of(taken)], daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[taken])


def has_browser() -> bool:
    """Whether somebody seems to sit before this machine's screen."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    has_screen = sys.platform in {"darwin", "win32"} or any(os.environ.get(each) for each in screens)
    return has_screen and sys.stdout.isatty()
