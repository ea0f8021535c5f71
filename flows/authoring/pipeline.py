"""`Pipeline`: steps connected with `>>`, compiled to one Prefect flow with one parameter per step."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import Field

from flows.authoring.datasets_by_name import Datasets
from flows.authoring.parameters import Flow
from flows.authoring.pipeline_file import build, dumped, flowchart, overview, read_file, write_file
from flows.authoring.preview import checked, preview
from flows.authoring.routing import RoutedRows, RoutingBatchFunction
from flows.authoring.saving import MAX_FAILED_ROWS, finish
from flows.engine.errors import PipelineError
from flows.engine.event_loops import run_anywhere, setting
from flows.engine.execution import check_columns, source_columns
from flows.engine.graph import Node, Rows, load
from flows.engine.run import SHARD_ROWS, Limits, Spending, current_run, limits_of_run, named
from llms.parameters import set_quietly
from llms.quantities import quantity
from llms.typing import FormattedInput
from tasks.sources.errors import SourceError
from tasks.sources.generators import makes_rows
from tasks.steps import GeneratorStep, PipelineLike, Step, current_pipeline, snake_case
from tasks.targets.savers import Saver

if TYPE_CHECKING:
    from datasets import Dataset  # pyright: ignore[reportMissingTypeStubs]

logger = logging.getLogger(__name__)

ROUTED_SHARD_ROWS = 50
ROUTED_ROWS = RoutedRows()
"""Made here: a step that is made where a pipeline's `with` block is open would belong to it."""


class Pipeline:
    """Steps and how they are connected.

    Args:
        name: of the flow, in Prefect. Default: made from the names of its steps.
        description: shown with the flow.
        use_cache: take answers of earlier runs with the same requests.
        max_failed_rows: how many rows may fail before the run does: below 1 a share, else a count.
        shard_rows: the most rows of a shard, which is a Prefect task run per step. Routing works by shards, so
            there it's 50 unless said otherwise.
        storage: where shards are kept: a folder or an fsspec address.
    """

    def __init__(
        self,
        name: str | None = None,
        description: str | None = None,
        *,
        use_cache: bool = True,
        max_failed_rows: float = MAX_FAILED_ROWS,
        shard_rows: int | None = None,
        storage: str | None = None,
    ) -> None:
        self._name = name
        self.description = description
        self.use_cache = use_cache
        self.max_failed_rows = max_failed_rows
        self.storage = storage
        self.steps: dict[str, Step] = {}
        self.edges: dict[str, list[str]] = {}
        """A step's name: to the names of those before it."""
        self.routes: dict[str, RoutingBatchFunction] = {}
        self._shard_rows = shard_rows
        self._token: Token[PipelineLike | None] | None = None

    @property
    def name(self) -> str:
        """The flow's name."""
        return self._name or "-".join(["pipeline", *self.steps]).replace("_", "-")

    def __enter__(self) -> Self:
        self._token = current_pipeline.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            current_pipeline.reset(self._token)
            # It can't be pickled, and a served flow is.
            self._token = None

    def options(self) -> dict[str, Any]:
        """What it was made with, as far as it says something."""
        given = {
            "name": self._name,
            "description": self.description,
            "use_cache": self.use_cache,
            "max_failed_rows": self.max_failed_rows,
            "shard_rows": self._shard_rows,
            "storage": self.storage,
        }
        return {name: value for name, value in given.items() if value is not None}

    def add_step(self, step: Step) -> str:
        """Take a step in. Returns its name: its own, or one made from its class. Raises PipelineError."""
        name = step.name or self._free_name(snake_case(type(step).__name__))
        if not name.isidentifier():
            raise PipelineError(
                f"a step's name becomes a parameter of the flow: letters, digits and underscores, got {name!r}"
            )
        if name in self.steps:
            raise PipelineError(f"two steps are called {name!r}; give one of them another name=")
        self.steps[name] = step
        self.edges[name] = []
        return name

    def connect(self, before: Step, after: Any) -> None:
        """`before >> after`: a step, several, or a routing function."""
        if isinstance(after, RoutingBatchFunction):
            after.before = before
        elif isinstance(after, Step):
            self._add_edge(before, after)
        elif isinstance(after, Sequence):
            for each in cast("Sequence[Step]", after):
                self._add_edge(before, each)
        else:
            raise PipelineError(f"{before.name} >> {after!r}: expected a step, a list of steps or a routing function")

    def connect_routed(self, before: Step, router: RoutingBatchFunction, after: Any) -> None:
        """`before >> router >> after`: a step, or several."""
        steps: list[Any] = list(cast("Sequence[Any]", after)) if isinstance(after, list | tuple) else [after]
        if not steps or not all(isinstance(step, Step) for step in steps):
            raise PipelineError(
                f"{before.name} >> ...: expected a step or a list of steps after a routing function, got {after!r}"
            )
        names: list[str] = [step.name for step in steps]
        if router.count is not None and router.count > len(names):
            raise PipelineError(
                f"{before.name}: sample_n_steps({router.count}) draws {router.count} steps, and has"
                f" {quantity(len(names), 'step')} to draw from: {', '.join(map(repr, names))}"
            )
        routed = next((name for name in names if name in self.routes), None)
        if routed is not None:
            raise PipelineError(
                f"{routed!r} comes after a routing function already: name all steps that one sends shards to in one"
                " list, as in `step >> router >> [a, b]`"
            )
        route = router.between(before, names)
        for step in steps:
            self._add_edge(before, step)
            self.routes[step.name] = route

    def validate(self, parameters: Mapping[str, Any] | None = None) -> None:
        """Check that the steps fit each other as a run with `parameters` has them, before anything is sent.

        Raises:
            PipelineError: they don't.
            ParameterError: a parameter doesn't exist or doesn't fit.
            SourceError: a source can't be read.
        """
        self._check_connections()
        self._check_columns(checked(self.flow, parameters or {}))

    def _check_connections(self) -> None:
        if not self.steps:
            raise PipelineError(f"pipeline {self.name!r} has no steps: make them inside its `with` block")
        for name in self._order():
            step, before = self.steps[name], self.edges[name]
            if makes_rows(step) and before:
                raise PipelineError(f"{name!r} makes rows and takes none, but comes after {before}")
            if not makes_rows(step) and not before:
                raise PipelineError(
                    f"{name!r} ({type(step).__name__}) has no step before it: connect one, such as"
                    f" LoadDataFromDicts(...) >> {name}, or pass dataset= to run()"
                )

    def _check_columns(self, values: Mapping[str, Any]) -> None:
        steps = {name: values[name] for name in self.steps}
        nodes = {id(each): each for node in self._nodes(steps).values() for each in node.ancestry()}
        sources = {key: node.step for key, node in nodes.items() if isinstance(node.step, GeneratorStep)}
        known = {key: columns for key, step in sources.items() if (columns := source_columns(step)) is not None}
        if len(known) == len(sources):
            check_columns(list(nodes.values()), known)

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """The pipeline as a Prefect flow, for `serve`, `deploy`, `prefect.yaml` (`module:pipeline.flow`)."""
        return self._compiled(self.steps)

    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        use_cache: bool | None = None,
        dataset: Any = None,
    ) -> Dataset | Datasets:
        """Run the pipeline as a Prefect flow run in this process.

        Args:
            parameters: by step, in part or whole: `{"text_generation": {"llm": {"generation_kwargs": {...}}}}`.
            use_cache: over the pipeline's own.
            dataset: rows for the steps that have no step before them: a list of dicts, a `datasets.Dataset`,
                a pandas frame.

        Returns:
            The dataset of the last step, or where there are several last steps, `Datasets`: a dict of theirs by name.

        Raises:
            PipelineError: the steps don't fit each other.
            ParameterError: a parameter doesn't exist or doesn't fit.
            TooManyFailedRowsError: run again to send only the rows that are missing.
        """
        running = self if dataset is None else self._with_source(dataset)
        running._check_connections()
        given = checked(running.flow, parameters or {})
        running._check_columns(given)
        if use_cache is not None:
            given["use_cache"] = use_cache
        return run_anywhere(running.flow(**given))

    def draw(self, path: str | Path | None = None) -> str:
        """The pipeline as a flowchart in Mermaid, which GitHub, notebooks and Prefect's UI draw.

        Args:
            path: a file to write it to.
        """
        chart = flowchart(self)
        if path is not None:
            Path(path).write_text(chart, encoding="utf-8")
        return chart

    def _repr_html_(self) -> str:
        """In a notebook: its steps in a table."""
        return overview(self)

    def dump(self) -> dict[str, Any]:
        """The pipeline as JSON values, for `from_dict`. Keys given in code aren't in it. Raises PipelineError."""
        return dumped(self)

    def save(self, path: str | Path) -> None:
        """Write `dump()` to a file, as its ending says: .yaml, .yml or .json. Raises PipelineError."""
        write_file(self.dump(), Path(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The pipeline that `dump` gave. Raises PipelineError or ParameterError for what isn't one."""
        return build(cls, values)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """The pipeline in a file that `save` wrote, YAML or JSON. Raises PipelineError or ParameterError."""
        return cls.from_dict(read_file(Path(path)))

    from_json = from_yaml

    def dry_run(
        self, parameters: Mapping[str, Any] | None = None, *, rows: int = 1, dataset: Any = None
    ) -> Dataset | Datasets:
        """Run it for real on the first few rows. Nothing is saved to a target."""
        with setting(limits_of_run, Limits(rows, ask=True)):
            return self.run(parameters, dataset=dataset)

    def preview(
        self, parameters: Mapping[str, Any] | None = None, *, rows: int = 3, dataset: Any = None
    ) -> dict[str, list[FormattedInput | None]]:
        """The prompts of the first rows, by step. Nothing is sent. See `flows.authoring.preview`."""
        running = self if dataset is None else self._with_source(dataset)
        running.validate(parameters)
        return preview(running.flow, parameters, rows=rows)

    def serve(self, name: str = "default", **options: Any) -> None:
        """Serve the flow from this process, as `prefect.Flow.serve` does; under `if __name__ == "__main__":`."""
        self._check_deployment(options)
        self.flow.serve(name=name, **options)

    def deploy(self, name: str, work_pool_name: str, **options: Any) -> Any:
        """Make a deployment for a worker that runs in this folder. Returns the deployment's id.

        Args:
            name: the deployment's.
            work_pool_name: a work pool that exists.
            options: as `prefect.Flow.to_deployment` takes them: cron, interval, parameters, tags.
        """
        from prefect.runner.storage import LocalStorage

        self._check_deployment(options)
        made: Any = self.flow.to_deployment(name, work_pool_name=work_pool_name, **options)
        made.entrypoint = self.entrypoint()
        made.storage = LocalStorage(str(Path.cwd()))
        return made.apply()

    def _check_deployment(self, options: Mapping[str, Any]) -> None:
        """Check what won't change any more. What a run may still be given is only warned of.

        Raises PipelineError or ParameterError.
        """
        self._check_connections()
        given = checked(self.flow, options.get("parameters") or {})
        try:
            self._check_columns(given)
        except (PipelineError, SourceError) as error:
            logger.warning("pipeline %r needs parameters at each run: as it stands, %s", self.name, error)

    def entrypoint(self) -> str:
        """Where a worker finds the flow: `module:variable.flow`. Raises PipelineError."""
        for module_name, module in list(sys.modules.items()):
            for variable, value in list(vars(module).items()) if module else []:
                if value is self:
                    if module_name != "__main__":
                        return f"{module_name}:{variable}.flow"
                    file = getattr(module, "__file__", None)
                    if not file:
                        raise PipelineError(
                            f"pipeline {self.name!r} is defined in a notebook or at a prompt, where no worker finds it:"
                            " put it into a file, with the classes of its own that it uses"
                        )
                    path = Path(file).resolve()
                    inside = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                    return f"{inside}:{variable}.flow"
        raise PipelineError(f"pipeline {self.name!r} must be a variable of a module, so that a worker can find it")

    def _add_edge(self, before: Step, after: Step) -> None:
        for step in (before, after):
            if self.steps.get(step.name) is not step:
                raise PipelineError(f"{step.name!r} isn't in pipeline {self.name!r}: make it inside its `with` block")
        if isinstance(before, Saver):
            raise PipelineError(
                f"{before.name!r} saves rows and passes none on: connect {after.name!r} to the step before it, as in"
                f" `step >> [{before.name}, {after.name}]`"
            )
        if isinstance(after, Saver) and self.edges[after.name] not in ([], [before.name]):
            raise PipelineError(
                f"{after.name!r} saves the rows of one step, and {self.edges[after.name][0]!r} is before it already:"
                f" give {before.name!r} a {type(after).__name__} of its own, or join the rows of both in a step"
            )
        if before.name not in self.edges[after.name]:
            self.edges[after.name].append(before.name)

    def _free_name(self, base: str) -> str:
        return next(name for number in range(len(self.steps) + 1) if (name := f"{base}_{number}") not in self.steps)

    def _order(self) -> list[str]:
        """The steps, each after those before it. Raises PipelineError for a cycle."""
        order: list[str] = []
        left = dict.fromkeys(self.steps)
        while left:
            ready = [name for name in left if all(before in order for before in self.edges[name])]
            if not ready:
                raise PipelineError(f"steps go round in a circle: {' >> '.join(self._circle(next(iter(left))))}")
            order.append(ready[0])
            del left[ready[0]]
        return order

    def _circle(self, name: str) -> list[str]:
        path = [name]
        while path.count(path[-1]) == 1:
            before = [each for each in self.edges[path[-1]] if each in path or self.edges[each]]
            path.append(before[0])
        return path[path.index(path[-1]) :][::-1]

    def _with_source(self, dataset: Any) -> Pipeline:
        """The same pipeline with rows in front of the steps that have none before them."""
        from tasks.sources.loaders import make_generator_step

        options: dict[str, Any] = {**self.options(), "name": self.name}
        whole = Pipeline(**options)
        source = make_generator_step(dataset)
        set_quietly(source, "name", "dataset")
        whole.steps = {"dataset": source, **self.steps}
        whole.edges = {"dataset": [], **{name: before or ["dataset"] for name, before in self.edges.items()}}
        whole.routes = self.routes
        return whole

    def _compiled(self, steps: Mapping[str, Step]) -> Flow[..., Any]:
        async def run_pipeline(**parameters: Any) -> Any:
            settings = {each.name: parameters.pop(each.name) for each in self._settings()}
            return await self._finish(parameters, **settings)

        order = self._order()
        keyword = inspect.Parameter.KEYWORD_ONLY
        shown = [inspect.Parameter(name, keyword, default=steps[name], annotation=type(steps[name])) for name in order]
        signed: Any = run_pipeline
        signed.__signature__ = inspect.Signature([*shown, *self._settings()])
        run_pipeline.__annotations__ = {each.name: each.annotation for each in shown}
        run_pipeline.__name__ = snake_case(self.name.replace("-", "_").replace(" ", "_"))
        run_pipeline.__doc__ = self._document(order)
        return Flow(run_pipeline, name=self.name)

    def _settings(self) -> list[inspect.Parameter]:
        """The parameters of the flow besides its steps."""
        every: list[tuple[str, Any, Any]] = [
            ("use_cache", self.use_cache, bool),
            ("max_failed_rows", self.max_failed_rows, Annotated[float, Field(ge=0)]),
            ("approve_cost_above", None, Annotated[float | None, Field(ge=0)]),
            ("finish_online_below", 0, Annotated[int, Field(ge=0)]),
            ("max_cost", None, Annotated[float | None, Field(ge=0)]),
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return [inspect.Parameter(name, keyword, default=value, annotation=kind) for name, value, kind in every]

    def _document(self, order: Sequence[str]) -> str:
        lines = [
            f"    {name}: {(inspect.getdoc(type(self.steps[name])) or '').partition(chr(10))[0]}" for name in order
        ]
        lines += [
            "    use_cache: Take answers of earlier runs with the same requests.",
            "    max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.",
            "    approve_cost_above: Dollars. A run that would cost more waits for your approval first.",
            "    finish_online_below: Of offline batches: fewer requests are sent online, in place of a job.",
            "    max_cost: Dollars. The run fails before it spends more; what was answered is kept.",
        ]
        return f"{self.description or self.name}\n\nArgs:\n" + "\n".join(lines)

    async def _finish(
        self,
        steps: Mapping[str, Step],
        *,
        use_cache: bool,
        max_failed_rows: float,
        approve_cost_above: float | None,
        finish_online_below: int,
        max_cost: float | None,
    ) -> Any:
        nodes = self._nodes(steps, use_cache=use_cache)
        followed = {before for name in self.steps for before in self.edges[name] if name in nodes}
        savers = {name: step for name, step in steps.items() if isinstance(step, Saver)}
        leaves = {name: Rows(node) for name, node in nodes.items() if name not in followed}
        targets: dict[str, list[Saver]] = {}
        for name, saver in savers.items():
            saved = name if name in nodes else self.edges[name][0]
            leaves[saved] = Rows(nodes[saved])
            targets.setdefault(saved, []).append(saver)
        spending = Spending(approve_cost_above, finish_online_below, max_cost)
        datasets = await finish(leaves, targets, max_failed_rows=max_failed_rows, spending=spending)
        return Datasets(datasets) if len(datasets) > 1 else next(iter(datasets.values()))

    def _nodes(self, steps: Mapping[str, Step], *, use_cache: bool = True) -> dict[str, Node]:
        """The graph of rows, savers left out: they stand at its ends. One that is routed to has its rows there."""
        shard_rows = self._shard_rows or (ROUTED_SHARD_ROWS if self.routes else SHARD_ROWS)
        run = current_run(self.storage)
        run.flow_name = run.flow_name or self.name
        nodes: dict[str, Node] = {}
        for name in self._order():
            step, route = named(steps[name], name), self.routes.get(name)
            if isinstance(step, Saver):
                if route is None:
                    continue
                step = named(ROUTED_ROWS, name)
            if makes_rows(step):
                nodes[name] = load(step, use_cache=use_cache, shard_rows=shard_rows, storage=self.storage).node
                continue
            before = tuple(nodes[each] for each in self.edges[name] if each in nodes)
            nodes[name] = Node(run, name, step, before, None if route is None else _chooses(route, name))
        return nodes


def _chooses(router: RoutingBatchFunction, name: str) -> Callable[[int], bool]:
    return lambda place: name in router.chosen(place)
