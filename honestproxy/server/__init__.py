"""The proxy: OpenAI's API over HTTP, answered by a pipeline."""

from honestproxy.server.app import create_app

__all__ = ["create_app"]
