"""Whatever JSON a client sends, nothing of it is lost or changed on the way; nor of the reply.

The texts are drawn, not the values: how a number or an escape is written matters here.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from honestproxy.strategies import STRATEGIES
from tests.proxy import NO_DOUBT, Proxy, ask, proxy, step_of
from tests.upstreams import Reply, Seen, answer, completion, event, events

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOWN = {
    *("model", "messages", "honesty", "choices", "error", "usage"),
    *("stream", "stream_options", "n", "tools", "functions", "tool_choice", "function_call"),
    *("response_format", "audio", "modalities", "prediction", "logit_bias", "max_tokens"),
    *("max_completion_tokens", "structured_outputs", "grammar", "json_schema"),
}
"""Names that mean something to the proxy, in a request or a reply."""


class Number(str):
    """A number as it is written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object's names and values, twins and all."""

    __slots__ = ()


def exact(text: bytes) -> Any:
    """JSON parsed without loss."""
    decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, object_pairs_hook=Pairs)
    return decoder.decode(text.decode())


class Writer:
    """Writes JSON in one of the many ways there are, with blanks and escapes here and there."""

    def __init__(self, seed: int, blanks: str = " \t\r\n") -> None:
        self._random = random.Random(seed)
        self._blanks = ["", "", *blanks]

    def write(self, value: Any) -> str:
        """The value as text."""
        if isinstance(value, Number):
            return str(value)
        if isinstance(value, str):
            return f'"{"".join(map(self._character, value))}"'
        if isinstance(value, Pairs):
            return self._joined(
                "{}", [f"{self.write(n)}{self.gap()}:{self.gap()}{self.write(v)}" for n, v in value]
            )
        if isinstance(value, list):
            return self._joined("[]", [self.write(item) for item in value])
        return json.dumps(value)

    def gap(self) -> str:
        """Some blanks, or none."""
        return self._random.choice(self._blanks)

    def _joined(self, ends: str, items: list[str]) -> str:
        inner = ",".join(f"{self.gap()}{item}{self.gap()}" for item in items)
        return f"{ends[0]}{self.gap()}{inner}{ends[1]}"

    def _character(self, character: str) -> str:
        is_lone = 0xD800 <= ord(character) < 0xE000
        if is_lone or self._random.random() < 0.2:
            return (
                json.dumps(character)[1:-1] if ord(character) > 0x7E else f"\\u{ord(character):04X}"
            )
        return r"\/" if character == "/" else json.dumps(character, ensure_ascii=False)[1:-1]


STRANGE = 'ab1 {}[],:"/\\\n\r\t\0\x1f\x7f\u00e9\u2028\ufeff\U0001f600\ud800\udfff'
names = st.text(STRANGE, max_size=6) | st.text(max_size=6)
odd = st.sampled_from(["1.0", "-0", "-0.0", "1e400", "-1E-400", "1e2", "0.10", "9" * 30, "1E+2"])
huge = st.integers(1, 4000).map(lambda digits: "7" * digits)
floats = st.floats(allow_nan=False, allow_infinity=False).map(repr)
numbers = (odd | huge | floats | st.integers().map(str)).map(Number)
scalars = st.none() | st.booleans() | numbers | names


def nested(depth: int) -> Any:
    """A list within a list, and so on."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


values = st.recursive(
    scalars | st.integers(1, 300).map(nested),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(Pairs)
    ),
    max_leaves=8,
)
unknown = st.lists(st.tuples(names, values), max_size=4).map(
    lambda pairs: [(n, v) for n, v in pairs if n not in KNOWN and not n.startswith("guided_")]
)


@st.composite
def objects(draw: st.DrawFn, blanks: str = " \t\r\n", **known: st.SearchStrategy[Any]) -> bytes:
    """An object with known fields and unknown ones, twins among them, in any order."""
    fields = [*((name, draw(values)) for name, values in known.items()), *draw(unknown)]
    writer = Writer(draw(st.integers(0, 2**16)), blanks)
    text = writer.write(Pairs(draw(st.permutations(fields))))
    return f"{writer.gap()}{text}{writer.gap()}".encode()


contents = st.text(STRANGE, min_size=1, max_size=9) | st.text(min_size=1, max_size=20)
messages = st.tuples(contents, values).map(
    lambda drawn: Pairs([("role", "user"), ("content", drawn[0]), ("odd", drawn[1])])
)
answers = st.tuples(contents, values).map(
    lambda drawn: Pairs([("role", "assistant"), ("content", drawn[0]), ("odd", drawn[1])])
)
choices = st.tuples(answers, values).map(
    lambda drawn: [Pairs([("message", drawn[0]), ("finish_reason", "stop"), ("odd", drawn[1])])]
)
conversations = st.lists(messages, min_size=1, max_size=3)
requests = objects(model=st.just("m"), messages=conversations)
chosen = st.just(Pairs([("strategy", "raw")]))
choosing = objects(model=st.just("m@raw"), messages=conversations) | objects(
    model=st.just("m"), messages=conversations, honesty=chosen
)
replies = objects(choices=choices)


def pieces(delta: st.SearchStrategy[Any], finish_reason: str | None) -> st.SearchStrategy[bytes]:
    """A chunk of a stream, on one line."""
    inner = st.tuples(delta, values).map(
        lambda drawn: [
            Pairs([("delta", drawn[0]), ("finish_reason", finish_reason), ("odd", drawn[1])])
        ]
    )
    return objects(" \t", choices=inner)


deltas = st.tuples(contents, values).map(
    lambda drawn: Pairs([("content", drawn[0]), ("odd", drawn[1])])
)
streams = st.tuples(
    st.lists(pieces(deltas, None), min_size=1, max_size=3), pieces(st.just(Pairs()), "stop")
).map(lambda drawn: [*drawn[0], drawn[1]])


@dataclass
class Echo:
    """An upstream that gives one reply to whatever it is asked; where asked for doubts, none."""

    reply: Reply = field(default_factory=Reply)

    def __call__(self, seen: Seen) -> Reply:
        if seen.path.endswith("/models"):
            return answer({"object": "list", "data": []})
        is_confusion = b"o not answer the last message" in seen.body
        return answer(completion(NO_DOUBT)) if is_confusion else self.reply


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on() -> AsyncIterator[tuple[Proxy, Echo]]:
    """One proxy for all examples; raw where nothing else is chosen."""
    echo = Echo()
    async with proxy(echo, strategy="raw") as running:
        yield running, echo


async def exchanged(
    on: tuple[Proxy, Echo], body: bytes, reply: bytes | Reply, **headers: str
) -> tuple[int, bytes, list[bytes]]:
    """Status and body of the answer, and the bodies that reached the upstream."""
    running, echo = on
    echo.reply = answer(reply) if isinstance(reply, bytes) else reply
    del running.upstream.seen[:]
    sent = {"Content-Type": "application/json", **headers}
    url = f"{running.url}/chat/completions"
    async with running.session.post(url, data=body, headers=sent) as got:
        answered = await got.read()
    return got.status, answered, [seen.body for seen in running.upstream.seen if seen.body]


def has_twins(body: bytes) -> bool:
    """Whether a top-level name comes twice."""
    names = [name for name, _ in exact(body)]
    return len({*names}) < len(names)


@settings(max_examples=150)
@given(body=requests, reply=replies, by=st.sampled_from(["header", "default"]))
async def test_raw_passes_any_request_and_any_good_reply_byte_for_byte(
    on: tuple[Proxy, Echo], body: bytes, reply: bytes, by: str
) -> None:
    headers = {"X-Honesty": "raw"} if by == "header" else {}
    status, answered, sent = await exchanged(on, body, reply, **headers)
    assert (status, sent) == (200, [body])
    assert answered == reply


@settings(max_examples=150)
@given(body=choosing, reply=replies)
async def test_raw_chosen_in_the_body_changes_nothing_but_what_chooses_it(
    on: tuple[Proxy, Echo], body: bytes, reply: bytes
) -> None:
    status, answered, sent = await exchanged(on, body, reply)
    if has_twins(body) and status == 400:
        return
    assert (status, answered) == (200, reply)
    expected = dict(exact(body)) | {"model": "m"}
    expected.pop("honesty", None)
    assert [dict(exact(one)) for one in sent] == [expected]


@settings(max_examples=150)
@given(body=requests, reply=replies)
async def test_a_kept_drafts_request_and_reply_lose_nothing(
    on: tuple[Proxy, Echo], body: bytes, reply: bytes
) -> None:
    status, answered, sent = await exchanged(on, body, reply, **{"X-Honesty": "gated"})
    if has_twins(body) and status == 400:
        return
    assert status == 200
    drafts = [one for one in sent if step_of(json.loads(one)) == "draft"]
    assert [dict(exact(one)) for one in drafts] == [dict(exact(body))]
    told = dict(exact(answered))
    assert told.pop("honesty")
    assert {name: told[name] for name in dict(exact(reply))} == dict(exact(reply))


@settings(max_examples=100)
@given(chunks=streams, end=st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n: a comment\n\n"]))
async def test_raw_streams_any_chunks_byte_for_byte(
    on: tuple[Proxy, Echo], chunks: list[bytes], end: bytes
) -> None:
    reply = events(*(event(chunk, end) for chunk in chunks))
    body = json.dumps(ask(stream=True)).encode()
    status, answered, sent = await exchanged(on, body, reply)
    assert (status, sent) == (200, [body])
    assert answered == b"".join(map(bytes, reply.pieces))


@settings(max_examples=100)
@given(chunks=streams)
async def test_a_kept_drafts_chunks_lose_nothing(
    on: tuple[Proxy, Echo], chunks: list[bytes]
) -> None:
    body = json.dumps(ask(stream=True)).encode()
    reply = events(*map(event, chunks))
    _, answered, _ = await exchanged(on, body, reply, **{"X-Honesty": "gated"})
    found = [line[6:] for line in answered.split(b"\n") if line.startswith(b"data: ")]
    assert found.pop() == b"[DONE]"
    assert [unlabelled(chunk) for chunk in found] == [dict(exact(chunk)) for chunk in chunks]


def unlabelled(chunk: bytes) -> dict[str, Any]:
    """A chunk without `honesty`."""
    told = dict(exact(chunk))
    told.pop("honesty", None)
    rest = [Pairs(p for p in choice if p[0] != "honesty") for choice in told["choices"]]
    return {**told, "choices": rest}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "value",
    ["[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "8" * 5000],
    ids=["deep list", "deep object", "5,000 digits"],
)
@pytest.mark.parametrize("where", ["top", "message"])
async def test_what_no_parser_takes_is_passed_on_or_refused_as_openai_would(
    on: tuple[Proxy, Echo], strategy: str, value: str, where: str
) -> None:
    top, inner = (f',"x":{value}', "") if where == "top" else ("", f',"x":{value}')
    body = f'{{"model":"m","messages":[{{"role":"user","content":"?"{inner}}}]{top}}}'.encode()
    reply = json.dumps(completion()).encode()
    status, answered, sent = await exchanged(on, body, reply, **{"X-Honesty": strategy})
    if status == 200:
        assert value.encode() in sent[0]
    else:
        assert status == 400
        assert json.loads(answered)["error"]["type"] == "invalid_request_error"
