"""A pipeline as a file, as a picture and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic_core import to_jsonable_python

from flows.authoring.dotted import values_in
from flows.authoring.routing import RoutingBatchFunction, sample_n_steps
from flows.authoring.saving import MAX_FAILED_ROWS
from flows.engine.errors import PipelineError
from llms.markup import facts_table, framed, headline, table
from llms.parameters import public_path, says_something, short
from llms.variants import imported
from tasks.base import ModelStep
from tasks.sources.loaders import LoadDataFromDicts
from tasks.steps import Step, columns_told

if TYPE_CHECKING:
    from flows.authoring.pipeline import Pipeline

P = TypeVar("P", bound="Pipeline")

OPTIONS = ("name", "description", "use_cache", "max_failed_rows", "shard_rows", "storage")


def dumped(pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline as JSON values. Raises PipelineError where a part of it can't be found again from a file."""
    routers = list(dict.fromkeys(pipeline.routes.values()))
    return {
        "pipeline": pipeline.options(),
        "steps": {name: _dumped_step(name, step) for name, step in pipeline.steps.items()},
        # Beside a route as it was made: what comes first of several matters.
        "connections": {
            name: before for name, before in pipeline.edges.items() if before and before != _routed(pipeline, name)
        },
        "routes": [_dumped_route(router) for router in routers],
    }


def _routed(pipeline: Pipeline, name: str) -> list[str]:
    """The step whose routing function chooses which shards go to `name`, if any."""
    route = pipeline.routes.get(name)
    return [] if route is None or route.before is None else [route.before.name]


def _dumped_step(name: str, step: Step) -> dict[str, Any]:
    path = public_path(type(step))
    if "<locals>" in path or path.startswith("__main__:"):
        raise PipelineError(
            f"{name!r}: a file names classes by their module, and {path!r} can't be imported from one: move the class"
            " to a module of its own"
        )
    # Rows given in code are no parameter, but a part of the pipeline.
    rows = {"data": to_jsonable_python(step.data)} if isinstance(step, LoadDataFromDicts) else {}
    fields = {name for name in step.model_fields_set if says_something(step, name)}
    return {"class": path, **step.model_dump(mode="json", include=fields), **rows}


def _dumped_route(router: RoutingBatchFunction) -> dict[str, Any]:
    if router.count is None or router.before is None:
        raise PipelineError(
            "a routing function of one's own is code, which a file can't hold; sample_n_steps(n) can be saved"
        )
    return {"from": router.before.name, "to": router.successors, "sample_n_steps": router.count}


def build(kind: type[P], values: Mapping[str, Any]) -> P:
    """The pipeline that `dumped` gave. Raises PipelineError or ParameterError."""
    unknown = sorted(set(values) - {"pipeline", "steps", "connections", "routes"})
    if unknown or not isinstance(values.get("steps"), Mapping):
        raise PipelineError(
            "expected a pipeline as `Pipeline.save` writes it, with `pipeline`, `steps`, `connections` and `routes`,"
            f" got {short(sorted(values))}; the parameters of a flow go to `run(parameters=...)` or `--config`"
        )
    options = cast("Mapping[str, Any]", values.get("pipeline") or {})
    if wrong := sorted(set(options) - set(OPTIONS)):
        raise PipelineError(f"pipeline: there's no option {wrong[0]!r}; there are: {', '.join(OPTIONS)}")
    with kind(**options) as pipeline:
        steps = {name: _built_step(name, fields) for name, fields in values["steps"].items()}
        for name, before in cast("Mapping[str, list[str]]", values.get("connections") or {}).items():
            for each in before:
                pipeline.connect(_step_called(steps, each), _step_called(steps, name))
        for route in cast("list[dict[str, Any]]", values.get("routes") or []):
            after = [_step_called(steps, name) for name in route["to"]]
            _step_called(steps, route["from"]).connect(
                *after, routing_batch_function=sample_n_steps(route["sample_n_steps"])
            )
    return pipeline


def _step_called(steps: Mapping[str, Step], name: str) -> Step:
    if name not in steps:
        raise PipelineError(f"connections: there's no step {name!r}; there are: {', '.join(steps)}")
    return steps[name]


def _built_step(name: str, fields: Mapping[str, Any]) -> Step:
    path = str(fields.get("class") or "")
    try:
        found = imported(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise PipelineError(
            f"steps.{name}: class={path!r} can't be imported: {error}. Give it as 'module:Class', such as"
            " 'tasks:TextGeneration'"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Step)):
        raise PipelineError(f"steps.{name}: class={path!r} is no Step")
    rest = {field: value for field, value in fields.items() if field != "class"}
    return found.model_validate({**rest, "name": name})


def write_file(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON values as YAML or JSON. Raises PipelineError for another ending."""
    import yaml

    if path.suffix not in {".yaml", ".yml", ".json"}:
        raise PipelineError(f"expected a file that ends in .yaml, .yml or .json, got {str(path)!r}")
    if path.suffix == ".json":
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.dump(dict(values), Dumper=_dumper(), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _dumper() -> Any:
    """Of YAML: other signs that end a line are escaped, where PyYAML would write them as they are and fold them."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    # PyYAML's own types are partial.
    def text(dumper: Any, value: str) -> yaml.ScalarNode:
        quoted = any(sign in value for sign in "\x85\u2028\u2029")
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if quoted else None)

    Dumper.add_representer(str, text)
    return Dumper


def read_file(path: Path) -> dict[str, Any]:
    """The values in a file, as JSON where its name ends so. Raises PipelineError."""
    try:
        values = values_in(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"can't read a pipeline from {str(path)!r}: {error}") from None
    if not isinstance(values, dict):
        raise PipelineError(f"{str(path)!r} holds no pipeline, but {short(values)}")
    return cast("dict[str, Any]", values)


def flowchart(pipeline: Pipeline) -> str:
    """The steps and what goes from one to the next, in Mermaid."""
    lines = ["flowchart TD"]
    lines += [f'    {name}["{name}<br>{type(step).__name__}"]' for name, step in pipeline.steps.items()]
    for name, before in pipeline.edges.items():
        routed = _routed(pipeline, name)
        lines += [f"    {each} {'-. routed .->' if each in routed else '-->'} {name}" for each in before]
    return "\n".join(lines) + "\n"


def overview(pipeline: Pipeline) -> str:
    """The steps in a table, for a notebook: who is asked, which columns come in and go out."""
    usual = {"use_cache": True, "max_failed_rows": MAX_FAILED_ROWS}
    told = {"name", "description"}
    names = list(pipeline.steps)
    # Where each step follows the one above it, the table's order says it all.
    straight = all(pipeline.edges[name] == names[place - 1 : place] for place, name in enumerate(names) if place)
    header = ["Step", "Class", "Model", "Columns in", "Columns out", *([] if straight else ["After"])]
    rows = [
        [
            name,
            type(step).__name__,
            step.answerer.model_name if isinstance(step, ModelStep) else "",
            columns_told(step.columns_read()),
            columns_told(step.columns_written()),
            *([] if straight else [_before(pipeline, name)]),
        ]
        for name, step in pipeline.steps.items()
    ]
    return framed(
        headline(pipeline.name, pipeline.description or ""),
        table(header, rows) if rows else "<p>No steps.</p>",
        facts_table(
            {name: each for name, each in pipeline.options().items() if name not in told and each != usual.get(name)}
        ),
    )


def _before(pipeline: Pipeline, name: str) -> str:
    routed = _routed(pipeline, name)
    return ", ".join(f"{each} (routed)" if each in routed else each for each in pipeline.edges[name])
