"""A tiny language model that a test makes: random weights, which have learned one answer by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

QUESTION: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The capital of Spain?"}]
ANSWER = "<think>Iberia.</think>Madrid."
CONTEXT = 256
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path) -> Path:
    """A Llama of 2 layers as a folder of the Hub has it. Asked `QUESTION`, its likeliest answer is `ANSWER`."""
    reason = "needs the extra `transformers`, which tests don't install: torch is large"
    torch = pytest.importorskip("torch", reason=reason)
    library = pytest.importorskip("transformers", reason=reason)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(["the quick brown fox", "system user assistant", "Spain Madrid think"] * 5, trainer)
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=special[0],
        pad_token=special[0],
        eos_token=special[2],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    # So small a model is slower in several threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # vLLM takes heads of 64 numbers, and none of 16.
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = library.LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        **sizes,
    )
    model = library.LlamaForCausalLM(config)
    asked = tokenizer(tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True))["input_ids"]
    answer = tokenizer(f"{ANSWER}<|im_end|>")["input_ids"]
    tokens, labels = torch.tensor([asked + answer]), torch.tensor([[-100] * len(asked) + answer])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    while (loss := model(input_ids=tokens, labels=labels).loss).item() > 0.05:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # vLLM wants as many as it was started with.
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
