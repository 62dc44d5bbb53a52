"""What the local engine costs, on the embedded model: ratios of times taken in one run.

    python benchmarks/local.py [--repeat 5] [--json]

Every answer is greedy and has as many tokens as it may: no answer ends early here. Before each
one the engine forgets all conversations, but where it is to remember one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honestproxy.backends.local import Local
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest, ChatResponse, Chunk, Options

MODEL = "smollm2-135m-instruct"
DOUBTFUL = (
    "What does a barrel of Brent crude cost right now?",
    "How do you feel after a long day of answering people?",
    "Look at the photo of my balcony and tell me which plants need water.",
    "What is the weather like in Tromsø at this moment?",
    "What's your happiest memory of your own childhood?",
)
PLAIN = (
    "What is a suspension bridge?",
    "Explain how bread rises in the oven.",
    "Why does the moon have phases?",
    "Give me some tips for packing a suitcase.",
    "What does a conductor of an orchestra do?",
)
LINE = "The ferry leaves the north quay at eight, and comes back in the evening with the post. "


class Endless:
    """A local model that never ends an answer by itself."""

    def __init__(self, local: Local, ends: list[int]) -> None:
        self.local = local
        self.traits = local.traits
        self._bias = dict.fromkeys(map(str, ends), -100)

    def _asked(self, request: ChatRequest) -> ChatRequest:
        return request.replace({"brief"}, logit_bias=self._bias)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        return await self.local.complete(self._asked(request))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        async for chunk in self.local.stream(self._asked(request)):
            # A confusion that is cut off would be a failed step, and nothing be merged.
            ended = [{**choice, "finish_reason": "stop"} for choice in chunk.choices]
            yield chunk.replace(choices=ended) if chunk.finished else chunk

    async def read(self, request: ChatRequest) -> Any:
        return await self.local.read(request)

    async def models(self, headers: Any = None) -> list[dict[str, Any]]:
        return await self.local.models(headers)

    async def aclose(self) -> None:
        await self.local.aclose()


@dataclass
class Taken:
    """Seconds of one answer until its first and its last text, and what became of it."""

    first: float
    last: float
    outcome: str | None = None
    text: str = ""


class Bench:
    """One model, asked through the pipeline."""

    def __init__(self, local: Local, ends: list[int]) -> None:
        self.local = local
        self.pipeline = Pipeline(Endless(local, ends), Settings(confusion_tokens=256))

    async def asked(self, messages: Any, strategy: str, tokens: int) -> Taken:
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        body = {"messages": asked, "max_tokens": tokens, "temperature": 0, "stream": True}
        begun = time.perf_counter()
        run = self.pipeline.run(ChatRequest(body, options=Options(strategy=strategy)))
        first, text = 0.0, ""
        async for chunk in run.stream():
            text += chunk.text
            first = first or (time.perf_counter() - begun if chunk.text else 0.0)
        return Taken(first, time.perf_counter() - begun, run.honesty.outcome, text)

    async def alone(self, messages: Any, strategy: str, tokens: int) -> Taken:
        await self.forget()
        return await self.asked(messages, strategy, tokens)

    async def forget(self) -> None:
        await self.local.inside(lambda model, tokenizer: None)

    async def against_raw(self, question: str, strategy: str, tokens: int) -> tuple[Taken, Taken]:
        raw = await self.alone(question, "raw", tokens)
        return raw, await self.alone(question, strategy, tokens)


async def introspect(bench: Bench, repeat: int) -> list[dict[str, Any]]:
    found = []
    for name, questions, outcome in (
        ("opened", DOUBTFUL, "rewritten"),
        ("untouched", PLAIN, "draft_kept"),
    ):
        pairs = []
        for number in range(repeat):
            raw, read = await bench.against_raw(questions[number % 5], "introspect", 64)
            if read.outcome == outcome:
                pairs.append((raw, read))
        last = statistics.median(read.last / raw.last for raw, read in pairs)
        first = statistics.median(read.first / raw.first for raw, read in pairs)
        found.append(_row(f"introspect, {name}: time to last token against raw, x", last, 1.10))
        found.append(_row(f"introspect, {name}: time to first token against raw, x", first, 1.15))
    return found


async def together(bench: Bench, repeat: int) -> list[dict[str, Any]]:
    ratios = []
    for number in range(repeat):
        one = await bench.alone(PLAIN[number % 5], "raw", 64)
        await bench.forget()
        begun = time.perf_counter()
        questions = [*PLAIN, *DOUBTFUL[:3]]
        await asyncio.gather(*(bench.asked(question, "raw", 64) for question in questions))
        ratios.append(8 * one.last / (time.perf_counter() - begun))
    what = "eight streams at once against one, tokens/s in all, x"
    return [_row(what, statistics.median(ratios), 3.5, least=True)]


async def curiosity(bench: Bench, repeat: int) -> list[dict[str, Any]]:
    pairs = [
        await bench.against_raw(PLAIN[number % 5], "curiosity", 256)
        for number in range(max(1, repeat // 2))
    ]
    assert all(honest.outcome == "rewritten" for _, honest in pairs)
    ratio = statistics.median(honest.last / raw.last for raw, honest in pairs)
    return [_row("curiosity against raw, 256 tokens a call, wall clock, x", ratio, 2.2)]


async def second_turn(bench: Bench, repeat: int) -> list[dict[str, Any]]:
    ratios = []
    for number in range(repeat):
        asked = [{"role": "user", "content": f"{number}. " + LINE * 72 + PLAIN[number % 5]}]
        first = await bench.alone(asked, "raw", 32)
        asked.append({"role": "assistant", "content": first.text})
        asked.append({"role": "user", "content": "And in short?"})
        second = await bench.asked(asked, "raw", 32)
        ratios.append(second.first / first.first)
    what = "second turn of 1,500 tokens: time to first token against the first turn's, x"
    return [_row(what, statistics.median(ratios), 0.25)]


async def reader() -> list[dict[str, Any]]:
    """The first fit, with an empty cache of readers, and a later start."""
    real = Settings().cache
    with tempfile.TemporaryDirectory() as folder:
        for entry in real.iterdir():
            if entry.name != "readers":
                (Path(folder) / entry.name).symlink_to(entry)
        seconds = []
        for _ in range(2):
            local = Local(MODEL, Settings(cache=Path(folder)))
            await local.load()
            begun = time.perf_counter()
            await local.load_reader()
            seconds.append(time.perf_counter() - begun)
            await local.aclose()
    return [
        _row("reader, first fit, s", seconds[0], 60),
        _row("reader, later start, s", seconds[1], 0.5),
    ]


def _row(what: str, value: float, bound: float, *, least: bool = False) -> dict[str, Any]:
    return {"what": what, "value": round(value, 3), "least" if least else "most": bound}


async def measured(repeat: int) -> list[dict[str, Any]]:
    local = Local(MODEL, Settings())
    await local.load()
    await local.load_reader()
    ends = await local.inside(lambda model, tokenizer: [0, *_ends(model, tokenizer)])
    bench = Bench(local, ends)
    await bench.alone(PLAIN[0], "raw", 16)  # warm
    rows = []
    for part in (introspect, together, curiosity, second_turn):
        rows += await part(bench, repeat)
    await local.aclose()
    return rows + await reader()


def _ends(model: Any, tokenizer: Any) -> list[int]:
    said = model.generation_config.eos_token_id
    return [tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = asyncio.run(measured(asked.repeat))
    if asked.json:
        print(json.dumps(rows))
        return
    for row in rows:
        bound = f"at most {row['most']:g}" if "most" in row else f"at least {row['least']:g}"
        print(f"{row['what']:75s} {row['value']:8.3f}   ({bound})")


main()
