"""PairRM: a small model that runs here compares answers in pairs, and so ranks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, PrivateAttr, model_validator

from llms.extras import package
from llms.parameters import Unasked
from tasks.cells import text_in, texts_in
from tasks.judging.local_models import LocalModelStep
from tasks.rows.columns import with_columns_of_all
from tasks.typing import Columns, Row, StepInput, StepOutput

PROMPT, FIRST, SECOND = "<|source|>", "<|candidate1|>", "<|candidate2|>"
"""What the three parts of a comparison begin with, in the model's own format."""


class Parts(NamedTuple):
    """What a row's comparisons are made of, in tokens."""

    candidates: list[str]
    prompt: list[int]
    firsts: list[list[int]]
    """The answers as those that stand first in a comparison."""
    seconds: list[list[int]]

    def pair(self, one: int, other: int) -> tuple[list[int], list[int], list[int]]:
        return self.prompt, self.firsts[one], self.seconds[other]


class PairRM(LocalModelStep):
    """Ranks answers to a prompt by a model of 0.4 billion parameters that compares them in pairs.

    Each answer is compared with each other one in both orders, so that the place of an answer doesn't count. It needs
    the extra `local`. For models of the kind of https://huggingface.co/llm-blender/PairRM-hf.

    Input columns:
        input: the prompt.
        candidates: the answers to it, a list of two texts or more.

    Output columns:
        ranks: the place of each answer, 1 for the best. Of equal ones the one that stands first is better.
        ranked_candidates: the answers, the best one first.
        scores: how much better than the others each answer is: the mean log-odds that it beats one of them.
        model_name: the model that compared.

    Source: LLM-Blender: Ensembling Large Language Models with Pairwise Ranking and Generative Fusion
        (https://arxiv.org/abs/2306.02561).

    Example:
        >>> from tasks import PairRM
        >>> PairRM().outputs
        ['ranks', 'ranked_candidates', 'scores', 'model_name']
    """

    fails_rows = True

    model: Annotated[str, Field(title="Model", description="Of the Hugging Face Hub, or the path of a folder.")] = (
        "llm-blender/PairRM-hf"
    )
    instructions: Annotated[
        str | None,
        Field(title="Instructions", description="What stands before each prompt, where they have it in common."),
    ] = None
    max_input_length: Annotated[int, Field(ge=8, title="Tokens of a prompt", description="As many as it may have.")] = (
        1224
    )
    max_length: Annotated[
        int,
        Field(
            ge=24, title="Tokens", description="Of a prompt and two answers, each of which may have half of the rest."
        ),
    ] = 2048
    pairs_per_call: Annotated[
        int, Field(ge=1, title="Pairs per call", description="How many the model compares at a time."), Unasked()
    ] = 8

    _marks: list[int] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _leave_room_for_answers(self) -> Self:
        if self.max_length - self.max_input_length < 16:
            raise ValueError(
                f"max_length={self.max_length} leaves no room for two answers beside a prompt of"
                f" max_input_length={self.max_input_length}; leave 16 or more"
            )
        return self

    @property
    def inputs(self) -> Columns:
        return ["input", "candidates"]

    @property
    def outputs(self) -> Columns:
        return ["ranks", "ranked_candidates", "scores", "model_name"]

    def load(self) -> None:
        """Load the weights. Raises MissingPackageError, or ValueError for a model of another kind."""
        if self._model is not None:
            return
        transformers = self._library()
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.model, **self._where)
        config = transformers.AutoConfig.from_pretrained(self.model, **self._where)
        if config.model_type != "deberta-v2" or not hasattr(config, "cand1_prefix_id"):
            raise ValueError(f"model={self.model!r} is none that compares pairs, such as llm-blender/PairRM-hf")
        model, report = network().from_pretrained(
            self.model, config=config, dtype=self.dtype, output_loading_info=True, **self._where
        )
        if report["missing_keys"]:
            raise ValueError(
                f"model={self.model!r} has no weights for {sorted(report['missing_keys'])};"
                " choose one such as llm-blender/PairRM-hf"
            )
        marks = [config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id]
        if tokenizer.convert_tokens_to_ids([PROMPT, FIRST, SECOND]) != marks:
            raise ValueError(
                f"model={self.model!r} has a tokenizer without {PROMPT}, {FIRST} and {SECOND} as its own tokens"
            )
        self._marks = marks
        self._place(model, tokenizer)

    def process(self, inputs: StepInput) -> StepOutput:
        self.load()
        yield with_columns_of_all(self, inputs, self._parts, self._ranked)

    def _parts(self, row: Row) -> Parts:
        """The tokens of a row's texts. Raises ValueError where one is missing or too long."""
        text, candidates = (self.instructions or "") + text_in(row, "input"), texts_in(row, "candidates")
        if len(candidates) < 2:
            raise ValueError("candidates: expected two texts or more to compare, got one")
        prompt = self._encode("the prompt", PROMPT + text, self.max_input_length)
        # The two answers share what the prompt leaves.
        most = (self.max_length - len(prompt)) // 2
        firsts, seconds = (
            [self._encode(f"answer {place}", mark + each, most) for place, each in enumerate(candidates, 1)]
            for mark in (FIRST, SECOND)
        )
        return Parts(candidates, prompt, firsts, seconds)

    def _encode(self, what: str, text: str, most: int) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text)
        if len(tokens) <= most:
            return tokens
        if not self.truncation:
            raise ValueError(f"{what} has {len(tokens)} tokens, at most {most} are taken; `truncation` would cut it")
        return self._tokenizer.encode(text, truncation=True, max_length=most)

    def _ranked(self, rows: dict[int, Parts]) -> dict[int, Row]:
        asked = [
            (place, one, other) for place, row in rows.items() for one, other in permutations(range(len(row.firsts)), 2)
        ]
        # Those of a length together: the shorter ones are filled up.
        asked.sort(key=lambda pair: sum(map(len, rows[pair[0]].pair(*pair[1:]))))
        sums = {place: [0.0] * len(row.candidates) for place, row in rows.items()}
        for start in range(0, len(asked), self.pairs_per_call):
            some = asked[start : start + self.pairs_per_call]
            logits = self._compare([rows[place].pair(one, other) for place, one, other in some])
            for (place, one, other), logit in zip(some, logits, strict=True):
                sums[place][one] += logit
                sums[place][other] -= logit
        return {place: self._columns(row.candidates, sums[place]) for place, row in rows.items()}

    def _columns(self, candidates: list[str], sums: list[float]) -> Row:
        # Each has met each of the others twice.
        scores = [each / (2 * (len(candidates) - 1)) for each in sums]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return {
            "ranks": [order.index(place) + 1 for place in range(len(order))],
            "ranked_candidates": [candidates[place] for place in order],
            "scores": scores,
            "model_name": self.model,
        }

    def _compare(self, pairs: Sequence[tuple[list[int], list[int], list[int]]]) -> list[float]:
        """The log-odds that the first answer is better, for each pair."""
        torch = package("torch", "local", type(self).__name__)
        texts = [[*prompt, *first, *second] for prompt, first, second in pairs]
        longest = max(map(len, texts))
        filled = [[*text, *[self._tokenizer.pad_token_id] * (longest - len(text))] for text in texts]
        mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
        marks = [list(self._places(pair)) for pair in pairs]
        device = self._model.device
        with torch.inference_mode():
            logits = self._model(*(torch.tensor(each, device=device) for each in (filled, mask, marks)))
        return logits.float().tolist()

    def _places(self, pair: tuple[list[int], ...]) -> Iterator[int]:
        """Where the parts' marks stand."""
        before = 0
        for part, mark in zip(pair, self._marks, strict=True):
            yield before + part.index(mark)
            before += len(part)


@cache
def network() -> Any:
    """The class of the model. The names of its parts are those of the weights."""
    torch = package("torch", "local", "PairRM")
    transformers = package("transformers", "local", "PairRM")

    class Comparer(transformers.DebertaV2PreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)  # pyright: ignore[reportUnknownMemberType]
            self.pretrained_model = transformers.DebertaV2Model(config)
            nn, width = torch.nn, config.hidden_size
            # Dropout does nothing here, but the layers are numbered with it.
            layers = [nn.Linear(2 * width, width), nn.Tanh(), nn.Identity(), nn.Linear(width, config.n_tasks)]
            self.head_layer = nn.Sequential(nn.Identity(), *layers)
            self.post_init()

        def forward(self, tokens: Any, mask: Any, marks: Any) -> Any:
            """The log-odds, one per text.

            Args:
                tokens: (texts, length), whole numbers.
                mask: (texts, length), 1 where there is a token.
                marks: (texts, 3), where the marks of the prompt and the two answers stand.
            """
            states = self.pretrained_model(input_ids=tokens, attention_mask=mask).last_hidden_state
            prompt, first, second = states[torch.arange(len(marks), device=marks.device)[:, None], marks].unbind(1)
            better, worse = (self.head_layer(torch.cat([prompt, each], dim=-1)) for each in (first, second))
            return (better - worse).mean(dim=-1)

    return Comparer
