"""A Prefect server with the ready-made flows served, for trying out: `python -m deployments.ui`, or `make ui`.

Uses the server at PREFECT_API_URL where one is set. Without a key, the local provider answers.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

logger = logging.getLogger("stillflow")

PORT = 4200
SECONDS_TO_START = 300
LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ExitStack() as stack:
        api = os.environ.get("PREFECT_API_URL") or start_server(stack)
        os.environ["PREFECT_API_URL"] = api
        if not os.environ.get("OPENAI_API_KEY") and not os.environ.get("OPENAI_BASE_URL"):
            rehearse(stack)
        subprocess.run(
            [sys.executable, "-m", "prefect", "block", "register", "-m", "flows.credentials"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        logger.info("\nThe UI: %s\nEnd with Ctrl+C.\n", api.removesuffix("/api"))
        try:
            subprocess.run([sys.executable, "-m", "deployments.serve"], check=False)
        except KeyboardInterrupt:
            logger.info("ended")


def start_server(stack: ExitStack) -> str:
    """A server on port 4200 of this machine, if none is there. Returns its API's address. Raises SystemExit."""
    api = f"http://127.0.0.1:{PORT}/api"
    if is_up(api):
        return api
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(PORT)]
    # In memory, the places of a shared limit would be forgotten with the server, and stay taken.
    environment = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES_ON_DISK, **os.environ}
    server = stack.enter_context(
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    stack.callback(server.terminate)
    logger.info("starting a Prefect server on port %d ...", PORT)
    for _ in range(SECONDS_TO_START):
        if is_up(api):
            return api
        if server.poll() is not None:
            sys.exit(f"the Prefect server ended with status {server.returncode}; try: prefect server start")
        time.sleep(1)
    sys.exit(f"the Prefect server wasn't up after {SECONDS_TO_START} s; try: prefect server start")


def is_up(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def rehearse(stack: ExitStack) -> None:
    """Let the local provider answer, and say so."""
    from flows.without_key import rehearsal

    stack.enter_context(rehearsal())


if __name__ == "__main__":
    main()
