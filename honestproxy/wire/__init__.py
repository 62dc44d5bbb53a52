"""OpenAI's JSON and server-sent events, to our types and back: pure functions."""
