"""One turn under way: its answer, or its `n` answers, on their way to the client."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from honestproxy.call import Call
from honestproxy.settings import Settings
from honestproxy.several import Shared, combined, gathered, joined, together
from honestproxy.trace import Honesty
from honestproxy.types import ChatResponse, Chunk, Usage
from honestproxy.weighing import Weighing


class Run:
    """One turn under way: what its answers are, and what was done to them.

    `answers` is one in the making, or one for each choice that the client asked for.
    """

    verbatim = False

    def __init__(
        self, answers: Sequence[Weighing], settings: Settings, shared: Shared | None = None
    ) -> None:
        one = answers[0].honesty
        self.honesty = one if shared is None else Honesty(one.trace)
        self.headers: Mapping[str, str] = {}
        self._answers = answers
        self._settings = settings
        self._shared = shared
        self._turn = answers[0].turn

    async def complete(self) -> ChatResponse:
        """The answer, whole."""
        try:
            responses = await self._whole()
            await self._settle()
            usage = self._usage(responses)
            if self._shared is None:
                return responses[0].replace(**usage, **self._body(self.honesty))
            told = [self._body(answer.honesty) for answer in self._answers]
            return joined(responses, told).replace(**usage, **self._body(self.honesty))
        finally:
            self._close()

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made."""
        try:
            async with aclosing(self._sealed()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._close()

    async def accepted(self) -> None:
        """Return once a streamed turn's first call can no longer fail with a status."""
        await self._turn.accepted.wait()
        self.headers = next(self._calls()).headers

    async def _whole(self) -> list[ChatResponse]:
        """Each answer's response; what the upstream gave no choice for is left out."""
        if self._shared is None:
            return [await self._answers[0].whole()]
        made = await gathered([answer.whole() for answer in self._answers])
        self._answers = [a for a, r in zip(self._answers, made, strict=True) if r is not None]
        return [response for response in made if response is not None]

    async def _sealed(self) -> AsyncGenerator[Chunk, None]:
        """The chunks, with `honesty` on the finishing ones and the usage of the whole turn.

        Those are held until the upstream ends: only then is it known what the turn cost. What
        an upstream counts as it goes is of one call, and goes no further.
        """
        held: list[Chunk] = []
        counted: dict[Any, Chunk] = {}
        async with aclosing(self._live()) as chunks:
            async for chunk in chunks:
                if usage := chunk.usage:
                    counted[chunk.get("id")] = chunk
                if chunk.finished or (usage and not chunk.choices):
                    going_on = [c for c in chunk.choices if not c.get("finish_reason")]
                    if going_on:  # the news of other choices isn't held up
                        yield chunk.replace({"usage"}, choices=going_on)
                        ended = [c for c in chunk.choices if c.get("finish_reason")]
                        chunk = chunk.replace(choices=ended)
                    held.append(chunk)
                elif not chunk.blank:
                    yield chunk.replace({"usage"}) if usage else chunk
        await self._settle()
        for chunk in self._with_usage(held, list(counted.values())):
            yield self._label(chunk)

    async def _live(self) -> AsyncGenerator[Chunk, None]:
        streams = [answer.live() for answer in self._answers]
        if self._shared is None:
            async with aclosing(streams[0]) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        async with aclosing(together(streams)) as numbered:
            async for number, chunk in numbered:
                yield chunk.replace(choices=[{**c, "index": number} for c in chunk.choices])

    def _with_usage(self, held: list[Chunk], reports: list[Chunk]) -> list[Chunk]:
        """Exactly one usage chunk where the client asked for one, none where it didn't."""
        asked = self._turn.request.get("stream_options") or {}
        ends = [chunk.replace({"usage"}) for chunk in held if chunk.choices]
        if not ends or not asked.get("include_usage"):
            return ends
        total = self._usage(reports)
        return [*ends, ends[-1].replace(choices=[], **total)] if total else ends

    async def _settle(self) -> None:
        """Give elicitations a moment to report what they cost, then say what was found."""
        until = max(answer.patient_until for answer in self._answers)
        for call in self._calls():
            if not call.done:
                await call.wait(max(0.0, until - time.perf_counter()))
                call.cancel()
        for answer in self._answers:
            answer.honesty.doubts = answer.turn.findings()
        self.honesty.trace.ended = time.perf_counter()
        if self._shared is not None:
            self.honesty = combined([answer.honesty for answer in self._answers])

    def _calls(self) -> Iterator[Call]:
        if self._shared is not None:
            yield from self._shared.calls
        for answer in self._answers:
            yield from answer.turn.calls

    def _close(self) -> None:
        for answer in self._answers:
            answer.let_go()
        for call in self._shared.calls if self._shared else ():
            call.close()

    def _label(self, chunk: Chunk) -> Chunk:
        if not chunk.finished or self._settings.reply != "body":
            return chunk
        one = self._shared is None
        told = [self._body(self.honesty if one else a.honesty) for a in self._answers]
        choices = [
            {**choice.fields, **told[0 if one else choice.get("index")]}
            for choice in chunk.objects("choices")
        ]
        return chunk.replace(**self._body(self.honesty), choices=choices)

    def _usage(self, reports: Sequence[ChatResponse] | Sequence[Chunk]) -> dict[str, Any]:
        """The usage of the whole turn, or of what is returned: each answer of an upstream once."""
        total = self._turn.trace.usage
        if self._settings.usage == "answer":
            own = {report.get("id"): report.usage for report in reports if report.usage}
            total = sum(own.values(), Usage())
        return {"usage": total} if total else {}

    def _body(self, honesty: Honesty) -> dict[str, Any]:
        return {"honesty": honesty.body()} if self._settings.reply == "body" else {}
