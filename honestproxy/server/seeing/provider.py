"""What an upstream is called in OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from honestproxy.server.origins import Origins

if TYPE_CHECKING:
    from honestproxy.server.account import Account
    from honestproxy.settings import Settings
    from honestproxy.trace import Step

_NAME: Final = "gen_ai.provider.name"
_HOSTS: Final = {
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "anthropic.com": "anthropic",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
"""Well-known names by the end of a host's; whatever else speaks OpenAI's API is `openai`."""

_LITELLM: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Well-known names by those that litellm has, where they differ."""


Told = Mapping[str, str | int]


class Providers:
    """Who answers under some settings, and where, for the spans of calls."""

    def __init__(self, settings: Settings) -> None:
        self._origins = Origins(settings)
        self._told = {spec: attributes(spec) for spec in self._origins.specs.values()}
        self._names = {spec: {_NAME: told[_NAME]} for spec, told in self._told.items()}

    def meant(self, spec: str) -> Told:
        """What is known before a call; where fallbacks may answer, an address isn't."""
        return (self._names if self._origins.has_fallbacks else self._told)[spec]

    def answered(self, step: Step, account: Account) -> Told:
        """What is known after it."""
        return self._told[self._origins.of_call(step, account)]


def attributes(spec: str) -> Told:
    """Who answers and where, as an upstream's spec tells it."""
    told: dict[str, str | int] = {_NAME: name(spec)}
    url = urlsplit(spec)
    if url.scheme in ("http", "https") and url.hostname:
        told["server.address"] = url.hostname
        told["server.port"] = url.port or {"http": 80, "https": 443}[url.scheme]
    return told


def name(spec: str) -> str:
    """The provider that an upstream's spec leads to, as far as it tells."""
    prefix, _, rest = spec.partition(":")
    if prefix in ("http", "https"):
        host = f".{urlsplit(spec).hostname or ''}"
        return next((name for end, name in _HOSTS.items() if host.endswith(f".{end}")), "openai")
    if prefix == "litellm":
        provider = rest.partition("/")[0]
        return _LITELLM.get(provider, provider)
    return "local" if prefix == "local" else "custom"
