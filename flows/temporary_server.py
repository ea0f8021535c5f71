"""A Prefect server for one run, where none is configured: started beside the run's own imports, not after them.

Prefect starts such a server by itself, but not before its first client is made, and it loads the code of the whole
server into the run's process for that. The run then begins seconds later.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from llms.root import with_project

ADDRESS = "127.0.0.1"
SECONDS_TO_START = 300.0
BEGIN = b"serve\n"


class TemporaryServer:
    """A server as a process of its own, on SQLite as Prefect's settings have it. It ends with this process.

    Started, it only imports what a server needs, which takes seconds: for a command that turns out to be a mistake
    nothing is served, and no database made.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.api_url = f"http://{ADDRESS}:{port}/api"
        self._process = process
        self._begun = False

    @classmethod
    def start(cls) -> TemporaryServer:
        settings = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        # Bound here already: what the server imports takes seconds, in which somebody else may be given a free port.
        with socket.socket() as bound:
            bound.bind((ADDRESS, 0))
            port = bound.getsockname()[1]
            handed_over = [bound.fileno()] if os.name == "posix" else []
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.temporary_server", str(port), *map(str, handed_over)],
                env=with_project({**os.environ, **settings}),
                stdin=subprocess.PIPE,
                pass_fds=handed_over,
                # Ctrl-C is for the run, which tells its server how it ended.
                start_new_session=True,
            )
        return cls(port, process)

    def serve(self) -> None:
        """Let it begin. Until then its process has only imported what it needs."""
        pipe = self._process.stdin
        if pipe is None or self._begun:
            return
        self._begun = True
        # One that ended before is told of when it's waited for.
        with contextlib.suppress(BrokenPipeError):
            pipe.write(BEGIN)
            pipe.flush()

    def wait_until_ready(self) -> None:
        """Raises SetupError where the server ended, or takes too long."""
        import httpx

        from flows.engine.errors import SetupError

        self.serve()
        end = time.monotonic() + SECONDS_TO_START
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < end:
                if self._process.poll() is not None:
                    raise SetupError(
                        f"the Prefect server for this run ended with status {self._process.returncode}; what it said"
                        " stands above. Or use one of your own, by PREFECT_API_URL"
                    )
                try:
                    if client.get(f"{self.api_url}/health").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise SetupError(
            f"the Prefect server for this run isn't ready after {SECONDS_TO_START:.0f} s; try again, or use one of"
            " your own, by PREFECT_API_URL"
        )

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def server_where_none_is_configured() -> TemporaryServer | None:
    """A server that is about to be, and Prefect's settings pointed to it; None where there may be settings for another.

    To be called before Prefect is imported.
    """
    if _is_configured():
        return None
    server = TemporaryServer.start()
    # Registered before anything of Prefect's, so done after it: its last logs and events are still taken.
    atexit.register(server.stop)
    os.environ["PREFECT_API_URL"] = server.api_url
    # No pages are served, and nobody is to be sent to one.
    os.environ["PREFECT_UI_URL"] = ""
    return server


def _is_configured() -> bool:
    """Whether a server may be set, in any of the places where Prefect looks: seen without a second of imports."""
    if any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE")) or any(
        "EPHEMERAL" in name for name in os.environ
    ):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    files = {
        profiles: b"prefect_",
        Path("prefect.toml"): b"",
        Path(".env"): b"prefect_",
        Path("pyproject.toml"): b"tool.prefect",
    }
    return any(path.is_file() and word in path.read_bytes().lower() for path, word in files.items())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def main(port: int, descriptor: int | None = None) -> None:
    """Serve once standard input says so, until it's closed: who wanted the server is gone then, however it ended.

    Args:
        descriptor: of a socket that has the port already.
    """
    import uvicorn

    import_module("prefect.server.api.server")

    if sys.stdin.buffer.readline() != BEGIN:
        return

    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app", factory=True, port=port, log_level="error", lifespan="on"
        )
    )

    def end_with_the_run() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_the_run, daemon=True).start()
    sockets = None if descriptor is None else [socket.socket(fileno=descriptor)]
    for each in sockets or ():
        each.set_inheritable(False)
    server.run(sockets)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
