"""An upstream that can do what a good OpenAI server can, scripted: for strict clients."""

from tests.able.server import KEY, Able

__all__ = ["KEY", "Able"]
