"""Times, side by side in one run: `make bench`. Ratios count; seconds depend on the machine.

Each part can be run alone, as `python -m tests.benchmarks.<part>`.
"""

from __future__ import annotations

import json
import subprocess
import sys


def batch_memory() -> str:
    """The most memory of a large batch, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.batch_memory"]
    taken = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return (
        f"A batch of {taken['results']:,} requests, a file of {taken['bytes'] / 1e6:.0f} MB: at most {taken['read']} MB"
        f" of memory, {taken['start']} MB of it before the first"
    )


def main() -> None:
    for title, part in (("Online", "online"), ("Limits", "limits"), ("Providers", "family"), ("Memory", "memory")):
        print(f"\n## {title}\n", flush=True)  # noqa: T201 -- what the command is for
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{part}"], check=True)
    print(f"\n{batch_memory()}")  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
