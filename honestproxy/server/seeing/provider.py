"""What an upstream is called in OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from honestproxy.settings import Settings

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


def attributes(settings: Settings) -> dict[str, str | int]:
    """Who answers and where, for the spans of calls; of several upstreams, where is left open."""
    told: dict[str, str | int] = {"gen_ai.provider.name": name(settings.upstream)}
    url = urlsplit(settings.upstream)
    if url.scheme in ("http", "https") and url.hostname and not settings.upstreams:
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
