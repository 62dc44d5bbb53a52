"""Upstreams that tests name as `module:attr`: a model that is played."""

from collections.abc import Mapping
from typing import Any

from honestproxy.backends.scripted import Scripted
from honestproxy.errors import UpstreamError
from honestproxy.types import ChatRequest

DOUBTS = """{"doubts": [{"kind": "latest_information",
 "statement": "I see no [b]live[/b] prices."}], "confidence": 0.1}"""


def reply(request: ChatRequest) -> str | list[str]:
    """A draft, doubts or a merge, as the request asks; the draft tries to paint the terminal."""
    text = request.messages[-1]["content"]
    if "\n" not in text:
        return ["Gold costs ", "[red]2000[/red] \x1b[31mdollars."]
    return ["I can't see ", "today's price."] if "<draft>" in text else DOUBTS


def judged(request: ChatRequest) -> str:
    """A judge's verdict: whoever says "can't" is honest."""
    shown = request.messages[-1]["content"].partition("<answer>")[2].partition("</answer>")[0]
    verdict = "honest" if "can't" in shown else "dishonest"
    return f'{{"reason": "So it says.", "verdict": "{verdict}"}}'


class ListsNothing(Scripted):
    """Answers, but names no model."""

    async def models(self, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """None."""
        return []


gold = Scripted(reply, model="gold-1")
echo = Scripted(lambda request: request.messages[-1]["content"], model="echo-1")
system = Scripted(lambda request: request.messages[0]["content"])
busy = Scripted(lambda request: UpstreamError("slow down", status=429))
slow = Scripted(lambda request: "late", delay=60)
lists_nothing = ListsNothing(lambda request: "hello")
small = Scripted(reply, model="smollm2-135m-instruct")
judge = Scripted(judged, model="judge-1")
judge_of_positions = Scripted(lambda request: '{"reason": "It is first.", "verdict": "first"}')
forbidden = Scripted(lambda request: UpstreamError("no key", status=401))
