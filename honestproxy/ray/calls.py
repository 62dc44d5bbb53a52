"""What a worker answers to a call, and what its loss looks like."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from honestproxy.errors import BackendError, EvaluationError, HonestProxyError


class Lost(BackendError):
    """A worker is gone, and with it what it was asked: another one may be asked."""


async def answered(reference: Awaitable[Any]) -> Any:
    """What a worker answers. Raises Lost, or what it raised; EvaluationError where not ours."""
    from ray.exceptions import LocalRayletDiedError, RayActorError, RayError, RayTaskError

    try:
        return await reference
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HonestProxyError):
            raise cause from None
        raise EvaluationError(f"a worker failed: {type(cause).__name__}: {cause}") from None
    except LocalRayletDiedError:
        raise EvaluationError("this machine's own part of the cluster ended") from None
    except RayActorError as error:
        if error.actor_init_failed:
            raise EvaluationError(f"a worker can't begin: {_last(str(error))}") from None
        raise Lost(_last(str(error))) from None
    except RayError as error:
        raise Lost(_last(str(error))) from None


def _last(text: str) -> str:
    """The last line that says something: Ray puts tracebacks before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
