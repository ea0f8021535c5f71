"""What the Steps share whose model runs here, with torch and transformers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr

from llms.extras import package
from llms.parameters import Unasked
from tasks.steps import Step


class LocalModelStep(Step):
    """A Step with a model of the Hugging Face Hub or in a folder, loaded once, on a GPU where there is one."""

    takes_failed_rows = True
    form_first = ("model",)

    input_batch_size: Annotated[
        int, Field(ge=1, title="Rows per call", description="How many the model gets at a time."), Unasked()
    ] = 8
    model: Annotated[str, Field(title="Model", description="Of the Hugging Face Hub, or the path of a folder.")]
    revision: Annotated[str | None, Field(title="Revision", description="A branch, tag or commit. Empty: main.")] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], Field(title="Numbers", description="Auto: the model's own.")
    ] = "auto"
    device: Annotated[
        str | None,
        Field(title="Device", description="Such as cpu, cuda, cuda:1. Empty: a GPU where there is one."),
        Unasked(),
    ] = None
    token: Annotated[
        SecretStr | None, Field(exclude=True, description="The Hub's key itself; better by HF_TOKEN."), Unasked()
    ] = None
    truncation: Annotated[
        bool, Field(title="Cut", description="Texts that are longer than the model takes. Off: such a row fails.")
    ] = False

    _model: Any = PrivateAttr(default=None)
    _tokenizer: Any = PrivateAttr(default=None)

    @property
    def _where(self) -> dict[str, Any]:
        """What the Hub is asked with."""
        return {"revision": self.revision or "main", "token": self.token.get_secret_value() if self.token else None}

    def _library(self) -> Any:
        """Transformers, with the torch that its models need. Raises MissingPackageError."""
        package("torch", "local", type(self).__name__)
        return package("transformers", "local", type(self).__name__)

    def _place(self, model: Any, tokenizer: Any) -> None:
        """Move the loaded model to its device, and keep it."""
        torch = package("torch", "local", type(self).__name__)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._model = tokenizer, model.to(device).eval()

    def unload(self) -> None:
        self._model = self._tokenizer = None
