"""No server: the OpenAI client that an app already has, made honest.

Takes `OPENAI_API_KEY` and `OPENAI_BASE_URL` from the environment, as the client itself does.
"""

from openai import OpenAI

from honestproxy import honest

client = honest(OpenAI())
request = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is the price of gold right now?"}],
}

reply = client.chat.completions.create(**request)
print(reply.choices[0].message.content)
told = honest.trace(reply)
print(f"{told.outcome}: {told.reason}, {told.calls} calls")

stream = client.chat.completions.create(**request, stream=True)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print(f"\nstreamed: {honest.trace(stream).outcome}")

plain = honest.raw(client).chat.completions.create(**request)
print(f"the same client without us: {plain.choices[0].message.content}")
