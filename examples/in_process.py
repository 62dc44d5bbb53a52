"""No server: the same pipeline inside a Python program.

Takes its settings from `HONESTPROXY_*` and `honestproxy.toml`, as the commands do.
"""

import asyncio

from honestproxy import backends, settings
from honestproxy.pipeline import Pipeline
from honestproxy.types import ChatRequest, Options


async def main() -> None:
    chosen = settings.load()
    pipeline = Pipeline(backends.load(chosen), chosen)
    body = {
        "model": (await pipeline.models())[0]["id"],
        "messages": [{"role": "user", "content": "What is the price of gold right now?"}],
    }
    run = pipeline.run(ChatRequest(body, options=Options(strategy="curiosity")))
    response = await run.complete()
    print(response.text)
    for step in run.honesty.trace.steps:
        print(f"{step.name}: {step.seconds:.2f} s, prompt {step.prompt or 'none'}")
    await pipeline.aclose()


asyncio.run(main())
