"""Completion in a shell, by click's own mechanism, of a command that needs no installing."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem, get_completion_class

COMMAND = "stillflow"
VARIABLE = "_STILLFLOW_COMPLETE"
NO_SPACE_AFTER_EQUALS = "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n\n"


def script_for(shell: str, program: click.Command) -> str:
    """A script that defines `stillflow` as the command line of this Python, and completes it.

    Click's scripts ask a program of that name for the words. Here this Python is asked.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"click has no completion for {shell!r}; it has for bash, zsh and fish")
    python = f"{shlex.quote(sys.executable)} -m flows"
    source = kind(program, {}, COMMAND, VARIABLE).source()
    asks = {
        "bash": (r"=bash_complete \$1\)", f"=bash_complete {python} 2>/dev/null)"),
        "zsh": (rf"=zsh_complete {COMMAND}\)", f"=zsh_complete {python} 2>/dev/null)"),
        "fish": (rf"\(commandline -t\) {COMMAND}\)", f"(commandline -t) {python} 2>/dev/null)"),
    }
    pattern, replacement = asks[shell]
    asking, count = re.subn(pattern, lambda _: replacement, source)
    if count != 1:
        raise click.ClickException(f"click's completion for {shell} isn't as it was; use click 8.1 to 8.3")
    fish = f"function {COMMAND}; {python} $argv; end"
    defined = fish if shell == "fish" else f'{COMMAND}() {{ {python} "$@"; }}'
    # It looks for a program of that name, and there's none.
    asking = re.sub(r"\n *\(\( ! \$\+commands\[.*\] \)\) && return 1\n", "\n", asking)
    # A value follows at once.
    asking = asking.replace("    return 0\n", NO_SPACE_AFTER_EQUALS + "    return 0\n") if shell == "bash" else asking
    return f"{defined}\n{asking}"


def flows_beginning(incomplete: str, ready_made: Mapping[str, tuple[str, str]]) -> list[CompletionItem]:
    """The flows that come with the project, and files for those that don't."""
    found = [CompletionItem(name, help=text) for name, (_, text) in ready_made.items() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def parameters_beginning(flow: str, given: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    """The parameters of a flow whose names begin so, with an equals sign; nothing where a value is being typed."""
    from flows.authoring.dotted import given_parameters, paths_in, values_with
    from flows.cli import flow_named
    from llms.parameters import ParameterError

    # Bash takes a name, its equals sign and its value for three words.
    before = " ".join(given).replace(" =", "=").replace("= ", "=").split()
    is_value = bool(before) and ("=" not in before[-1] or before[-1].endswith("="))
    if is_value or "=" in incomplete:
        return []
    try:
        found = flow_named(flow)
        values = values_with(found, given_parameters(None, [each for each in before if "=" in each], found))
    except (click.ClickException, ParameterError):
        return []
    names = [".".join(path) for path in paths_in(values)]
    return [CompletionItem(f"{name}=") for name in names if name.startswith(incomplete)]
