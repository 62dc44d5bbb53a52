"""Runs cases through OpenAI's SDK for Python, 2.x and 3.x alike, and prints what it saw.

The arguments: a file of cases, the base URL, the key, the strategy. See test_sdks.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI
from pydantic import BaseModel

Json = dict[str, Any]


class Joke(BaseModel):
    """What `parse` is asked for."""

    setup: str
    laughs: int


def extra(thing: Any, name: str = "honesty") -> Any:
    """What the SDK kept of a field that it doesn't know."""
    return (thing.model_extra or {}).get(name)


def outcome(thing: Any) -> str | None:
    """The outcome told in an object `honesty`."""
    return (extra(thing) or {}).get("outcome")


def calls(found: Any) -> list[Any]:
    """Calls of tools: names and arguments."""
    return [[c.function.name, json.loads(c.function.arguments)] for c in found or []]


def told(reply: Any) -> Json:
    """What there is in a completion."""
    choice = reply.choices[0]
    return {
        "contents": [choice.message.content for choice in reply.choices],
        "content": choice.message.content,
        "refusal": choice.message.refusal,
        "reasoning": extra(choice.message, "reasoning_content"),
        "calls": calls(choice.message.tool_calls),
        "finish": choice.finish_reason,
        "tokens": [token.token for token in choice.logprobs.content] if choice.logprobs else None,
        "has_usage": reply.usage is not None and reply.usage.total_tokens > 0,
        "honesty": outcome(reply),
    }


def chat(client: OpenAI, ask: Json) -> Json:
    """A whole completion."""
    return told(client.chat.completions.create(**ask))


def again(client: OpenAI, ask: Json) -> Json:
    """A whole completion, asked for once more where the SDK sees fit."""
    return chat(client.with_options(max_retries=1), ask)


def stream(client: OpenAI, ask: Json) -> Json:
    """Chunks, put together by hand; an error among them beside what came before it."""
    seen: Json = {"content": "", "reasoning": "", "refusal": "", "roles": 0, "finishes": []}
    seen |= {"usages": 0, "honesty": None, "choice_honesty": None, "ids": set(), "empty": 0}
    parts: dict[int, list[str]] = {}
    try:
        for chunk in client.chat.completions.create(**ask, stream=True):
            take(seen, parts, chunk)
    except openai.APIError as error:
        seen |= failure(error)
    arguments = [[name, json.loads(text)] for name, text in parts.values()]
    return seen | {"calls": arguments, "ids": len(seen["ids"])}


def take(seen: Json, parts: dict[int, list[str]], chunk: Any) -> None:
    """Note what a chunk says."""
    seen["ids"].add(chunk.id)
    seen["usages"] += chunk.usage is not None
    seen["empty"] += not chunk.choices
    for choice in chunk.choices:
        delta = choice.delta
        seen["content"] += delta.content or ""
        seen["refusal"] += delta.refusal or ""
        seen["reasoning"] += extra(delta, "reasoning_content") or ""
        seen["roles"] += delta.role is not None
        seen["finishes"] += [choice.finish_reason] if choice.finish_reason else []
        seen["choice_honesty"] = outcome(choice) or seen["choice_honesty"]
        for call in delta.tool_calls or []:
            part = parts.setdefault(call.index, ["", ""])
            part[0] += call.function.name or ""
            part[1] += call.function.arguments or ""
    seen["honesty"] = outcome(chunk) or seen["honesty"]


def stream_helper(client: OpenAI, ask: Json) -> Json:
    """The SDK's own putting together of a stream, and what its events show on the way."""
    with client.chat.completions.stream(**ask) as events:
        shown = [outcome(event.chunk) for event in events if event.type == "chunk"]
        final = events.get_final_completion()
    return told(final) | {"choice_honesty": outcome(final.choices[0]), "shown": shown[-1]}


def parse(client: OpenAI, ask: Json) -> Json:
    """A structured answer."""
    reply = client.chat.completions.parse(**ask, response_format=Joke)
    return told(reply) | {"parsed": reply.choices[0].message.parsed.model_dump()}


def respond(client: OpenAI, ask: Json) -> Json:
    """A whole response."""
    return responded(client.responses.create(**ask))


def responded(reply: Any) -> Json:
    """What there is in a response."""
    called = [item for item in reply.output if item.type == "function_call"]
    return {
        "text": reply.output_text,
        "status": reply.status,
        "calls": [[item.name, json.loads(item.arguments)] for item in called],
        "has_usage": reply.usage is not None and reply.usage.total_tokens > 0,
        "honesty": outcome(reply),
    }


def respond_stream(client: OpenAI, ask: Json) -> Json:
    """A response's events: what they add up to, and what the last one says."""
    text, types, numbers, last = "", [], [], None
    try:
        for event in client.responses.create(**ask, stream=True):
            types.append(event.type)
            numbers.append(event.sequence_number)
            text += event.delta if event.type == "response.output_text.delta" else ""
            last = event
    except openai.APIError as error:
        return failure(error) | {"deltas": text}
    ordered = numbers == list(range(len(numbers)))
    ends = {"first": types[0], "last": types[-1], "deltas": text, "ordered": ordered}
    return responded(last.response) | ends


def respond_helper(client: OpenAI, ask: Json) -> Json:
    """The SDK's own putting together of a response's stream."""
    with client.responses.stream(**ask) as events:
        return responded(events.get_final_response())


def respond_parse(client: OpenAI, ask: Json) -> Json:
    """A structured response."""
    reply = client.responses.parse(**ask, text_format=Joke)
    return responded(reply) | {"parsed": reply.output_parsed.model_dump()}


def respond_again(client: OpenAI, ask: Json) -> Json:
    """A response, got once more by its id."""
    made = client.responses.create(**ask)
    return {"same": client.responses.retrieve(made.id).output_text == made.output_text}


def models(client: OpenAI, _: Json) -> Json:
    """The models listed, and one of them got by its name."""
    return {"ids": [m.id for m in client.models.list()], "one": client.models.retrieve("m").id}


def embed(client: OpenAI, ask: Json) -> Json:
    """Embeddings."""
    reply = client.embeddings.create(**ask)
    return {"embeddings": [row.embedding for row in reply.data]}


def leave(client: OpenAI, ask: Json) -> Json:
    """Go in mid-stream."""
    events = client.chat.completions.create(**ask, stream=True)
    first = next(iter(events))
    events.close()
    return {"began": first.object}


def give_up(client: OpenAI, ask: Json) -> Json:
    """Go before a plain answer comes."""
    return chat(client.with_options(timeout=0.5), ask)


def failure(error: openai.APIError) -> Json:
    """An exception, as data."""
    response = getattr(error, "response", None)
    return {
        "error": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": error.code,
        "param": error.param,
        "message": error.message,
        "retry_after": response.headers.get("retry-after") if response is not None else None,
        "request_id": getattr(error, "request_id", None),
    }


def run(client: OpenAI, strategy: str, case: Json) -> Json:
    """One case's result."""
    headers = {"X-Honesty": strategy} if case["header"] else {}
    client = client.with_options(
        api_key=case["key"] or client.api_key,
        default_headers=headers,
        # Embeddings in base64, which the SDK asks for itself, are no list of numbers to it.
        _extra_kwargs={"_strict_response_validation": case["do"] != "embed"},
    )
    try:
        return globals()[case["do"]](client, case["ask"])  # type: ignore[no-any-return]
    except openai.APIError as error:
        return failure(error)


def main(file: str, url: str, key: str, strategy: str) -> None:
    """All cases, printed as one JSON object."""
    cases = json.loads(Path(file).read_text("utf-8"))
    client = OpenAI(base_url=url, api_key=key, max_retries=0)
    results = {case["name"]: run(client, strategy, case) for case in cases}
    json.dump({"version": openai.__version__, "results": results}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
