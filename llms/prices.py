"""What requests cost, from the price list of the `genai-prices` package: https://github.com/pydantic/genai-prices.

The list is part of the installed package; nothing is fetched. Prices are those that providers publish, of each
request: batches, service tiers, and tokens that are read from a cache or written into it have prices of their own.
Where a provider's answers say what they cost, that holds. Discounts of an account, and a provider's fees besides
tokens, aren't known here.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from llms.base import LLM
from llms.batch import OfflineBatchLLM
from llms.errors import LLMError
from llms.typing import PriceSource, Usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation, TieredPrices

NAMES_OF_OWN_SERVERS = (".localhost", ".local", ".internal", ".lan")
SECONDS_PER_CARD = 60
USUAL_TIERS = frozenset({"", "auto", "default", "standard", "on_demand"})
"""The words for requests without a tier of their own. Another one has a price in the list, or it's assumed."""
SAY_WHAT_IT_COST = frozenset({"openrouter", "perplexity", "x-ai"})
"""The providers whose answers have their price, by the list's names."""
PART_OF = {
    "cache_write_1h_mtok": ("cache_write_mtok",),
    "cache_write_5m_mtok": ("cache_write_mtok",),
    "output_image_mtok": ("output_mtok",),
}
"""The list's names of prices to those that hold where there's none."""


class Price(NamedTuple):
    """What a request cost, in US dollars."""

    dollars: float
    assumed: bool = False
    """Whether the list has no price for the way it was asked: of a batch, a share of the price online is taken."""


def price_of(llm: LLM, usage: Usage, *, batch: bool = False) -> Price | None:
    """What one request cost: by the provider's word, or by the list and the tier that the answer names.

    Args:
        llm: any adapter; `price_source` says where its price is found.
        usage: what the request took.
        batch: whether a batch job answered it.

    Returns:
        None where the price isn't known: a server or an engine of one's own, a provider or model not in the list.

    Example:
        >>> from llms import AnthropicLLM
        >>> llm = AnthropicLLM(model="claude-sonnet-4-5", base_url="https://api.anthropic.com")
        >>> price_of(llm, {"input_tokens": 100_000, "output_tokens": 0, "cached_tokens": 90_000}).dollars
        0.057
    """
    card = _card_for(llm, usage.get("tier", ""), batch=batch)
    if card is None:
        return None
    if card.says_cost and (said := usage.get("dollars")) is not None:
        return Price(said)
    dollars = card.dollars(usage)
    return Price(dollars, card.assumed) if dollars is not None else None


def price_at(source: PriceSource, usage: Usage, *, batch_share: float | None = None) -> Price | None:
    """What one request cost by the list, where whom it was sent to is known by name alone.

    Args:
        source: the address, and the model's name there.
        usage: what the request took.
        batch_share: of the price online, where a batch job answered it.

    Returns:
        None where the price isn't known.

    Example:
        >>> source = PriceSource("https://api.openai.com/v1", "gpt-4o-mini")
        >>> price_at(source, {"input_tokens": 1_000_000, "output_tokens": 0}).dollars
        0.15
    """
    card = _card_at(source, "" if batch_share is not None else usage.get("tier", ""), batch_share)
    dollars = card.dollars(usage) if card is not None else None
    return Price(dollars, card.assumed) if card is not None and dollars is not None else None


def cost(
    llm: LLM, input_tokens: int, output_tokens: int, *, requests: int = 0, batch: bool = False, tier: str = ""
) -> float | None:
    """What requests cost by the list, in US dollars, with nothing cached.

    Args:
        llm: any adapter; `price_source` says where its price is found.
        input_tokens: of all requests together.
        output_tokens: of all requests together.
        requests: how many requests those tokens are of. Some providers charge more per token for long prompts,
            so the price is that of the average request. 0: not known, all prompts are short.
        batch: whether a batch job answers them: at the list's price for that, or `batch_price` of the one online.
        tier: a service tier that they're asked for at, such as `flex`.

    Returns:
        None where the price isn't known, also that of the tier: a server or an engine of one's own, a provider or
        model not in the list.

    Example:
        >>> from llms import OpenAILLM
        >>> llm = OpenAILLM(model="gpt-4o-mini", base_url="https://api.openai.com/v1")
        >>> cost(llm, input_tokens=1_000_000, output_tokens=1_000_000)
        0.75
        >>> cost(llm, input_tokens=1_000_000, output_tokens=1_000_000, batch=True)
        0.375
    """
    card = _card_for(llm, tier, batch=batch)
    if card is None or (tier and card.assumed):
        return None
    # As if of a token each, where the number of requests isn't known: below the threshold of any higher price.
    parts = requests or max(1, input_tokens + output_tokens)
    price = card.whole(input_tokens / parts, output_tokens / parts)
    return price * parts if price is not None else None


def _card_for(llm: LLM, tier: str, *, batch: bool) -> _Card | None:
    if batch and not isinstance(llm, OfflineBatchLLM):
        return None
    try:
        source = llm.price_source()
    except LLMError:
        # Its address can't be found out, in credentials that are gone: so its price can't either.
        return None
    share = llm.batch_price if isinstance(llm, OfflineBatchLLM) and batch else None
    return _card_at(source, "" if batch else tier, share) if source is not None else None


def _card_at(source: PriceSource, tier: str, batch_share: float | None) -> _Card | None:
    if is_own_server(source.url):
        return None
    # Some prices have a first day, or hours of the day.
    return _card(source, tier, batch_share, int(time.time() // SECONDS_PER_CARD))


@dataclass(frozen=True)
class _Card:
    """A model's prices of one way to ask it. The list's own calculation takes milliseconds for each request."""

    prices: Mapping[str, Decimal | TieredPrices]
    """By the list's names, in dollars for a million tokens."""
    share: float = 1.0
    assumed: bool = False
    images: bool = False
    says_cost: bool = False
    """Whether the provider's answers say what they cost."""

    def dollars(self, usage: Usage) -> float | None:
        """The price of a request."""
        cached, written = usage.get("cached_tokens", 0), usage.get("cache_write_tokens", 0)
        long = usage.get("cache_write_1h_tokens", 0)
        return self.whole(
            usage["input_tokens"],
            usage["output_tokens"],
            {
                "cache_read_mtok": cached,
                "cache_write_1h_mtok": long,
                "cache_write_5m_mtok": written - long,
                "output_reasoning_mtok": usage.get("reasoning_tokens", 0),
            },
        )

    def whole(self, read: float, made: float, parts: Mapping[str, float] | None = None) -> float | None:
        """The price of tokens, of which `parts` have prices of their own where the list has any.

        None where what was made has none: embedding models make no tokens, others would seem free.
        """
        total = 0.0
        left = {"input_mtok": read, "output_image_mtok" if self.images else "output_mtok": made}
        for name, tokens in (parts or {}).items():
            side = "output_mtok" if name.startswith("output") else "input_mtok"
            if tokens and side in left and (rate := self._rate(name, read)) is not None:
                total += rate * tokens
                left[side] -= tokens
        for name, tokens in left.items():
            rate = self._rate(name, read)
            if rate is None and tokens:
                return None
            total += (rate or 0.0) * tokens
        a_request = (self._rate("requests_kcount", read) or 0.0) / 1000
        return self.share * (total / 1_000_000 + a_request)

    def _rate(self, name: str, read: float) -> float | None:
        """The price under a name, or that of what it is a part of, for a prompt of so many tokens."""
        price = next((self.prices[each] for each in (name, *PART_OF.get(name, ())) if each in self.prices), None)
        if price is None or isinstance(price, Decimal):
            return None if price is None else float(price)
        # A long prompt costs more from its first token on.
        above = [tier.price for tier in price.tiers if read > tier.start]
        return float(above[-1] if above else price.base)


@lru_cache(maxsize=256)
def _card(source: PriceSource, tier: str, batch_share: float | None, when: int) -> _Card | None:
    """The prices of a model at its address at a time; None where the list doesn't have them."""
    import genai_prices

    context = {"processing": "batch"} if batch_share is not None else {"service_tier": tier, "speed": tier}
    url = f"{source.url.rstrip('/')}/".lower()
    nothing = genai_prices.Usage(input_tokens=0, output_tokens=0)
    now = datetime.fromtimestamp(when * SECONDS_PER_CARD, UTC)
    try:
        found = genai_prices.calc_price(
            nothing, source.model, provider_api_url=url, genai_request_timestamp=now, price_context=context
        )
    except LookupError:
        return None
    if not is_at(found.provider.api_pattern, url):
        return None
    prices = {name: price for name, price in vars(found.model_price).items() if price is not None}
    if "input_mtok" not in prices:
        # Sold by the hour or the image: tokens would seem free.
        return None
    known = _has_variant(found, context, now)
    unusual = batch_share is not None or tier not in USUAL_TIERS
    share = batch_share if batch_share is not None and not known else 1.0
    says_cost = found.provider.id in SAY_WHAT_IT_COST
    return _Card(prices, share, unusual and not known, source.images, says_cost)


def _has_variant(found: PriceCalculation, context: Mapping[str, str], now: datetime) -> bool:
    """Whether the list has prices for this way to ask. Of a provider that sells another one's models it has none."""
    if not any(found.model is model for model in found.provider.models):
        return False
    return any(
        variant.when.items() <= context.items() and (variant.constraint is None or variant.constraint.active(now))
        for variant in found.model.price_variants or ()
    )


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


@cache
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
