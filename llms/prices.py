"""What requests cost, from the price list of the `genai-prices` package: https://github.com/pydantic/genai-prices.

The list is part of the installed package; nothing is fetched. Prices are those that providers publish:
discounts of an account, prompt caching and a provider's fees besides tokens aren't known here.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llms.base import LLM
from llms.batch import OfflineBatchLLM
from llms.errors import LLMError
from llms.typing import PriceSource

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

NAMES_OF_OWN_SERVERS = (".localhost", ".local", ".internal", ".lan")


def cost(llm: LLM, input_tokens: int, output_tokens: int, *, requests: int = 0, batch: bool = False) -> float | None:
    """What requests cost by the list, in US dollars.

    Args:
        llm: any adapter; `price_source` says where its price is found.
        input_tokens: of all requests together.
        output_tokens: of all requests together.
        requests: how many requests those tokens are of. Some providers charge more per token for long prompts,
            so the price is that of the average request. 0: not known, all prompts are short.
        batch: whether a batch job answers them: that costs `batch_price` of the price online.

    Returns:
        None where the price isn't known: a server or an engine of one's own, a provider or model not in the list.

    Example:
        >>> from llms import OpenAILLM
        >>> llm = OpenAILLM(model="gpt-4o-mini", base_url="https://api.openai.com/v1")
        >>> cost(llm, input_tokens=1_000_000, output_tokens=1_000_000)
        0.75
        >>> cost(llm, input_tokens=1_000_000, output_tokens=1_000_000, batch=True)
        0.375
    """
    share = 1.0
    if batch:
        if not isinstance(llm, OfflineBatchLLM):
            return None
        share = llm.batch_price
    try:
        source = llm.price_source()
    except LLMError:
        # Its address can't be found out, in credentials that are gone: so its price can't either.
        return None
    if source is None or is_own_server(source.url):
        return None
    # As if of a token each, where the number of requests isn't known: below the threshold of any higher price.
    parts = requests or max(1, input_tokens + output_tokens)
    price = list_price(source, input_tokens / parts, output_tokens / parts)
    return price * parts * share if price is not None else None


def list_price(source: PriceSource, input_tokens: float, output_tokens: float) -> float | None:
    """The price of one request online in US dollars; None where the list doesn't have it."""
    import genai_prices

    images = {"output_image_tokens": output_tokens} if source.images else {}
    usage = genai_prices.Usage(input_tokens=input_tokens, output_tokens=output_tokens, **images)
    url = f"{source.url.rstrip('/')}/".lower()
    try:
        found = genai_prices.calc_price(usage, source.model, provider_api_url=url)
    except LookupError:
        return None
    if not is_at(found.provider.api_pattern, url) or not has_token_prices(found, output_tokens):
        return None
    return float(found.total_price)


def is_at(pattern: str, url: str) -> bool:
    """Whether `url` is an address of the provider with this pattern, and not one that only begins like it.

    Example:
        >>> is_at(r"https://api\\.openai\\.com", "https://api.openai.com/v1/")
        True
        >>> is_at(r"https://api\\.openai\\.com", "https://api.openai.com.example.org/v1/")
        False
    """
    match = re.match(pattern, url)
    if match is None:
        return False
    # Some patterns end within the host, before its last part.
    return match[0].endswith("/") or re.match(r"[a-z]*[:/]", url[match.end() :]) is not None


def has_token_prices(found: PriceCalculation, output_tokens: float) -> bool:
    """Whether the tokens have a price; those of models sold by the hour or image would seem free.

    Embedding models have none for output tokens, and give none.
    """
    prices = vars(found.model_price)
    return prices.get("input_mtok") is not None and (prices.get("output_mtok") is not None or not output_tokens)


def is_own_server(url: str) -> bool:
    """Whether the address is one within one's own network: an IP address, or a name without a domain."""
    host = urlsplit(url).hostname or ""
    is_number = ":" in host or re.fullmatch(r"[\d.]+", host) is not None
    return is_number or "." not in host or host.endswith(NAMES_OF_OWN_SERVERS)


def money(dollars: float) -> str:
    """An amount as people read it: in cents, and of a few cents or less the first two digits.

    Example:
        >>> money(1234.5), money(0.0), money(0.000123)
        ('$1,234.50', '$0.00', '$0.00012')
    """
    if 0 < dollars < 0.1:
        return f"${dollars:.{1 - math.floor(math.log10(dollars))}f}"
    return f"${dollars:,.2f}"
