"""`python -m flows view` as a process, as a user starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import LONGEST, ROOT


@contextmanager
def viewed(*arguments: str) -> Iterator[str]:
    """The address that it says. It ends by Ctrl+C, with status 0."""
    command = [sys.executable, "-m", "flows", "view", *arguments, "--no-open"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            assert "http://127.0.0.1:" in said, process.communicate()
            yield said.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            _, problems = process.communicate(timeout=LONGEST)
        assert (process.returncode, problems) == (0, "Ctrl+C ends it.\n")
