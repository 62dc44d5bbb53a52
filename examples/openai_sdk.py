"""Any app that uses the OpenAI SDK: only `base_url` changes."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1"), api_key="none"
)
model = client.models.list().data[0].id

reply = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "What is the price of gold right now?"}],
)
print(reply.choices[0].message.content)

# What was done rides along, beside OpenAI's own fields.
honesty = reply.model_extra["honesty"]
print(f"{honesty['strategy']}: {honesty['outcome']}, {honesty['calls']} calls")
for doubt in honesty["doubts"] or []:
    print(f"- {doubt['kind']}: {doubt['statement']}")
