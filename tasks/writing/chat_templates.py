"""How families of models write down a chat: the tokens that they were trained on, to the letter.

For prompts that end where a turn begins, which no chat API takes. A family's format is that of the chat templates in
the repositories named beside it. The token that begins a text (`<s>`, `<bos>`, `<|begin_of_text|>`) is left out: the
tokenizers of completion servers put it there, and twice is once too often.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from llms.parameters import Configurable
from llms.typing import ChatType

Family: TypeAlias = Literal["llama3", "qwen2", "qwen3", "gemma", "phi3", "phi4", "mistral", "deepseek"]
SystemPlace: TypeAlias = Literal["own turn", "first user turn", "last user turn"]


class ChatTemplate(Configurable):
    """The text around each turn of a chat."""

    user_start: Annotated[str, Field(title="Before a user's turn", description="The pre-query text.")] = ""
    user_end: Annotated[str, Field(title="After a user's turn")] = ""
    assistant_start: Annotated[str, Field(title="Before an assistant's turn")] = ""
    assistant_end: Annotated[str, Field(title="After an assistant's turn")] = ""
    assistant_lead: Annotated[
        str, Field(title="Before an answer", description="In the turns so far, but not where the model is to answer.")
    ] = ""
    system_start: Annotated[str, Field(title="Before a system prompt")] = ""
    system_end: Annotated[str, Field(title="After a system prompt")] = ""
    system_place: Annotated[
        SystemPlace, Field(title="Place of a system prompt", description="In a user's turn it stands before the text.")
    ] = "own turn"
    stop: Annotated[list[str], Field(title="Stop", description="The strings at which a turn ends. At most four.")] = []

    def opened(self, turns: ChatType, role: Literal["user", "assistant"], system: str | None = None) -> str:
        """The prompt for the next turn, which is `role`'s: all turns so far, and the opening of that one."""
        users = [place for place, turn in enumerate([*turns, {"role": role}]) if turn["role"] == "user"]
        holder = {"own turn": -1, "first user turn": users[0], "last user turn": users[-1]}[self.system_place]
        written = [self.system_start, system, self.system_end] if system and holder < 0 else []
        for place, turn in enumerate(turns):
            if turn["role"] == "user":
                lead = f"{system}\n\n" if system and place == holder else ""
                written += [self.user_start, lead, str(turn["content"]), self.user_end]
            else:
                written += [self.assistant_start, self.assistant_lead, str(turn["content"]), self.assistant_end]
        if role == "assistant":
            return "".join([*written, self.assistant_start])
        lead = f"{system}\n\n" if system and holder == len(turns) else ""
        return "".join([*written, self.user_start, lead])


CHATML = ChatTemplate(
    user_start="<|im_start|>user\n",
    user_end="<|im_end|>\n",
    assistant_start="<|im_start|>assistant\n",
    assistant_end="<|im_end|>\n",
    system_start="<|im_start|>system\n",
    system_end="<|im_end|>\n",
    stop=["<|im_end|>", "<|endoftext|>", "<|im_start|>"],
)

CHAT_TEMPLATES: dict[Family, ChatTemplate] = {
    # meta-llama/Meta-Llama-3-8B-Instruct, and 3.1 to 3.3 without the dates that their system turn begins with.
    "llama3": ChatTemplate(
        user_start="<|start_header_id|>user<|end_header_id|>\n\n",
        user_end="<|eot_id|>",
        assistant_start="<|start_header_id|>assistant<|end_header_id|>\n\n",
        assistant_end="<|eot_id|>",
        system_start="<|start_header_id|>system<|end_header_id|>\n\n",
        system_end="<|eot_id|>",
        stop=["<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>"],
    ),
    # Qwen/Qwen2-7B-Instruct, Qwen/Qwen2.5-7B-Instruct, which put a system prompt of their own where none is given.
    "qwen2": CHATML,
    # Qwen/Qwen3-8B. Thoughts are no part of the turns so far.
    "qwen3": CHATML,
    # google/gemma-2-9b-it, google/gemma-3-12b-it. The latter writes a system prompt into the first turn.
    "gemma": ChatTemplate(
        user_start="<start_of_turn>user\n",
        user_end="<end_of_turn>\n",
        assistant_start="<start_of_turn>model\n",
        assistant_end="<end_of_turn>\n",
        system_place="first user turn",
        stop=["<end_of_turn>", "<eos>", "<start_of_turn>"],
    ),
    # microsoft/Phi-3-mini-4k-instruct, microsoft/Phi-3.5-mini-instruct.
    "phi3": ChatTemplate(
        user_start="<|user|>\n",
        user_end="<|end|>\n",
        assistant_start="<|assistant|>\n",
        assistant_end="<|end|>\n",
        system_start="<|system|>\n",
        system_end="<|end|>\n",
        stop=["<|end|>", "<|endoftext|>", "<|assistant|>", "<|user|>"],
    ),
    # microsoft/phi-4.
    "phi4": ChatTemplate(
        user_start="<|im_start|>user<|im_sep|>",
        user_end="<|im_end|>",
        assistant_start="<|im_start|>assistant<|im_sep|>",
        assistant_end="<|im_end|>",
        system_start="<|im_start|>system<|im_sep|>",
        system_end="<|im_end|>",
        stop=["<|im_end|>", "<|endoftext|>", "<|im_start|>"],
    ),
    # mistralai/Mistral-7B-Instruct-v0.3.
    "mistral": ChatTemplate(
        user_start="[INST] ",
        user_end="[/INST]",
        assistant_lead=" ",
        assistant_end="</s>",
        system_place="last user turn",
        stop=["[/INST]", "</s>", "[INST]"],
    ),
    # deepseek-ai/DeepSeek-V3, deepseek-ai/DeepSeek-R1. Thoughts are no part of the turns so far.
    "deepseek": ChatTemplate(
        user_start="<｜User｜>",
        assistant_start="<｜Assistant｜>",
        assistant_end="<｜end▁of▁sentence｜>",
        stop=["<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"],
    ),
}
