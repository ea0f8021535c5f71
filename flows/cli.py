"""The command line: `python -m flows`. Everything it does is a call of the library."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from flows.authoring.parameters import Flow
    from flows.engine.run import Run
    from flows.temporary_server import TemporaryServer
    from llms.typing import ChatType, StructuredInput

READY_MADE = {
    "text_generation": (
        "flows.text_generation:text_generation",
        "Answer the prompts of a source, and save the dataset.",
    ),
    "preference": ("flows.preference:preference", "Two answers per prompt, judged, as pairs for DPO."),
    "model_preference": (
        "flows.model_preference:model_preference",
        "An answer of each of three models per prompt, judged, as pairs for DPO.",
    ),
    "embedding_data": (
        "flows.embedding_data:embedding_data",
        "Queries, each with a good and a bad hit, to train a retriever.",
    ),
    "classification_data": (
        "flows.classification_data:classification_data",
        "Texts, each with a right and a misleading label, to train a classifier.",
    ),
    "process_rewards": (
        "flows.process_rewards:process_rewards",
        "Solutions of math problems with labelled steps, for reward models.",
    ),
    "function_calling": (
        "flows.function_calling:function_calling",
        "Requests with function calls, run and judged.",
    ),
    "instruction_data": (
        "flows.instruction_data:instruction_data",
        "Instructions for topics, made harder, answered, and the good ones kept.",
    ),
    "magpie": ("flows.magpie:magpie", "Instructions and answers that an open model makes up from nothing."),
    "watch_batches": (
        "flows.watcher:watch_batches",
        "Wake the runs whose batch jobs have ended, and cancel the jobs of cancelled runs.",
    ),
    "resubmit_failed_rows": (
        "flows.resubmit:resubmit_failed_rows",
        "Ask the failed rows of a deployed run again, as a new run.",
    ),
}
"""The flows that come with the project: where they are, and what they do."""

FLOW_HELP = "FLOW is a name from `list`, or your own: module:flow, or file.py:pipeline.flow."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make datasets with language models, as Prefect flows."""


@main.command("list")
def list_flows() -> None:
    """The flows that come with the project."""
    for name, (_, text) in READY_MADE.items():
        click.echo(f"{name:<22} {text}")


@main.command(help=f"The parameters of a flow, with their defaults.\n\n{FLOW_HELP}")
@click.argument("flow")
def show(flow: str) -> None:
    found = flow_named(flow)
    click.echo(f"{found.name}: {(found.description or '').partition(chr(10))[0]}\n")
    for line in parameter_lines(found.parameters.model_dump()):
        click.echo(line)


@main.command(help=f"The prompts of the first rows. Nothing is sent.\n\n{FLOW_HELP}")
@click.argument("flow")
@click.argument("parameters", nargs=-1)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Parameters, as JSON or YAML.")
@click.option("--rows", default=3, show_default=True, help="How many.")
def preview(flow: str, parameters: tuple[str, ...], config: str | None, rows: int) -> None:
    from flows.authoring.preview import preview as prompts_of

    with clear_errors():
        for step, prompts in prompts_of(flow_named(flow), given_parameters(config, parameters), rows=rows).items():
            for place, prompt in enumerate(prompts):
                click.secho(f"{step}, row {place}", bold=True)
                click.echo(prompt_text(prompt) + "\n")


@main.command(help=f"Run a flow in this process.\n\nParameters are given as step.name.name=value.\n\n{FLOW_HELP}")
@click.argument("flow")
@click.argument("parameters", nargs=-1)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Parameters, as JSON or YAML.")
@click.option("--rows", type=int, help="Only the first rows, for real, saved nowhere.")
@click.option("--rehearse", is_flag=True, help="No key and no cost: the local provider answers, which is no model.")
@click.option("--local-model", is_flag=True, help="No key and no cost: a small real model answers, on this machine.")
def run(
    flow: str, parameters: tuple[str, ...], config: str | None, rows: int | None, rehearse: bool, local_model: bool
) -> None:
    if rehearse and local_model:
        raise click.UsageError("--rehearse and --local-model are two answers to one question: give one of them")
    quiet_logs()
    from flows.temporary_server import server_where_none_is_configured

    server = server_where_none_is_configured()
    from flows.without_key import answers_for, closing_words

    with clear_errors():
        found, given = flow_named(flow), given_parameters(config, parameters)
        with answers_for(flow, found, given, rehearse=rehearse, local_model=local_model) as answers:
            made, places = run_and_tell(found, answers.parameters, rows, server)
        if answers.model:
            click.echo(closing_words(answers.model, made, places))


@main.command()
# Runs that wait for batches come by more often than every two days.
@click.option("--unused-for", type=click.IntRange(min=2), default=30, show_default=True, help="Days.")
@click.option("--model", default="", help="Only answers of this model.")
@click.option("--flow", "flow_name", default="", help="Only answers that no other flow has used.")
@click.option("--yes", is_flag=True, help="Remove it. Without this, it's only listed.")
def clean(unused_for: int, model: str, flow_name: str, yes: bool) -> None:
    """Remove rows, answers and datasets that no run has used for a while.

    From the storage: the folder in STILLFLOW_STORAGE, or ~/.stillflow. What is removed isn't asked again, unless a
    run needs it again: then it's paid again. What waits for batches stays.
    """
    from flows.cleaning import unused
    from flows.store.storage import storage_at

    storage = storage_at()
    with clear_errors():
        found = unused(storage, unused_for, model, flow_name)
        for each in found:
            if yes:
                each.remove()
            click.echo(f"{megabytes(each.size):>10}  {each.days:5.0f} days  {each.name}")
    done = "removed" if yes else "to remove; nothing is removed without --yes"
    if not storage.is_local:
        click.echo(f"{storage.root} has to be cleaned by a lifecycle rule: these are the datasets opened here.")
    click.echo(f"{megabytes(sum(each.size for each in found))} in {len(found):,} places {done}")


@main.command()
@click.option("--export", type=click.Path(dir_okay=False), help="Write every answer to this file, as JSON Lines.")
def ledger(export: str | None) -> None:
    """What was answered so far and is kept: by model, with its tokens and its price.

    What is kept isn't asked, nor paid, again, by any flow of the storage. `clean` removes it.
    """
    from flows.ledger.kept import counted_spaces, exported, known_spaces
    from flows.store.storage import storage_at
    from llms.prices import money

    storage = storage_at()
    with clear_errors():
        if export is not None:
            with Path(export).open("wb") as file:
                count = sum(bool(file.write(line + b"\n")) for line in exported(storage, known_spaces(storage)))
            click.echo(f"{count:,} answers written to {export}")
            return
        every = sorted(counted_spaces(storage), key=lambda each: (each.model, each.days))
    for each in every:
        price = "price unknown" if each.dollars is None else money(each.dollars)
        batches = f", {each.batched:,} by batches" if each.batched else ""
        parameters = json.dumps(each.about.get("parameters") or {}, ensure_ascii=False)
        click.secho(f"{each.model} at {each.address} {parameters}", bold=True)
        click.echo(
            f"  {each.answers:,} answers{batches}, {each.input_tokens:,} input and {each.output_tokens:,} output"
            f" tokens, {price}; used {each.days:.0f} days ago by {', '.join(filter(None, each.flows)) or 'no flow'}"
        )
    click.echo(f"{sum(each.answers for each in every):,} answers in {storage.root}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8400, show_default=True)
@click.option("--secret-block", help="A Prefect Secret block with the signing secret, where it isn't in the variable.")
def webhook(host: str, port: int, secret_block: str | None) -> None:
    """Receive OpenAI's webhooks, and wake the runs whose batches have ended.

    Beside a Prefect server; every deployed run looks after its batches without it too, only later. The endpoint
    is http://HOST:PORT/openai, its signing secret in OPENAI_WEBHOOK_SECRET.
    """
    import logging

    from flows.waiting.webhook import SECRET_BLOCK, serve_webhooks

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("flows").setLevel(logging.INFO)
    with clear_errors():
        serve_webhooks(host, port, secret_block or SECRET_BLOCK)


def quiet_logs() -> None:
    """On a terminal the progress bar tells what the log lines would; elsewhere they are wanted."""
    if sys.stderr.isatty():
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # A server of the run's own would report home at its start.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def flow_named(name: str) -> Flow[..., Any]:
    """A ready-made flow by its name, or any by its import path. Raises click.BadParameter."""
    from prefect import Flow as PrefectFlow
    from prefect.flows import load_flow_from_entrypoint

    from llms.parameters import unknown_name_message
    from llms.secrets import masked

    path = READY_MADE.get(name, (name, ""))[0]
    if ":" not in path:
        raise click.BadParameter(f"{unknown_name_message(name, READY_MADE, 'the project')} Your own go by module:flow.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = load_flow_from_entrypoint(path, use_placeholder_flow=False)
    except Exception as error:  # noqa: BLE001 -- importing a user's module can raise anything
        raise click.BadParameter(masked(f"{path!r} can't be loaded: {type(error).__name__}: {error}")) from None
    if not isinstance(found, PrefectFlow):
        raise click.BadParameter(f"{path!r} is no flow, but {type(found).__name__}")
    return cast("Flow[..., Any]", found)


def given_parameters(config: str | None, arguments: tuple[str, ...]) -> dict[str, Any]:
    """Parameters from a file, with those of the command line on top. Raises ParameterError."""
    from flows.authoring.parameters import over_mapping
    from llms.parameters import ParameterError

    given = read_config(config) if config else {}
    for argument in arguments:
        path, equals, value = argument.partition("=")
        if not equals:
            raise ParameterError(f"expected step.name=value, got {argument!r}")
        nested: Any = read_value(value)
        for name in reversed(path.split(".")):
            nested = {name: nested}
        given = over_mapping(given, nested)
    return given


def read_config(path: str) -> dict[str, Any]:
    """Parameters from a JSON or YAML file. Raises ParameterError."""
    import yaml

    from llms.parameters import ParameterError, short

    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is neither JSON nor YAML: {error}") from None
    if not isinstance(read, Mapping):
        raise ParameterError(f"{path}: expected the parameters by name, got {short(read)}")
    return dict(cast("Mapping[str, Any]", read))


def read_value(text: str) -> Any:
    """A value of the command line: lists and objects as JSON, anything else as text to be coerced."""
    if text[:1] in "[{" or text in {"true", "false", "null"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def parameter_lines(schema: Mapping[str, Any]) -> list[str]:
    """The parameters of a flow for people to read, as dotted names with types and defaults."""
    definitions: Mapping[str, Any] = schema.get("definitions") or {}
    lines: list[str] = []

    def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = node.get("$ref")
        return {**definitions[reference.rpartition("/")[2]], **node} if reference else node

    def describe(path: str, node: Mapping[str, Any]) -> None:
        node = resolved(node)
        tabs = [resolved({"$ref": each["$ref"]}) for each in node.get("anyOf", []) if "$ref" in each]
        properties = (tabs[0] if tabs else node).get("properties")
        if tabs and len(tabs) > 1:
            lines.append(f"  {path}: one of {', '.join(str(tab.get('title')) for tab in tabs)}")
        if properties:
            for name, each in sorted(properties.items(), key=lambda item: item[1].get("position", 0)):
                describe(f"{path}.{name}", each)
            return
        kind = node.get("type") or "/".join(str(each.get("type")) for each in node.get("anyOf", []))
        default = f" = {json.dumps(node['default'], ensure_ascii=False)}" if "default" in node else ""
        choices = f"(one of {', '.join(map(str, node['enum']))})" if "enum" in node else ""
        text = " ".join(filter(None, [node.get("description"), choices]))
        lines.append(f"  {path}: {kind or 'any'}{default}  {text}".rstrip())

    for name, node in schema["properties"].items():
        describe(name, node)
    return lines


def prompt_text(prompt: Any) -> str:
    """A prompt for people to read."""
    if prompt is None:
        return "  (needs the real answers of the step before it)"
    if isinstance(prompt, str):
        return prompt
    chat, schema = cast("StructuredInput", prompt) if isinstance(prompt, tuple) else (cast("ChatType", prompt), None)
    lines = [f"  {message['role']}: {message_text(message)}" for message in chat]
    if schema is not None:
        lines.append(f"  (answer as JSON: {', '.join(schema.get('properties', {}))})")
    return "\n".join(lines)


def message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    said = (
        content
        if isinstance(content, str)
        else " ".join(part.get("text") or f"[{part.get('type')}]" for part in content)
    )
    calls = message.get("tool_calls")
    return " ".join(filter(None, [said, f"[calls {json.dumps(calls, ensure_ascii=False)}]" if calls else ""]))


def run_and_tell(
    flow: Flow[..., Any], parameters: dict[str, Any], rows: int | None, server: TemporaryServer | None
) -> tuple[int, list[str]]:
    """Run a flow, with a progress bar for people and plain lines for logs, and say what came of it.

    Returns:
        How many rows it made, and where they were saved.
    """
    from flows.authoring.preview import checked, dry_run
    from flows.engine.event_loops import setting
    from flows.engine.run import progress_listener, run_started

    runs: list[Run] = []
    checked(flow, parameters)
    if server is not None:
        click.echo("PREFECT_API_URL isn't set: starting a Prefect server for this run alone ...", err=True)
        server.wait_until_ready()
    with setting(run_started, runs.append), ProgressBar() as bar, setting(progress_listener, bar.listener):
        if rows is not None:
            outcome = dry_run(flow, parameters, rows=rows)
        else:
            import asyncio
            import inspect

            started: Any = flow(**parameters)
            outcome = asyncio.run(started) if inspect.iscoroutine(started) else started
    tell(outcome, runs)
    return sum(map(len, datasets_in(outcome).values())), [place for each in runs for place in each.saved]


def datasets_in(outcome: Any) -> dict[str, Any]:
    """What a flow returned of datasets, by name; a single one has none."""
    named = cast("dict[str, Any]", outcome if isinstance(outcome, dict) else {"": outcome})
    return {name: each for name, each in named.items() if hasattr(each, "features")}


def tell(outcome: Any, runs: list[Run]) -> None:
    """Rows, counts, tokens, time, and a look at the first rows."""
    from flows.engine.report import summary_lines

    if isinstance(outcome, str):
        click.echo(outcome)
    for name, dataset in datasets_in(outcome).items():
        click.secho(
            f"\n{name or 'dataset'}: {len(dataset):,} rows, columns {', '.join(dataset.column_names)}", bold=True
        )
        for row in dataset.select(range(min(3, len(dataset)))):
            click.echo("  " + row_text(row))
    click.echo()
    for each in runs:
        for line in summary_lines(each):
            click.echo(line)
        for place in each.saved:
            click.secho(f"saved to {place}", bold=True)


def row_text(row: Mapping[str, Any]) -> str:
    """A row in a line, without its metadata."""
    shown = {name: value for name, value in row.items() if name != "distilabel_metadata"}
    return json.dumps({name: cut(value) for name, value in shown.items()}, ensure_ascii=False, default=str)


def cut(value: Any, length: int = 90) -> Any:
    if isinstance(value, str) and len(value) > length:
        return f"{value[:length]}…"
    if isinstance(value, dict):
        return {name: cut(each, length) for name, each in cast("dict[str, Any]", value).items()}
    return [cut(each, length) for each in cast("list[Any]", value)[:3]] if isinstance(value, list) else value


class ProgressBar:
    """A bar per step on a terminal; nothing elsewhere, where the engine's own log lines tell."""

    def __init__(self) -> None:
        self.listener: Callable[[Run], None] | None = None
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self.listener = self._update
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, run: Run) -> None:
        loaded = sum(progress.rows_out for progress in run.progress.values() if not progress.rows_in)
        known = {task.description: task.id for task in self._bar.tasks}
        for progress in run.progress.values():
            if progress.name not in known:
                known[progress.name] = self._bar.add_task(progress.name, total=None)
            done = max(progress.rows_out, progress.answered)
            self._bar.update(known[progress.name], completed=done, total=max(loaded, done))


@contextmanager
def clear_errors() -> Generator[None]:
    """An error with a clear message ends the command with that message and status 1."""
    from prefect.exceptions import ParameterTypeError

    from flows.engine.errors import CLEAR_ERRORS
    from llms.secrets import masked

    try:
        yield
    except (*CLEAR_ERRORS, ParameterTypeError) as error:
        raise click.ClickException(masked(str(error))) from None
