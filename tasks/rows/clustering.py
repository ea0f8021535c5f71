"""Labels for clusters of texts: a sample of each cluster, one question about it, and the label for all its rows."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field

from llms.parameters import short
from llms.typing import ChatItem, ChatType, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in, texts_in
from tasks.random_choices import random_for
from tasks.reading.replies import closed_object, object_in, without_fences, without_thoughts
from tasks.rows.columns import value_in, with_columns_of_all
from tasks.steps import GlobalStep, MappableRows, failure_in
from tasks.templates import render
from tasks.typing import Columns, Row, StepInput, StepOutput

R = TypeVar("R", bound=MappableRows[Any])

NOISE = -1
"""The cluster of rows that belong to none."""
LONGEST_LABEL = 200
"""Characters."""
LABEL = re.compile(r"^[\s>#*_`+-]*label[\s*_`]*[:：][\s*_`]*(?P<label>.*)$", re.IGNORECASE)

AROUND_LABEL = re.compile(r"^[\s\"'“”‘’*_`]+|[\s\"'“”‘’*_`.]+$")


class ClusterSamples(GlobalStep):
    """One row per cluster, with some of its texts, chosen at random. Noise gets none.

    A row of a cluster that has no text is counted, and can't be shown.

    Input columns:
        text: the text.
        cluster_label: the number of the cluster, such as from `DBSCAN`; -1 for noise.

    Output columns:
        cluster_label: the number of the cluster. The other columns of the rows aren't kept.
        texts: at most `samples_per_cluster` of its texts, no text twice.
        cluster_size: how many rows it has.

    Example:
        >>> from tasks import ClusterSamples
        >>> texts = [("Ebb", 0), ("Flow", 0), ("Tea", 1), ("Ebb", 0), ("?", -1)]
        >>> rows = [{"text": text, "cluster_label": label} for text, label in texts]
        >>> for row in next(ClusterSamples(samples_per_cluster=2).process(rows)):
        ...     print(row)
        {'cluster_label': 0, 'texts': ['Ebb', 'Flow'], 'cluster_size': 3}
        {'cluster_label': 1, 'texts': ['Tea'], 'cluster_size': 1}
    """

    takes_failed_rows = True

    samples_per_cluster: Annotated[int, Field(ge=1, title="Texts per cluster")] = 10
    seed: Annotated[int, Field(title="Seed", description="Another one chooses other texts.")] = 0

    @property
    def inputs(self) -> Columns:
        return ["text", "cluster_label"]

    @property
    def outputs(self) -> Columns:
        return ["cluster_label", "texts", "cluster_size"]

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        names = {**self.input_mappings, **self.output_mappings}
        return frozenset(names.get(column, column) for column in self.outputs)

    def process(self, inputs: StepInput) -> StepOutput:
        clusters: dict[int, list[Any]] = {}
        for row in inputs:
            # A row that failed, or has no cluster, is told of by `JoinClusterLabels`.
            if failure_in(row) is None and is_cluster(value_in(row, "cluster_label")):
                clusters.setdefault(row["cluster_label"], []).append(value_in(row, "text"))
        yield [self._sample(label, clusters[label]) for label in sorted(clusters) if label != NOISE]

    def _sample(self, label: int, texts: list[Any]) -> Row:
        different = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
        choices = random_for({"cluster_label": label, "texts": different}, self.seed)
        chosen = in_order(different, self.samples_per_cluster, choices)
        return {"cluster_label": label, "texts": chosen, "cluster_size": len(texts)}


class TextClustering(Task):
    """A label for a cluster of texts: what they have in common, in a few words.

    It is asked once per cluster. `label_clusters` brings the labels back to the rows:

        rows = UMAP().map(rows)
        rows = DBSCAN().map(rows)
        rows = label_clusters(rows, text_clustering)

    In a `Pipeline`, the same three steps are connected by hand:

        dbscan >> ClusterSamples() >> text_clustering
        [dbscan, text_clustering] >> JoinClusterLabels()

    For someone who comes from distilabel: there this is one step, which takes `text` and `cluster_label` and asks
    outside of the pipeline's batches. Here the question is a Task like any other: it is kept, batched and
    retried, and its prompts can be looked at. `samples_per_cluster` is an option of `ClusterSamples`, the default
    label (for noise) one of `JoinClusterLabels`; `summary_label` is one text, not a list as JSON; the column
    `projection` isn't needed, for no picture is made.

    Input columns:
        texts: some texts of one cluster.

    Output columns:
        summary_label: the label.
        model_name: the model that gave it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import TextClustering
        >>> task = TextClustering(llm=OpenAILLM(model="gpt-4o-mini"), context="They come from a harbour's log.")
        >>> task.format_output("Label: Times of the tide", {"texts": ["Ebb at six.", "Flood at noon."]})
        {'summary_label': 'Times of the tide'}
    """

    form_first = ("llm", "context", "query_title")

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    context: Annotated[
        str, Field(title="Context", description="What the texts are, or how they should be labelled. It may be empty.")
    ] = ""
    query_title: Annotated[str, Field(min_length=1, title="Title", description="Above the texts, in the prompt.")] = (
        "Texts"
    )

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_clustering",)

    @property
    def inputs(self) -> Columns:
        return ["texts"]

    @property
    def outputs(self) -> Columns:
        return ["summary_label", "model_name"]

    def get_structured_output(self) -> JSONSchema:
        return closed_object({"label": {"type": "string"}})

    def format_input(self, input: Row) -> ChatType:
        texts = texts_in(input, "texts")
        prompt = render(
            "text_clustering",
            texts=texts,
            count=len(texts),
            context=self.context,
            query_title=self.query_title,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def format_example(self, example: Row) -> str:
        label = text_in(example, "summary_label")
        return f"Label: {label}" if self.wanted_schema() is None else json.dumps({"label": label}, ensure_ascii=False)

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"summary_label": label_in(output or "")}


class JoinClusterLabels(GlobalStep):
    """Gives each row the label of its cluster: the first input are the rows, the second the labels.

    Where a cluster got no label, its rows fail, with the reason.

    Input columns:
        cluster_label: the number of the cluster, in the rows and in the labels.
        summary_label, model_name: in the labels, as `TextClustering` makes them.

    Output columns:
        summary_label: the label of the row's cluster; `noise_label` for noise.
        model_name: the model that gave it; None for noise.

    Example:
        >>> from tasks import JoinClusterLabels
        >>> rows = [{"text": "Ebb", "cluster_label": 0}, {"text": "?", "cluster_label": -1}]
        >>> labels = [{"cluster_label": 0, "summary_label": "Tides", "model_name": "gpt-4o-mini"}]
        >>> [row["summary_label"] for row in next(JoinClusterLabels().process(rows, labels))]
        ['Tides', None]
    """

    fails_rows = True
    takes_failed_rows = True

    noise_label: Annotated[str | None, Field(title="Label of noise", description="Empty: none.")] = None

    @property
    def inputs(self) -> Columns:
        return ["cluster_label", "summary_label", "model_name"]

    @property
    def outputs(self) -> Columns:
        return ["summary_label", "model_name"]

    def process(self, *inputs: StepInput) -> StepOutput:
        if len(inputs) != 2:
            raise ValueError(
                f"{self.name} takes two inputs, the rows and the labels of their clusters, got {len(inputs)}:"
                " [dbscan, text_clustering] >> join"
            )
        rows, labels = inputs
        of_cluster = by_cluster(labels)

        def label_of(row: Row) -> Row:
            cluster = value_in(row, "cluster_label")
            if not is_cluster(cluster):
                raise ValueError(f"cluster_label: expected the number of a cluster, got {short(cluster)}")
            if cluster == NOISE:
                return {"summary_label": self.noise_label, "model_name": None}
            found = of_cluster.get(cluster)
            if found is None:
                raise ValueError(f"cluster {cluster} isn't among the {len(of_cluster)} that were labelled")
            failure = failure_in(found)
            if failure is not None:
                raise ValueError(f"cluster {cluster} got no label: {failure['message']}")
            return {name: found[name] for name in self.outputs}

        yield with_columns_of_all(self, rows, label_of, lambda found: found)


def label_clusters(
    rows: R,
    task: TextClustering,
    *,
    text: str = "text",
    samples_per_cluster: int = 10,
    seed: int = 0,
    noise_label: str | None = None,
) -> R:
    """The rows of a flow with the label of their cluster. The LLM is asked once per cluster.

    Args:
        rows: with the column `cluster_label`, such as from `DBSCAN`.
        task: who labels.
        text: the column of the texts.
        samples_per_cluster: how many texts of a cluster are shown.
        seed: another one chooses other texts.
        noise_label: of rows that belong to no cluster.

    Returns:
        The same rows with the columns `summary_label` and `model_name`, or as the Task's `output_mappings` name them.

    Raises:
        ValueError: the Task asks for several labels of a cluster.
    """
    if task.num_generations > 1:
        raise ValueError(
            f"{task.name}: expected one label per cluster, got num_generations={task.num_generations}; set it to 1"
        )
    samples = ClusterSamples(
        samples_per_cluster=samples_per_cluster, seed=seed, input_mappings={} if text == "text" else {"text": text}
    )
    join = JoinClusterLabels(noise_label=noise_label, input_mappings=task.output_mappings)
    return join.map(rows, task.map(samples.map(rows)))


def in_order(texts: Sequence[str], count: int, choices: random.Random) -> list[str]:
    """`count` of the texts, or all, in the order that they have."""
    places = sorted(choices.sample(range(len(texts)), min(count, len(texts))))
    return [texts[place] for place in places]


def is_cluster(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def by_cluster(labels: Sequence[Row]) -> Mapping[int, Row]:
    """The rows of the labels by the number of their cluster. Raises ValueError where a cluster has two."""
    found: dict[int, Row] = {}
    for row in labels:
        if found.setdefault(value_in(row, "cluster_label"), row) is not row:
            raise ValueError(
                f"cluster {row['cluster_label']} has several labels; ask for one answer (num_generations=1)"
            )
    return found


def label_in(output: str) -> str:
    """The label in an answer, as JSON or after `Label:`. Raises UnreadableAnswerError."""
    try:
        found = object_in(output)
    except UnreadableAnswerError:
        labels = labels_in_text(without_fences(without_thoughts(output)))
        if len(labels) != 1:
            raise UnreadableAnswerError(
                f"expected one line `Label: ...`, found {len(labels) or 'none'} in {short(output)}"
            ) from None
        value: Any = labels.pop()
    else:
        value = {key.casefold(): each for key, each in found.items()}.get("label")
    label = AROUND_LABEL.sub("", value) if isinstance(value, str) else ""
    if not label or len(label) > LONGEST_LABEL:
        raise UnreadableAnswerError(f"label: expected a few words, got {short(value)} in {short(output)}")
    return label


def labels_in_text(text: str) -> set[str]:
    """What stands after `Label:`, on the same line or the next. Of several that are equal, one."""
    lines = [line for line in text.splitlines() if line.strip()]
    matches = [(place, found) for place, line in enumerate(lines) if (found := LABEL.match(line))]
    return {found["label"].strip() or "".join(lines[place + 1 : place + 2]).strip() for place, found in matches}
