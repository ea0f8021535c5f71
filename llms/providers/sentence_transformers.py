"""Embedding models of the library Sentence Transformers, run by this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr

from llms.embeddings import Embeddings
from llms.errors import ModelNotFoundError
from llms.extras import package
from llms.fingerprints import fingerprint
from llms.parameters import Unasked


class SentenceTransformerEmbeddings(Embeddings):
    """An embedding model that runs here, from the Hugging Face Hub or from a folder.

    It needs the extra `local`. A text that is longer than the model takes is cut, as the library does.

    The precisions `int8` and `uint8` of the library aren't offered: it scales them by the texts that happen to be
    encoded together, so that vectors of two batches can't be compared.

    Example:
        >>> model = SentenceTransformerEmbeddings(
        ...     model="intfloat/multilingual-e5-small", prompts={"query": "query: "}, default_prompt_name="query"
        ... )
        >>> model.model_name
        'intfloat/multilingual-e5-small'
    """

    form_title = "Sentence Transformers"
    form_first = ("model", "device")

    provider: Annotated[Literal["sentence-transformers"], Field(title="Provider")] = "sentence-transformers"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Model", description="Of the Hugging Face Hub, or the path of a folder.")]
    device: Annotated[
        str | None,
        Field(title="Device", description="Such as cpu, cuda, cuda:1, mps. Empty: the best there is."),
        Unasked(),
    ] = None
    prompts: Annotated[
        dict[str, str], Field(title="Prompts", description="What is put before a text, by a name of your choice.")
    ] = {}
    default_prompt_name: Annotated[
        str | None, Field(title="Default prompt", description="The name of the one to take. Empty: the model's own.")
    ] = None
    trust_remote_code: Annotated[
        bool, Field(title="Run the model's code", description="Code that comes with the model. It can do anything.")
    ] = False
    revision: Annotated[str | None, Field(title="Revision", description="A branch, tag or commit. Empty: main.")] = None
    token: Annotated[
        SecretStr | None, Field(exclude=True, description="The Hub's key itself; better by HF_TOKEN."), Unasked()
    ] = None
    truncate_dim: Annotated[
        int | None, Field(ge=1, title="Numbers", description="Of a vector, where the model can make it shorter.")
    ] = None
    normalize_embeddings: Annotated[bool, Field(title="Normalize", description="Give the vectors length 1.")] = True
    precision: Annotated[
        Literal["float32", "binary", "ubinary"],
        Field(title="Precision", description="Binary: a bit per number, eight of them in one whole number."),
    ] = "float32"

    _loaded: Any = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    def fingerprints(self) -> dict[str, str]:
        folder = Path(self.model)
        # Some of its modules have folders of their own.
        return {"model": fingerprint(folder, nested=True)} if folder.is_dir() else {}

    def addressee(self) -> dict[str, Any]:
        files = self.fingerprints()
        return {**super().addressee(), **({"files": files} if files else {})}

    def load(self) -> None:
        """Load the weights.

        Raises:
            MissingPackageError: the extra isn't installed.
            ModelNotFoundError: there's no such model, or it can't be loaded.
        """
        if self._loaded is not None:
            return
        library = package("sentence_transformers", "local", type(self).__name__)
        try:
            self._loaded = library.SentenceTransformer(
                self.model,
                device=self.device,
                prompts=self.prompts or None,
                default_prompt_name=self.default_prompt_name,
                trust_remote_code=self.trust_remote_code,
                revision=self.revision,
                token=self.token.get_secret_value() if self.token else None,
                truncate_dim=self.truncate_dim,
            )
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"model={self.model!r} can't be loaded: {error}") from error

    def unload(self) -> None:
        self._loaded = None

    def encode(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        inputs: list[str],
        prompt_name: Annotated[
            str | None, Field(description="The prompt to put before the texts. Empty: the default one.")
        ] = None,
    ) -> list[list[float]]:
        """The vector of each text, in their order."""
        self.load()
        return self._loaded.encode(
            inputs,
            prompt_name=prompt_name,
            batch_size=self.input_batch_size,
            show_progress_bar=False,
            precision=self.precision,
            normalize_embeddings=self.normalize_embeddings,
        ).tolist()
