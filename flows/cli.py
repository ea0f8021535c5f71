"""The command line: `python -m flows`. Everything it does is a call of the library."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from prefect import Flow as PrefectFlow

    from flows.authoring.estimating import StepEstimate
    from flows.authoring.parameters import Flow
    from flows.engine.run import Run
    from flows.ledger.kept import KeptSpace
    from flows.new_files import Kind
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
    "reasoning_data": (
        "flows.reasoning_data:reasoning_data",
        "Solutions of problems with their reasoning, verified by answers, tests or a judge.",
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

SHELLS = ("bash", "zsh", "fish")
"""Those that click completes for."""
STOPPED = 130
"""The status of a command that Ctrl+C ended, as shells have it."""

FLOW_HELP = "FLOW is a name from `list`, or your own: module:flow, or file.py:pipeline.flow."
PARAMETERS_HELP = (
    "PARAMETERS are given as step.name.name=value. Where one parameter alone has a name, that is enough:"
    " llm.temperature=1 is text_generation.llm.generation_kwargs.temperature=1."
)


def examples(*commands: str) -> str:
    """Commands as the end of a help text, as they stand."""
    lines = "\n".join(f"  python -m flows {each}" for each in commands)
    return f"\b\nExamples:\n{lines}"


def complete_flow(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from flows.completion import flows_beginning

    return flows_beginning(incomplete, READY_MADE)


def complete_parameter(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from flows.completion import parameters_beginning

    given = cast("tuple[str, ...]", context.params.get("parameters") or ())
    return parameters_beginning(str(context.params.get("flow")), given, incomplete)


flow_argument = click.argument("flow", shell_complete=complete_flow)
parameters_argument = click.argument("parameters", nargs=-1, shell_complete=complete_parameter)
config_option = click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), help="Parameters, as JSON or YAML."
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")


def print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from flows.checks import version

        click.echo(f"stillflow {version()}")
        context.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "run text_generation --local-model",
        "show text_generation",
        "preview text_generation source.data_files=prompts.jsonl",
        "check",
    ),
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="Which one.")
def main() -> None:
    """Make datasets with language models, as Prefect flows."""


@main.command("list", epilog=examples("list", "list --json"))
@json_option
def list_flows(as_json: bool) -> None:
    """The flows that come with the project."""
    if as_json:
        print_json([{"name": name, "entrypoint": path, "text": text} for name, (path, text) in READY_MADE.items()])
        return
    for name, (_, text) in READY_MADE.items():
        click.echo(f"{name:<22} {text}")


@main.command(
    help=f"The parameters of a flow, with their defaults; with PARAMETERS, as these make them.\n\n{FLOW_HELP}",
    epilog=examples("show text_generation", "show text_generation llm.provider=anthropic", "show preference --json"),
)
@flow_argument
@parameters_argument
@config_option
@json_option
def show(flow: str, parameters: tuple[str, ...], config: str | None, as_json: bool) -> None:
    found = flow_named(flow)
    from flows.authoring.listing import form_with, parameter_entries, parameter_lines

    with clear_errors():
        entries = parameter_entries(form_with(found, given_parameters(config, parameters, found)))
    text = (found.description or "").partition(chr(10))[0]
    if as_json:
        print_json({"name": found.name, "description": text, "parameters": entries})
        return
    click.echo(f"{found.name}: {text}\n")
    for line in parameter_lines(entries):
        click.echo(line)


@main.command(
    help="The prompts of the first rows, and what all rows would take. Nothing is sent.\n\nRequests, tokens and dollars"
    " of each step: asked online, at a provider's flex tier, and in batches. A + says that others aren't counted: the"
    f" step asks in rounds, or its rows depend on answers.\n\n{PARAMETERS_HELP}\n\n{FLOW_HELP}",
    epilog=examples(
        "preview text_generation",
        "preview text_generation --rows 1 system_prompt='Be brief.'",
        "preview preference source.data_files=prompts.jsonl --json",
    ),
)
@flow_argument
@parameters_argument
@config_option
@click.option("--rows", default=3, show_default=True, help="How many.")
@json_option
def preview(flow: str, parameters: tuple[str, ...], config: str | None, rows: int, as_json: bool) -> None:
    found = flow_named(flow)
    from dataclasses import asdict

    from flows.authoring.estimating import look

    with clear_errors():
        seen = look(found, given_parameters(config, parameters, found), rows=rows)
    if as_json:
        print_json({"prompts": seen.prompts, "estimates": [asdict(each) for each in seen.estimates]})
        return
    for step, prompts in seen.prompts.items():
        for place, prompt in enumerate(prompts):
            click.secho(f"{step}, row {place}", bold=True)
            click.echo(prompt_text(prompt) + "\n")
    if seen.estimates:
        tell_estimates(seen.estimates)


@main.command(
    help=f"Run a flow in this process.\n\n{PARAMETERS_HELP}\n\n{FLOW_HELP}",
    epilog=examples(
        "run text_generation --local-model",
        "run text_generation source.data_files=prompts.jsonl llm.temperature=0.3",
        "run preference --rows 3",
        "run my_flows.py:pipeline.flow --config parameters.yaml --json",
    ),
)
@flow_argument
@parameters_argument
@config_option
@click.option("--rows", type=int, help="Only the first rows, for real, saved nowhere.")
@click.option("--rehearse", is_flag=True, help="No key and no cost: the local provider answers, which is no model.")
@click.option("--local-model", is_flag=True, help="No key and no cost: a small real model answers, on this machine.")
@json_option
def run(
    flow: str,
    parameters: tuple[str, ...],
    config: str | None,
    rows: int | None,
    rehearse: bool,
    local_model: bool,
    as_json: bool,
) -> None:
    if rehearse and local_model:
        raise click.UsageError("--rehearse and --local-model are two answers to one question: give one of them")
    path_of(flow)
    quiet_logs()
    from flows.temporary_server import server_where_none_is_configured

    server = server_where_none_is_configured()
    try:
        found = flow_named(flow)
    except click.ClickException:
        if server is not None:
            server.stop()
        raise
    from flows.authoring.preview import checked
    from flows.without_key import answers_for, closing_words

    with clear_errors():
        given = given_parameters(config, parameters, found)
        if server is not None and holds_block(given):
            # Which it's asked for, to check them.
            server.wait_until_ready()
        checked(found, given)
        if server is not None:
            server.serve()
        with answers_for(flow, found, given, rehearse=rehearse, local_model=local_model) as answers:
            outcome, runs = run_and_wait(found, answers.parameters, rows, server)
        tell_json(outcome, runs) if as_json else tell(outcome, runs)
        if answers.model and not as_json:
            made = sum(map(len, datasets_in(outcome).values()))
            click.echo(closing_words(answers.model, made, [place for each in runs for place in each.saved.places]))


@main.command(
    epilog=examples(
        "view data/text-generation",
        "view 'text-generation, 80 rows, gpt-4o-mini'",
        "view before.jsonl after.jsonl --on instruction",
    )
)
@click.argument("place", metavar="PATH_OR_RUN")
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--on", multiple=True, metavar="COLUMN", help="Of two: compare the rows that have the same value there.")
@click.option("--port", type=click.IntRange(1, 65535), help="8420 unless you say so, or another where that's taken.")
@click.option("--open/--no-open", "browse", default=None, help="Whether a browser opens it; where there is one, yes.")
def view(place: str, other: str | None, on: tuple[str, ...], port: int | None, browse: bool | None) -> None:
    """Look at the rows of a dataset, or of two side by side, in a browser.

    PATH_OR_RUN is a file or a folder of Parquet, Arrow, JSON Lines, JSON or CSV, or the id or the name of a run whose
    rows are on this machine. The pages are served to browsers of this machine alone.
    """
    from flows.store.storage import StorageError, storage_at
    from flows.viewing.errors import ViewError
    from flows.viewing.opening import opened

    try:
        sides = [opened(each, storage_at()) for each in (place, other) if each]
        from flows.viewing.pages import Viewer
        from flows.viewing.serving import address_of, has_browser, listening, serve
        from llms.quantities import quantity

        viewer = Viewer(sides, on)
        taken = listening(port)
    except (ViewError, StorageError) as error:
        raise click.ClickException(str(error)) from None
    rows = " and ".join(f"{quantity(len(each.table), 'row')} of {each.origin}" for each in viewer.datasets[:2])
    # Who reads the address may press it before the server is there to see to it.
    with suppress(KeyboardInterrupt):
        click.echo(f"{rows}: {address_of(taken)}")
        click.echo("Ctrl+C ends it.", err=True)
        serve(viewer, taken, browse=has_browser() if browse is None else browse)


@main.command(epilog=examples("new flow reviews", "new task rate_reviews", "new llm our_llm models/our_llm.py"))
@click.argument("kind", type=click.Choice(["flow", "task", "llm"]))
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
def new(kind: Kind, name: str, file: Path | None, as_json: bool) -> None:
    """Write a flow, a Task or an LLM to start from, and a test that passes.

    NAME is in snake case: `rate_reviews` is a flow of that name, or a class RateReviews. FILE is NAME.py in this
    folder unless you give another; its test is written beside it. No file that is there is changed.
    """
    from flows.new_files import NewFileError, write

    try:
        written = write(kind, name, file)
    except NewFileError as error:
        raise click.ClickException(str(error)) from None
    commands = written.next_commands()
    if as_json:
        files = [str(written.file), str(written.test)]
        print_json({"kind": kind, "defines": written.called, "files": files, "next": commands})
        return
    said = {"flow": "flow", "task": "Task", "llm": "LLM"}[kind]
    click.echo(f"{written.file} has the {said} {written.called}, {written.test} its test. Next:")
    for command in commands:
        click.echo(f"  {command}")


@main.command(epilog=examples("check", "check --json"))
@json_option
def check(as_json: bool) -> None:
    """What is there to run with, and what to do about what isn't.

    Keys, models, packages, the storage, Prefect's server. Starts nothing, shows no key, and asks nobody for anything
    that costs: providers whose key is set are asked which models it may use. Ends with status 1 where something that
    is set doesn't work.
    """
    quiet_logs()
    from dataclasses import asdict

    from flows.checks import check_all, table

    found = check_all()
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        table(found, width=None if sys.stdout.isatty() else 200)
    if any(each.state == "wrong" for each in found):
        raise click.exceptions.Exit(1)


@main.command(epilog='\b\nFor a shell in the folder of the project:\n  eval "$(python -m flows completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """A script that lets a shell complete commands, flows and parameters.

    It defines `stillflow` as the command line of this Python, to be used in the project's folder.
    """
    from flows.completion import script_for

    click.echo(script_for(shell, main))


@main.command(epilog=examples("clean", "clean --unused-for 60 --yes", "clean --model gpt-4o --flow my-flow --yes"))
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
    from llms.quantities import quantity

    storage = storage_at()
    with clear_errors():
        found = unused(storage, unused_for, model, flow_name)
        for each in found:
            if yes:
                each.remove()
            click.echo(f"{megabytes(each.size):>10}  {quantity(round(each.days), 'day'):>10}  {each.name}")
    done = "removed" if yes else "to remove; nothing is removed without --yes"
    if not storage.is_local:
        click.echo(f"{storage.root} has to be cleaned by a lifecycle rule: these are the datasets opened here.")
    click.echo(f"{megabytes(sum(each.size for each in found))} in {quantity(len(found), 'place')} {done}")


@main.command(epilog=examples("ledger", "ledger --json", "ledger --export answers.jsonl"))
@click.option("--export", type=click.Path(dir_okay=False), help="Write every answer to this file, as JSON Lines.")
@json_option
def ledger(export: str | None, as_json: bool) -> None:
    """What was answered so far and is kept: by model, with its tokens and its price.

    What is kept isn't asked, nor paid, again, by any flow of the storage. `clean` removes it.
    """
    from flows.ledger.kept import counted_spaces, exported, known_spaces
    from flows.store.storage import storage_at
    from llms.prices import money
    from llms.quantities import quantity

    storage = storage_at()
    with clear_errors():
        if export is not None:
            with Path(export).open("wb") as file:
                count = sum(bool(file.write(line + b"\n")) for line in exported(storage, known_spaces(storage)))
            click.echo(f"{quantity(count, 'answer')} written to {export}")
            return
        every = sorted(counted_spaces(storage), key=lambda each: (each.model, each.days))
    if as_json:
        print_json([kept_entry(each) for each in every])
        return
    for each in every:
        price = "price unknown" if each.dollars is None else money(each.dollars)
        batches = f", {each.batched:,} by batches" if each.batched else ""
        parameters = json.dumps(each.about.get("parameters") or {}, ensure_ascii=False)
        click.secho(f"{each.model} at {each.address} {parameters}", bold=True)
        used = f"{quantity(round(each.days), 'day')} ago by {', '.join(filter(None, each.flows)) or 'no flow'}"
        click.echo(
            f"  {quantity(each.answers, 'answer')}{batches}, {each.input_tokens:,} input and"
            f" {each.output_tokens:,} output tokens, {price}; used {used}"
        )
    click.echo(f"{quantity(sum(each.answers for each in every), 'answer')} in {storage.root}")


def kept_entry(kept: KeptSpace) -> dict[str, Any]:
    """Kept answers of one model at one address, for programs. `dollars` is null where the price isn't known."""
    return {
        "model": kept.model,
        "address": kept.address,
        "parameters": kept.about.get("parameters") or {},
        "answers": kept.answers,
        "batched": kept.batched,
        "input_tokens": kept.input_tokens,
        "output_tokens": kept.output_tokens,
        "dollars": kept.dollars,
        "days_unused": kept.days,
        "flows": sorted(filter(None, kept.flows)),
    }


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@main.command(epilog=examples("webhook --host 0.0.0.0 --port 8400"))
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
    logging.getLogger(__package__).setLevel(logging.INFO)
    with clear_errors():
        serve_webhooks(host, port, secret_block or SECRET_BLOCK)


def quiet_logs() -> None:
    """On a terminal the progress bar tells what the log lines would; elsewhere they are wanted."""
    if sys.stderr.isatty():
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # A server of the run's own would report home at its start.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def path_of(name: str) -> str:
    """The import path of a flow. Raises click.BadParameter for a name that none has, without importing Prefect."""
    path = READY_MADE.get(name, (name, ""))[0]
    if ":" not in path:
        near = difflib.get_close_matches(name, READY_MADE, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are: {', '.join(READY_MADE)}."
        raise click.BadParameter(f"no flow {name!r} comes with the project. {hint} Your own go by module:flow.")
    return path


def flow_named(name: str) -> Flow[..., Any]:
    """A ready-made flow by its name, or any by its import path. Raises click.BadParameter."""
    path = path_of(name)
    from prefect import Flow as PrefectFlow
    from prefect.flows import load_flow_from_entrypoint

    from llms.secrets import masked

    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = load_flow_from_entrypoint(path, use_placeholder_flow=False)
    except Exception as error:  # noqa: BLE001 -- importing a user's module can raise anything
        raise click.BadParameter(masked(f"{path!r} can't be loaded: {type(error).__name__}: {error}")) from None
    if not isinstance(found, PrefectFlow):
        raise click.BadParameter(f"{path!r} is no flow, but {type(found).__name__}")
    return cast("Flow[..., Any]", found)


def given_parameters(
    config: str | None, arguments: Sequence[str], flow: PrefectFlow[..., Any] | None = None
) -> dict[str, Any]:
    """Parameters from a file, with those of the command line on top. What a name in part stands for goes to stderr.

    Raises:
        ParameterError: see `flows.authoring.dotted`.
    """
    from flows.authoring import dotted

    return dotted.given_parameters(config, arguments, flow, lambda text: click.echo(text, err=True))


def tell_estimates(estimates: Sequence[StepEstimate]) -> None:
    """What all rows would take, in a table: the ways to ask side by side."""
    from rich.console import Console
    from rich.table import Table

    from flows.engine.costs import rounded, total

    def row(name: str, model: str, some: Sequence[StepEstimate]) -> list[str]:
        count = sum(each.requests for each in some)
        tokens = [sum(each.input_tokens for each in some), sum(each.output_tokens for each in some)]
        ways = [[each.online for each in some], [each.flex for each in some], [each.batch for each in some]]
        mark = "+" if any(each.uncounted for each in some) else ""
        return [name, model, f"{count:,}{mark}", *map(rounded, tokens), *(str(total(way)) for way in ways)]

    table = Table(box=None, pad_edge=False, show_edge=False)
    for number, name in enumerate(["All rows", "Model", "Requests", "Tokens in", "out", "Online", "Flex", "Batch"]):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=number > 1)
    for each in estimates:
        table.add_row(*row(each.step, each.model, [each]))
    if len(estimates) > 1:
        table.add_row(*row("all", "", estimates))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    for guess in dict.fromkeys(each.guess for each in estimates):
        click.echo(f"Output tokens: {guess}.")
    click.echo("At list prices, with nothing kept. –: no such way, or no known price. +: and others, see --help.")


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


def holds_block(value: Any) -> bool:
    """Whether a reference to one of Prefect's blocks is among parameters."""
    from llms.references import is_block

    if isinstance(value, list):
        return any(map(holds_block, cast("list[Any]", value)))
    if not isinstance(value, dict):
        return False
    items = cast("dict[str, Any]", value)
    return is_block(items) or any(map(holds_block, items.values()))


def run_and_wait(
    flow: Flow[..., Any], parameters: dict[str, Any], rows: int | None, server: TemporaryServer | None
) -> tuple[Any, list[Run]]:
    """Run a flow, with a progress bar for people and plain lines for logs.

    Returns:
        What the flow returned, and its runs of the engine.
    """
    from flows.authoring.preview import dry_run
    from flows.engine.event_loops import setting
    from flows.engine.prefect_pages import in_default_ui
    from flows.engine.run import progress_listener, run_started

    runs: list[Run] = []

    def began(run: Run) -> None:
        runs.append(run)
        # A server of the run's own is gone before anybody looks.
        if server is None and run.flow_run.url and not run.flow_run.in_task:
            click.echo(f"its page: {in_default_ui(run.flow_run.url)}", err=True)

    if server is not None:
        click.echo("PREFECT_API_URL isn't set: starting a Prefect server for this run alone ...", err=True)
        server.wait_until_ready()
    with setting(run_started, began), ProgressBar() as bar, setting(progress_listener, bar.listener):
        try:
            if rows is not None:
                return dry_run(flow, parameters, rows=rows), runs
            import asyncio
            import inspect

            started: Any = flow(**parameters)
            return asyncio.run(started) if inspect.iscoroutine(started) else started, runs
        except KeyboardInterrupt:
            bar.stop()
            click.echo("\n".join(["", *interrupted_lines(runs)]), err=True)
            raise click.exceptions.Exit(STOPPED) from None


def interrupted_lines(runs: Sequence[Run]) -> list[str]:
    """After Ctrl+C: what is kept of runs, what goes on without them, and how they are gone on with."""
    from flows.ledger.records import Jobs
    from llms.quantities import quantity

    lines = ["Stopped."]
    for run in runs:
        sent = sum(each.work.sent.requests for each in run.progress.values())
        if sent:
            answers = quantity(sent, "answer of this run is", "answers of this run are")
            lines.append(f"{answers} kept in {run.storage.root}: none is asked, or paid, again.")
        lines += [f"Saved before: {place}" for place in run.saved.places]
        waiting = [each for each in Jobs(run.storage).all_open() if each.attempt == run.attempt]
        if waiting:
            jobs = ", ".join(each.job or "one that is just being submitted" for each in waiting)
            lines.append(f"Its batch jobs go on at the provider: {jobs}. They are waited for, not submitted again.")
    lines.append("To go on, give the same command again: it asks only what is missing.")
    return lines


def datasets_in(outcome: Any) -> dict[str, Any]:
    """What a flow returned of datasets, by name; a single one has none."""
    named = cast("dict[str, Any]", outcome if isinstance(outcome, dict) else {"": outcome})
    return {name: each for name, each in named.items() if hasattr(each, "features")}


def tell(outcome: Any, runs: list[Run]) -> None:
    """Rows, counts, tokens, time, and a look at the first rows."""
    from flows.engine.report import summary_lines
    from llms.quantities import quantity

    if isinstance(outcome, str):
        click.echo(outcome)
    for name, dataset in datasets_in(outcome).items():
        rows, columns = quantity(len(dataset), "row"), ", ".join(dataset.column_names)
        click.secho(f"\n{name or 'dataset'}: {rows}, columns {columns}", bold=True)
        for row in dataset.select(range(min(3, len(dataset)))):
            click.echo("  " + row_text(row))
    click.echo()
    for each in runs:
        for line in summary_lines(each):
            click.echo(line)
        for place in each.saved.places:
            click.secho(f"saved to {place}", bold=True)


def tell_json(outcome: Any, runs: Sequence[Run]) -> None:
    """What came of a run, for programs."""
    from flows.engine.costs import cost_of_run
    from flows.engine.report import failures, total_work

    datasets = [
        {"name": name or None, "rows": len(each), "columns": each.column_names, "first": each[0] if len(each) else None}
        for name, each in datasets_in(outcome).items()
    ]
    told: list[dict[str, Any]] = []
    for each in runs:
        sent, spent = total_work(each).sent, cost_of_run(each.progress.values())
        told.append(
            {
                "id": each.id,
                "steps": [
                    {"name": step.name, "rows": step.rows_out, "failed": step.failed} for step in each.progress.values()
                ],
                "requests_sent": sent.requests,
                "input_tokens": sent.input_tokens,
                "output_tokens": sent.output_tokens,
                "dollars": spent.dollars,
                "dollars_are_all": not spent.partial,
                "failures": [
                    {"step": step, "type": kind, "message": message, "rows": count}
                    for step, kind, message, count in failures(each)
                ],
                "saved": each.saved.places,
            }
        )
    print_json({"said": outcome if isinstance(outcome, str) else None, "datasets": datasets, "runs": told})


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


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
                TextColumn("{task.fields[said]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self.listener = self._update
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, run: Run) -> None:
        from flows.engine.report import bar_of

        known = {task.description: task.id for task in self._bar.tasks}
        for progress in run.progress.values():
            if progress.name not in known:
                known[progress.name] = self._bar.add_task(progress.name, total=None, said="")
            bar = bar_of(run, progress)
            self._bar.update(known[progress.name], completed=bar.done, total=bar.whole or bar.done, said=bar.said)


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
