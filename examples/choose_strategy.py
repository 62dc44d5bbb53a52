"""Three ways to choose a strategy for one request; the first that is present wins."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1"), api_key="none"
)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is the price of gold right now?"}]


def show(how: str, **choice: object) -> None:
    request = {"model": model, "messages": messages, **choice}
    reply = client.chat.completions.with_raw_response.create(**request)
    print(f"{how}: {reply.headers['x-honesty-strategy']}")


show("body", extra_body={"honesty": {"strategy": "gated", "capabilities": ["web_search"]}})
show("header", extra_headers={"X-Honesty": "single"})
show("model name", model=f"{model}@raw")
