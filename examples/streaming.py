"""A streamed answer: tokens as they are made, and `honesty` on the chunk that ends it."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1"), api_key="none"
)
stream = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is the price of gold right now?"}],
    stream=True,
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
        if choice.finish_reason:
            honesty = chunk.model_extra["honesty"]
            print(f"\n({honesty['outcome']} after {honesty['calls']} calls)")
