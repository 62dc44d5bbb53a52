"""Conversations into tokens, by the model's own chat template."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from honestproxy.backends.local import quote
from honestproxy.backends.local.quote import Opening
from honestproxy.errors import InvalidRequest
from honestproxy.types import ChatRequest, Message


def prompt(
    tokenizer: Any, request: ChatRequest, context: int, begun: str | None = None
) -> list[int]:
    """The tokens that the model is to continue; `begun` stands for the last message's text.

    A last message of the assistant is an answer begun, which the model goes on with. What
    looks like one of the model's control tokens inside a message stays text. Raises
    InvalidRequest where a message can't be read, the template refuses, or it is too long.
    """
    seam = secrets.token_hex(16)
    text = _render(tokenizer, _conversed(request, begun), request, _Disarm(tokenizer, seam))
    if not _sound(text):
        said = "a message holds half a character (a lone surrogate, such as \\ud800): leave it out"
        raise InvalidRequest(said, param="messages")
    ids = _pieces(tokenizer, text.split(seam))
    if len(ids) >= context:
        raise InvalidRequest(
            f"This model's maximum context length is {context} tokens. However, your messages "
            f"resulted in {len(ids)} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    return ids


def _sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def begun(tokenizer: Any, request: ChatRequest) -> Opening | None:
    """What the answer begins with under `echo`: the last message, if the assistant's.

    Where one of its parts is a `quote`, the model fills in words of that part's text.
    """
    last = _conversation(request)[-1]
    if request.get("echo") is not True or not isinstance(last, dict):
        return None
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    content = last.get("content")
    if not isinstance(content, list) or not any(map(_quotes, content)):
        return Opening(_text(content, "messages[-1]"))
    question = next(part["text"] for part in content if _quotes(part))
    parts = [None if _quotes(part) else _part(part, "messages[-1]") for part in content]
    return quote.opening(tokenizer, parts, question, _control(tokenizer))


def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text that may spell the model's control tokens, which stay text."""
    seam = secrets.token_hex(16)
    return _pieces(tokenizer, _Disarm(tokenizer, seam)(text).split(seam))


def _pieces(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Control tokens have been cut in two, and the halves are read on their own."""
    every = (tokenizer.encode(text, add_special_tokens=False, verbose=False) for text in texts)
    return [token for ids in every for token in ids]


def _quotes(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "quote" and isinstance(part.get("text"), str)
    )


class _Disarm:
    """Puts a seam inside each control token that a text spells out."""

    def __init__(self, tokenizer: Any, seam: str) -> None:
        self._seam = seam
        self._control = _control(tokenizer)

    def __call__(self, text: str) -> str:
        if self._control is None:
            return text
        return self._control.sub(lambda found: found[0][0] + self._seam + found[0][1:], text)

    def all(self, value: Any) -> Any:
        """A copy of JSON in which every text has its seams: templates show calls and tools, too."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self.all(name): self.all(of) for name, of in value.items()}
        return [self.all(each) for each in value] if isinstance(value, list) else value


def _control(tokenizer: Any) -> re.Pattern[str] | None:
    """What spells one of the model's control tokens."""
    added = tokenizer.added_tokens_decoder.values()
    spelled = [token.content for token in added if token.special and len(token.content) > 1]
    return re.compile("|".join(map(re.escape, spelled))) if spelled else None


def _conversed(request: ChatRequest, begun: str | None) -> Sequence[Any]:
    messages = _conversation(request)
    return messages if begun is None else [*messages[:-1], {**messages[-1], "content": begun}]


def _render(
    tokenizer: Any, conversation: Sequence[Any], request: ChatRequest, disarm: _Disarm
) -> str:
    """The text that the model is to continue."""
    knows_developer = "developer" in str(tokenizer.chat_template)
    messages = disarm.all([_plain(m, i, knows_developer) for i, m in enumerate(conversation)])
    begun = ""
    if messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
        begun = messages.pop()["content"]
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tools=disarm.all(request.get("tools") or None),
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # noqa: BLE001 -- a template can raise anything: it is a program
        said = f"the model's chat template refuses this conversation: {error}"
        raise InvalidRequest(said, param="messages", code="chat_template_refused") from None
    return text + begun


def _conversation(request: ChatRequest) -> Sequence[Any]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list of at least one message", param="messages")
    return messages


def _plain(message: Any, index: int, knows_developer: bool) -> Message:
    """A message as templates expect it: text in one string, arguments of tools parsed."""
    where = f"messages[{index}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{where} must be an object with a 'role'", param=where)
    role = message["role"]
    if role == "developer" and not knows_developer:
        role = "system"
    plain = {**message, "role": role, "content": _text(message.get("content"), where)}
    if calls := message.get("tool_calls"):
        plain["tool_calls"] = [_with_arguments(call) for call in calls]
    return plain


def _text(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        said = f"{where}.content must be a string or a list of parts"
        raise InvalidRequest(said, param=f"{where}.content")
    return "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("refusal" if kind == "refusal" else "text") if kind else None
    if kind in ("text", "refusal") and isinstance(text, str):
        return text
    said = f"{where}: this local model reads text only, not {kind or type(part).__name__}"
    raise InvalidRequest(said, param=where, code="unsupported_content")


def _with_arguments(call: Any) -> Any:
    """A tool call whose arguments are an object, as templates want them, where they parse."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call
