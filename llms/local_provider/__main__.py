"""The command line: `python -m llms.local_provider --port 8399 --latency 0.2`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from llms.local_provider.app import App
from llms.local_provider.control import Listener
from llms.local_provider.options import ProviderOptions


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m llms.local_provider",
        description="An OpenAI-compatible server for rehearsals, tests and demos. Not a model: it makes answers up.",
    )
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8399, help="0 takes a free one (default: %(default)s)")
    made.add_argument("--ready-file", type=Path, help="file that gets the base URL once the server listens")
    made.add_argument("--until-stdin-closes", action="store_true", help="end when standard input is closed")
    made.add_argument("--options", default="{}", help="any option as JSON, or @FILE; see ProviderOptions")
    made.add_argument("--latency", type=_seconds, help="seconds an answer takes: 0.2, or a range 0.1,0.5")
    made.add_argument("--max-concurrency", type=int, help="more requests at a time get 429")
    made.add_argument("--requests-per-minute", type=float)
    made.add_argument("--tokens-per-minute", type=float)
    made.add_argument("--api-key", help="the only key let in (default: any)")
    made.add_argument("--models", type=lambda text: text.split(","), help="comma-separated; others get 404")
    made.add_argument("--answer-tokens", type=int, help="about how long answers are")
    made.add_argument("--batch-seconds", type=float, help="age at which batches complete")
    made.add_argument("--batch-manual", action="store_true", default=None, help="batches end only when told to")
    made.add_argument("--seed", type=int)
    return made


def _seconds(text: str) -> float | tuple[float, ...]:
    parts = tuple(map(float, text.split(",")))
    return parts[0] if len(parts) == 1 else parts


def options_of(arguments: argparse.Namespace) -> ProviderOptions:
    """Raises `ValueError` on JSON or values that are no options."""
    text: str = arguments.options
    given = orjson.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    named = {name: value for name, value in vars(arguments).items() if value is not None}
    return ProviderOptions().changed(
        {**given, **{name: named[name] for name in named.keys() & ProviderOptions.model_fields.keys()}}
    )


async def serve(options: ProviderOptions, arguments: argparse.Namespace) -> None:
    app, loop, ended = App(options), asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    listener = await Listener.open(app, arguments.host, arguments.port)
    base_url = f"http://{arguments.host}:{listener.port}/v1"
    if arguments.until_stdin_closes:
        _when_stdin_closes(loop, ended.set)
    sys.stdout.write(f"{base_url}\nUse it: export OPENAI_BASE_URL={base_url} OPENAI_API_KEY=local\n")
    sys.stdout.flush()
    if arguments.ready_file is not None:
        partial = Path(f"{arguments.ready_file}.partial")
        partial.write_text(f"{base_url}\n")
        partial.replace(arguments.ready_file)
    await ended.wait()
    await listener.close()
    app.close()


def _when_stdin_closes(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    source = sys.stdin.fileno()

    def read() -> None:
        if not os.read(source, 4096):
            loop.remove_reader(source)
            act()

    loop.add_reader(source, read)


def main(words: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    made = parser()
    arguments = made.parse_args(words)
    try:
        options = options_of(arguments)
    except (ValidationError, ValueError, OSError) as error:
        made.error(f"{error}")
    asyncio.run(serve(options, arguments))


if __name__ == "__main__":
    main()
