"""Each error has its status and shape, and each of litellm's has its counterpart here."""

import builtins
import inspect

import httpx
import openai
import pytest

from honestproxy import errors
from honestproxy.backends.litellm import TRANSLATIONS, load, translate
from honestproxy.errors import (
    BackendError,
    HonestProxyError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)

KEY = "sk-operator-0123456789"


def classes(module):
    found = [kind for name, kind in list(vars(module).items()) if not name.startswith("_")]
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", classes(errors))
def test_each_error_has_openais_shape(kind):
    error = kind("What to do.", param="p", headers={"retry-after": "1"})
    assert error.body()["error"] == {
        "message": "What to do.",
        "type": kind.type,
        "param": "p",
        "code": kind.code,
    }
    assert 400 <= error.status < 600
    assert str(error) == error.message


@pytest.mark.parametrize("kind", classes(errors))
def test_each_error_is_in_the_tree_that_the_module_draws(kind):
    assert f" {kind.__name__} " in f"{errors.__doc__} ".replace("\n", " ")


def test_an_upstreams_own_body_is_kept():
    body = {"error": {"message": "m", "more": 1}}
    assert UpstreamError("x", upstream=body, status=418).body() == body


def test_every_error_that_litellm_exposes_is_mapped():
    exposed = classes(load().exceptions) + classes(openai)
    exposed += [kind for kind in classes(load()) if kind.__module__.startswith("litellm")]
    unmapped = {kind.__name__ for kind in exposed if not _is_known(kind)}
    assert unmapped == set()


def _is_known(kind):
    # Raised only by litellm's router and tool loop, and by openai's web sockets and web hooks.
    elsewhere = ("Router", "ToolLoop", "WebSocket", "InvalidWebhook")
    return kind.__name__ in TRANSLATIONS or kind.__name__.startswith(elsewhere)


def test_every_row_is_an_error_that_exists():
    homes = (load().exceptions, openai, builtins)
    gone = {name for name in TRANSLATIONS if not any(hasattr(home, name) for home in homes)}
    assert gone == set()


def status_error(name, status, message="No.", headers=None):
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    response = httpx.Response(status, headers=headers, request=request)
    kind = getattr(load().exceptions, name)
    return kind(message, llm_provider="openai", model="m", response=response)


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("AuthenticationError", 401, UpstreamError),
        ("PermissionDeniedError", 403, UpstreamError),
        ("NotFoundError", 404, UpstreamError),
        ("UnprocessableEntityError", 422, UpstreamError),
        ("RateLimitError", 429, UpstreamError),
        ("BadRequestError", 400, UpstreamError),
        ("ContextWindowExceededError", 400, UpstreamError),
        ("InternalServerError", 500, UpstreamError),
        ("ServiceUnavailableError", 503, UpstreamError),
    ],
)
def test_a_status_stays_itself(name, status, kind):
    error = translate(status_error(name, status, headers={"Retry-After": "3", "Server": "s"}))
    assert type(error) is kind
    assert error.status == status
    assert error.headers.get("retry-after", "3") == "3"
    assert "No." in error.message


@pytest.mark.parametrize(
    ("made", "kind", "status"),
    [
        (lambda e: e.Timeout("late", "m", "openai"), UpstreamTimeout, 504),
        (lambda e: e.APIConnectionError("gone", "openai", "m"), UpstreamUnreachable, 502),
        (lambda e: e.APIError(503, "busy", "openai", "m"), UpstreamError, 503),
        (lambda e: e.APIError(200, "odd", "openai", "m"), UpstreamError, 502),
        (lambda e: e.APIResponseValidationError("odd", "openai", "m"), UpstreamBroken, 502),
        (lambda e: type("Newer", (e.NotFoundError,), {})("x", "m", "o"), UpstreamError, 404),
        (lambda _: ModuleNotFoundError("boto3"), BackendError, 500),
        (lambda _: TimeoutError(), UpstreamTimeout, 504),
        (lambda _: KeyError("choices"), UpstreamBroken, 502),
    ],
)
def test_what_becomes_of_an_error(made, kind, status):
    error = translate(made(load().exceptions))
    assert type(error) is kind
    assert error.status == status
    assert error.message
    assert isinstance(error, HonestProxyError)


def test_keys_are_not_told(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-environment-0123456789")
    text = f"bad keys {KEY} and sk-environment-0123456789"
    error = translate(status_error("AuthenticationError", 401, text), KEY)
    assert "bad keys [redacted] and [redacted]" in error.message
