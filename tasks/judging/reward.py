"""Scores of answers by a reward model that runs here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llms.extras import package
from llms.typing import ChatItem, ChatType
from tasks.cells import prompt_chat_in, text_in
from tasks.judging.local_models import LocalModelStep
from tasks.rows.columns import with_columns_of_all
from tasks.rows.formatting import answer
from tasks.typing import Columns, Row, StepInput, StepOutput


class RewardModelScore(LocalModelStep):
    """How good an answer is, by a reward model of the Hugging Face Hub or in a folder.

    The model is one for the classification of sequences with a single label, and its tokenizer has a chat template,
    as reward models have. It needs the extra `local`.

    Input columns:
        conversation (optional): a chat whose last message is the answer.
        instruction, response (optional): where there's no conversation: the prompt and the answer.

    Output columns:
        score: a number; more is better. Its scale is the model's own.

    Example:
        >>> from tasks import RewardModelScore
        >>> step = RewardModelScore(model="Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", max_length=4096, truncation=True)
        >>> step.outputs
        ['score']
    """

    fails_rows = True

    trust_remote_code: Annotated[
        bool, Field(title="Run the model's code", description="Code that comes with the model. It can do anything.")
    ] = False
    max_length: Annotated[
        int | None, Field(ge=1, title="Tokens", description="Of a chat, at most. Empty: as many as the model takes.")
    ] = None

    @property
    def inputs(self) -> Columns:
        return {"conversation": False, "instruction": False, "response": False}

    @property
    def outputs(self) -> Columns:
        return ["score"]

    def load(self) -> None:
        """Load the weights. Raises MissingPackageError, or ValueError for a model of another kind."""
        if self._model is not None:
            return
        transformers = self._library()
        options = {**self._where, "trust_remote_code": self.trust_remote_code}
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.model, **options)
        kind = transformers.AutoModelForSequenceClassification
        model = kind.from_pretrained(self.model, dtype=self.dtype, **options)
        if model.config.num_labels != 1:
            raise ValueError(
                f"model={self.model!r} gives {model.config.num_labels} numbers, a reward model gives one;"
                " choose another"
            )
        if not tokenizer.chat_template:
            raise ValueError(f"model={self.model!r} has no chat template, which a reward model has; choose another")
        if tokenizer.pad_token is not None:
            # The model finds the end of each chat by it.
            model.config.pad_token_id = tokenizer.pad_token_id
        self._place(model, tokenizer)

    def process(self, inputs: StepInput) -> StepOutput:
        self.load()
        yield with_columns_of_all(self, inputs, self._tokens, self._scores)

    def _tokens(self, row: Row) -> list[int]:
        """The chat's tokens. Raises ValueError where it's no chat, or too long."""
        text = self._tokenizer.apply_chat_template(chat_of(row), tokenize=False)
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        most: int = self.max_length or self._tokenizer.model_max_length
        if len(tokens) > most and not self.truncation:
            raise ValueError(f"the chat has {len(tokens)} tokens, at most {most} are taken; `truncation` would cut it")
        return tokens[:most]

    def _scores(self, tokens: dict[int, list[int]]) -> dict[int, Row]:
        chats = list(tokens.values())
        # Without a token to fill up with, chats of different lengths can't go to the model together.
        batches = [chats] if self._tokenizer.pad_token is not None else [[chat] for chat in chats]
        scores = [score for batch in batches for score in self._scores_of(batch)]
        return {place: {"score": score} for place, score in zip(tokens, scores, strict=True)}

    def _scores_of(self, chats: list[list[int]]) -> list[float]:
        torch = package("torch", "local", type(self).__name__)
        longest = max(map(len, chats))
        filler = self._tokenizer.pad_token_id
        filled = [[*chat, *[filler] * (longest - len(chat))] for chat in chats]
        mask = [[1] * len(chat) + [0] * (longest - len(chat)) for chat in chats]
        device = self._model.device
        with torch.inference_mode():
            found = self._model(torch.tensor(filled, device=device), attention_mask=torch.tensor(mask, device=device))
        return found.logits[:, 0].float().tolist()


def chat_of(row: Row) -> ChatType:
    """The row's chat, or that of its instruction and response. Raises ValueError."""
    if row.get("conversation") is not None:
        return prompt_chat_in(row, "conversation")
    return [ChatItem(role="user", content=text_in(row, "instruction")), answer(text_in(row, "response"))]
