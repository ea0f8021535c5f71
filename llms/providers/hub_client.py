"""What the adapters share whose requests `huggingface_hub` sends: each provider there has a protocol of its own."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr

from llms.errors import BadRequestError, ConnectionFailedError, InvalidResponseError, RequestTimeoutError
from llms.loop import PerLoop
from llms.parameters import Unasked
from llms.providers.inference_endpoints import InferenceEndpointsLLM, error_from
from llms.typing import JSONSchema, PriceSource

if TYPE_CHECKING:
    from huggingface_hub import AsyncInferenceClient


class HubClientModel(InferenceEndpointsLLM):
    """A model on Hugging Face's infrastructure that answers something else than text."""

    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    _clients: PerLoop[AsyncInferenceClient] = PrivateAttr(default_factory=PerLoop)

    def price_source(self) -> PriceSource | None:
        return None

    def _client(self) -> AsyncInferenceClient:
        return self._clients.get(self._new_client)

    def _model(self) -> str:
        """As the client takes it: a model's name, or a server's address."""
        return self.model_id or self._found_server().url

    def _new_client(self) -> AsyncInferenceClient:
        from huggingface_hub import AsyncInferenceClient

        key = self._found_server().key
        provider: Any = self.inference_provider if self.model_id else None
        return AsyncInferenceClient(
            provider=provider, token=key.get_secret_value() if key else None, timeout=self.timeout
        )

    @contextmanager
    def _errors_of_the_client(self, wanted: str) -> Generator[None]:
        """Raise what the client raises as an error of ours; `wanted` is what the model is asked for."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

        url = self._found_server().url
        try:
            yield
        except InferenceTimeoutError:
            raise RequestTimeoutError(f"no answer from {url} in {self.timeout:g} s") from None
        except HfHubHTTPError as error:
            answer = error.response
            raise error_from(answer.status_code, answer.headers, answer.content) from None
        except httpx2.ConnectError as error:
            raise ConnectionFailedError(f"can't reach {url} ({error}); check the address and the network") from None
        except httpx2.HTTPError as error:
            raise InvalidResponseError(
                f"the connection to {url} was cut before the answer was there ({error!r})"
            ) from None
        except (OSError, json.JSONDecodeError) as error:
            raise InvalidResponseError(f"the answer of {url} can't be read as {wanted}: {error}") from None
        except (ValueError, RuntimeError) as error:
            # The provider or the model isn't one for that.
            raise BadRequestError(f"{self.model_name} can't be asked for {wanted}: {error}") from None
