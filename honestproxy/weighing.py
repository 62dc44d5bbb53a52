"""Which answer stands: the draft, the last step or a fallback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from honestproxy.call import Call, usable
from honestproxy.errors import HonestProxyError, StepFailed
from honestproxy.settings import Settings
from honestproxy.several import give_up
from honestproxy.trace import Honesty
from honestproxy.turn import Answer, Finish, Keep, Strategy, Turn, View
from honestproxy.types import ChatResponse, Chunk, Outcome


class Weighing:
    """One answer in the making: a strategy at work on its turn, and what stands in the end.

    `rule` names why the request is not to be rewritten, where that is so.
    """

    def __init__(
        self, turn: Turn, strategy: Strategy, settings: Settings, rule: str | None
    ) -> None:
        self.turn = turn
        self.honesty = Honesty(turn.trace)
        self._strategy = strategy
        self._rule = rule
        self._decided_at = turn.trace.started
        self._standing: Call | None = None
        self._on_failure = turn.options.on_failure or settings.on_failure

    @property
    def patient_until(self) -> float:
        """Until when an elicitation may still report what it found and cost."""
        return self._decided_at + self.turn.patience

    async def whole(self) -> ChatResponse:
        """The answer, whole."""
        return await self._whole(await self._weigh())

    async def live(self) -> AsyncGenerator[Chunk, None]:
        """The answer as it is made."""
        async with aclosing(self._live(await self._weigh())) as chunks:
            async for chunk in chunks:
                yield chunk

    def let_go(self) -> None:
        """End every call; what came of one that isn't the answer needn't be stored any longer."""
        for call in self.turn.calls:
            call.close()
            response = call.step.response
            if call is not self._standing and response and give_up(self.turn, call):
                self.turn.backend.discard(call.step.request, response)

    def _stands(self, call: Call) -> Call:
        self._standing = call
        return call

    async def _weigh(self) -> Answer:
        """The strategy's answer; the draft where it is untouchable or a later step failed."""
        strategy = asyncio.create_task(self._strategy(self.turn), name="strategy")
        kept = self.turn.kept
        either: list[asyncio.Future[Any]] = [strategy, kept]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if kept.done() and not self._rule:
                return self._untouched(kept.result())
            return self._decided(await strategy)
        except HonestProxyError as error:
            return self._fallen_back(error)
        finally:
            strategy.cancel()

    def _decided(self, answer: Answer) -> Answer:
        if self._rule:
            self._decide("passed_through", self._rule)
        elif isinstance(answer, Keep):
            self._decide("draft_kept", answer.reason)
        return answer

    def _untouched(self, keep: Keep) -> Keep:
        self._decide("draft_kept", keep.reason)
        for call in self.turn.calls:
            if call is not keep.call:
                call.cancel()
        return keep

    def _fallen_back(self, error: HonestProxyError) -> Keep:
        """The draft, where there is one that hasn't failed itself."""
        draft = self.turn.draft
        if draft is None or draft.failed or self._on_failure == "error":
            raise error
        self._decide("draft_fallback", error.at_rest().message)
        return Keep(draft, error.message)

    def _decide(self, outcome: Outcome, reason: str) -> None:
        self.honesty.outcome, self.honesty.reason = outcome, reason
        self._decided_at = time.perf_counter()

    async def _whole(self, answer: Answer) -> ChatResponse:
        if isinstance(answer, Keep):
            return await self._stands(answer.call)
        try:
            call = self._stands(answer.start())
            response = usable(await call, call.step.name)
            response = _seen(response, answer.view) if answer.view else response
        except HonestProxyError as error:
            return await self._stands(self._spare(answer, error).call)
        self._decide("rewritten", answer.reason)
        return response

    def _spare(self, answer: Finish, error: HonestProxyError) -> Keep:
        self._standing = None
        # Without a draft yet, one more call would only be refused in the same way.
        is_refused = self.turn.draft is None and 400 <= error.status < 500
        if self._on_failure == "error" or is_refused:
            raise error
        self.turn.draft = answer.fallback()
        return self._fallen_back(error)

    async def _live(self, answer: Answer) -> AsyncGenerator[Chunk, None]:
        """The answer's own chunks; the fallback's, where the last step fails before its text."""
        opened = False
        if isinstance(answer, Finish):
            lead = _Lead()
            try:
                async for chunk in _shown(self._stands(answer.start()), answer.view):
                    for ready in lead.released(chunk):
                        opened = True
                        yield ready
                self._decide("rewritten", answer.reason)
                return
            except HonestProxyError as error:
                if lead.committed:
                    raise
                answer = self._spare(answer, error)
        async for chunk in self._stands(answer.call):
            yield _without_role(chunk) if opened else chunk


class _Lead:
    """Holds back an answer's first chunks until they say something.

    So a step that fails before its text leaves nothing behind, and the fallback's role delta
    stays the only one. Reasoning goes out as it comes: a fallback may still follow it.
    """

    def __init__(self) -> None:
        self.committed = False
        self._held: list[Chunk] = []

    def released(self, chunk: Chunk) -> list[Chunk]:
        """What may go out now. Raises StepFailed where the answer ends without a text."""
        self._held.append(chunk)
        self.committed = self.committed or bool(chunk.text)
        # By value: some upstreams write each name, null or empty, in every delta.
        said = {name for name, value in chunk.delta.items() if value}
        if not self.committed and (chunk.finished or said & {"tool_calls", "function_call"}):
            raise StepFailed("the last step came back without a text")
        if not self.committed and not said - {"role", "content", "refusal"}:
            return []
        released, self._held = self._held, []
        return released


async def _shown(call: Call, view: View | None) -> AsyncGenerator[Chunk, None]:
    """The call's chunks, with only that of their text which is for the client."""
    async for chunk in call:
        if view is None or not chunk.choices:
            yield chunk
            continue
        text = view.feed(chunk.text) + (view.close() if chunk.finished else "")
        if text or chunk.finished or not chunk.text:
            yield _with_text(chunk, text)


def _with_text(chunk: Chunk, text: str) -> Chunk:
    choice = chunk.choices[0]
    delta = {name: value for name, value in chunk.delta.items() if name != "content"}
    shown = {"content": text} if text else {}
    return chunk.replace(choices=[{**choice, "delta": delta | shown}])


def _without_role(chunk: Chunk) -> Chunk:
    if "role" not in chunk.delta:
        return chunk
    delta = {name: value for name, value in chunk.delta.items() if name != "role"}
    return chunk.replace(choices=[{**chunk.choices[0], "delta": delta}])


def _seen(response: ChatResponse, view: View) -> ChatResponse:
    """The whole response, with only that of its text which is for the client."""
    text = view.feed(response.text) + view.close()
    message = {**response.message, "content": text}
    return response.replace(choices=[{**response.choice, "message": message}])
