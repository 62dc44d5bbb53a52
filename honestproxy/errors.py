"""Every error a user can meet, and the shape OpenAI's API gives it.

    HonestProxyError
    ├── InvalidRequest        400  the request can't be understood
    │   ├── Unauthorized      401  no key of this proxy's, or none that holds
    │   ├── UnknownModel      404  no such model here
    │   ├── Forbidden         403  the settings, or the key, don't allow it
    │   ├── RateLimited       429  the key's requests or tokens are used up for now
    │   ├── TooLarge          413  the body is over the limit
    │   ├── HeadTooLarge      431  so are the headers
    │   └── TooSlow           408  the request doesn't come whole in time
    ├── UpstreamError         its own status: the upstream said no
    │   ├── UpstreamUnreachable   502  no connection
    │   ├── UpstreamBroken        502  a good status without a good answer
    │   ├── UpstreamTimeout       504  no answer in time
    │   └── UpstreamUnavailable   503  left alone, after failing again and again
    ├── Overloaded            429  no place for the request in time
    ├── Stopping              503  the proxy is being stopped
    ├── StepFailed            502  a step's reply can't be used (empty, cut off, refused)
    ├── BackendError          500  a backend can't start or run here
    │   └── ModelUnavailable       its files are missing or broken
    ├── PromptError           500  a prompt file and its values don't match
    ├── SettingsError              a setting is unknown or wrong (command line only)
    └── EvaluationError            data, log or configuration of an evaluation can't be used

Messages say what to do next. https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class HonestProxyError(Exception):
    """The root: a message for people, and what OpenAI's error object holds beside it."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    def at_rest(self) -> Self:
        """The same error and what caused it, without the way they came.

        A traceback holds every frame on that way, and those hold what holds the error: a cycle
        that only a full collection ends. For an error that is handled and yet remembered.
        """
        error: BaseException | None = self
        seen: list[BaseException] = []  # one that is raised twice may be its own cause
        while error is not None and error not in seen:
            seen.append(error)
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
        return self

    def adding(self, hint: str) -> Self:
        """The same error, its message with a hint behind it."""
        self.message = f"{self.message}; {hint}"
        self.args = (self.message,)
        return self

    def body(self) -> dict[str, Any]:
        """OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
        error = {"message": self.message, "type": self.type}
        return {"error": {**error, "param": self.param, "code": self.code}}


class InvalidRequest(HonestProxyError):
    """The request can't be understood; the message names the field."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(InvalidRequest):
    """The request brings no key of this proxy's, or one that doesn't hold (any more)."""

    status = 401
    code = "invalid_api_key"


class UnknownModel(InvalidRequest):
    """No model of that name is here."""

    status = 404
    code = "model_not_found"


class Forbidden(InvalidRequest):
    """The request is clear, but the settings or its key don't allow it."""

    status = 403
    type = "permission_error"


class RateLimited(InvalidRequest):
    """The key has used up its requests or tokens; `Retry-After` says until when."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class TooLarge(InvalidRequest):
    """The body is over the limit."""

    status = 413


class HeadTooLarge(InvalidRequest):
    """The request line and headers are over the limit."""

    status = 431


class TooSlow(InvalidRequest):
    """The request didn't come whole in time."""

    status = 408
    code = "request_timeout"


class UpstreamError(HonestProxyError):
    """The upstream answered with an error: its status, headers and body are kept."""

    status = 502
    type = "upstream_error"

    def __init__(
        self, message: str, *, upstream: dict[str, Any] | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.upstream = upstream

    def adding(self, hint: str) -> Self:
        """The same error, the upstream's own message with a hint behind it."""
        if self.upstream is not None:
            error = self.upstream["error"]
            shown = f"{error.get('message') or self.message}; {hint}"
            self.upstream = {**self.upstream, "error": {**error, "message": shown}}
        return super().adding(hint)

    def body(self) -> dict[str, Any]:
        """The upstream's own error body where it is OpenAI-shaped, ours otherwise."""
        return self.upstream if self.upstream is not None else super().body()


class UpstreamUnreachable(UpstreamError):
    """No connection to the upstream."""

    code = "upstream_unreachable"


class UpstreamBroken(UpstreamError):
    """A good status without a good answer: not JSON, not a completion, or broken off."""

    code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    """No answer in time."""

    status = 504
    code = "upstream_timeout"


class UpstreamUnavailable(UpstreamError):
    """The upstream has failed again and again, and is left alone; `Retry-After` says until when."""

    status = 503
    code = "upstream_unavailable"


class Overloaded(HonestProxyError):
    """There is no place for the request in time; `Retry-After` says when there may be one."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class Stopping(HonestProxyError):
    """The proxy is being stopped, and the request was cut off."""

    status = 503
    code = "stopping"


class StepFailed(HonestProxyError):
    """A step came back, but its reply can't be used: empty, cut off or refused."""

    status = 502
    code = "step_failed"


class BackendError(HonestProxyError):
    """A backend can't be started or used on this machine; the message names the remedy."""

    code = "backend_unavailable"


class ModelUnavailable(BackendError):
    """A model's files are missing, broken or can't be fetched."""

    code = "model_unavailable"


class PromptError(HonestProxyError):
    """A prompt file is missing, or its placeholders and the values don't match."""

    code = "prompt_error"


class SettingsError(HonestProxyError):
    """A setting is unknown or has a wrong value."""

    type = "invalid_request_error"
    code = "settings_error"


class EvaluationError(HonestProxyError):
    """An evaluation's data, log or configuration can't be used; the message names file and line."""

    type = "invalid_request_error"
    code = "evaluation_error"
