"""LangChain's standard tests of a chat model, on `ChatOpenAI` through the proxy.

Run by tests/outside/test_langchain.py, in an environment of its own, with the proxy's address
in PROXY_URL. What the suite would download is served from here.
"""

from __future__ import annotations

import base64
import os
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(200, content=PNG))
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "none is sent")


class Through(ChatModelIntegrationTests):
    """The proxy, with a strategy and a model of the upstream."""

    strategy: str
    model_name = "m"
    over_responses = False
    """Whether it asks /v1/responses."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "base_url": os.environ["PROXY_URL"],
            "api_key": os.environ["PROXY_KEY"],
            "default_headers": {"X-Honesty": self.strategy},
            "max_retries": 0,
            "stream_usage": True,
            "use_responses_api": self.over_responses,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "other-m"


class TestRaw(Through):
    strategy = "raw"


class TestGated(Through):
    strategy = "gated"


class TestGatedInDoubt(Through):
    strategy = "gated"
    model_name = "unsure"


class TestRawResponses(Through):
    strategy = "raw"
    over_responses = True


class TestGatedResponses(Through):
    strategy = "gated"
    over_responses = True


class TestGatedResponsesInDoubt(Through):
    strategy = "gated"
    model_name = "unsure"
    over_responses = True
