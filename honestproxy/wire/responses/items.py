"""The input of a Responses request as the messages of a chat, item by item.

https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from honestproxy.errors import InvalidRequest
from honestproxy.types import Message

Item = dict[str, Any]

CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that are calls, and where each holds what it passes on."""
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_PLAIN: Final = frozenset({"type", "text"})
TRANSLATED: Final = frozenset({"message", "reasoning", *CALLS, *_OUTPUTS})
"""Kinds of items that a chat can hold, or do without."""


def kind_of(item: Mapping[str, Any]) -> str:
    """What an item is; messages and references may leave their `type` out."""
    if kind := item.get("type"):
        return str(kind)
    return "message" if "role" in item else "item_reference"


def messages_of(given: Any, instructions: str | None = None) -> list[Message]:
    """The conversation as a chat has it, `instructions` first.

    What has no place in a chat is left out; `unplaced` names it.
    """
    told = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*told, {"role": "user", "content": given}]
    said: list[Message] = []
    for item in given or []:
        _take(said, item)
    return [*told, *said] or [{"role": "user", "content": ""}]


def unplaced(given: Any) -> Iterator[tuple[str, str, str]]:
    """What a chat has no place for: where it is, what it is, and what to send instead."""
    for at, item in enumerate(given if isinstance(given, list) else []):
        kind, where = kind_of(item), f"input[{at}]"
        if kind == "item_reference":
            yield where, "a reference to a stored item", "send the item itself"
        elif kind not in TRANSLATED:
            yield where, f"an item of the type {kind!r}", "leave it out"
        else:
            name = "output" if kind in _OUTPUTS else "content"
            yield from _unplaced_parts(item.get(name), f"{where}.{name}")


def check(given: Any) -> None:
    """Raise InvalidRequest, naming the place, where the input can't be understood."""
    if isinstance(given, str):
        return
    for at, item in enumerate(given):
        where = f"input[{at}]"
        _must(isinstance(item, dict), where, "an object")
        kind = item.get("type")
        _must(kind is None or isinstance(kind, str), f"{where}.type", "a string")
        _must("role" in item or "id" in item or kind, where, "an item with a 'type' or a 'role'")
        for name, (accepted, wanted) in _REQUIRED.get(kind_of(item), {}).items():
            _must(accepted(item.get(name)), f"{where}.{name}", wanted)


def _must(good: Any, where: str, wanted: str) -> None:
    if not good:
        raise InvalidRequest(f"'{where}' must be {wanted}", param=where)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_content(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, dict) and _is_sound(part) for part in value)
    return isinstance(value, str)


def _is_sound(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    if kind in _TEXTS:
        return isinstance(part.get("text"), str)
    return isinstance(kind, str)


_Rule = tuple[Callable[[Any], bool], str]
_TEXT: Final[_Rule] = (_is_text, "a string")
_CONTENT: Final[_Rule] = (_is_content, "a string or a list of parts, each with its 'type'")
_ROLES: Final = ("user", "assistant", "system", "developer")
_ROLE: Final[_Rule] = (lambda value: value in _ROLES, "one of " + ", ".join(_ROLES))
_REQUIRED: Final[Mapping[str, Mapping[str, _Rule]]] = {
    "message": {"role": _ROLE, "content": _CONTENT},
    "item_reference": {"id": _TEXT},
    **{kind: {"call_id": _TEXT, "name": _TEXT, said: _TEXT} for kind, said in CALLS.items()},
    **{kind: {"call_id": _TEXT, "output": _CONTENT} for kind in _OUTPUTS},
}


def _take(said: list[Message], item: Item) -> None:
    kind = kind_of(item)
    if kind == "message":
        said.append(_message(item))
    elif kind in CALLS:
        # One answer of a model is one message of a chat: its text and all its calls.
        if not said or said[-1]["role"] != "assistant":
            said.append({"role": "assistant", "content": None})
        said[-1].setdefault("tool_calls", []).append(_call(item, kind))
    elif kind in _OUTPUTS:
        content = _content(item["output"])
        said.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _message(item: Item) -> Message:
    role, content = item["role"], item["content"]
    if role != "assistant" or isinstance(content, str):
        return {"role": role, "content": _content(content)}
    texts = [part["text"] for part in content if part["type"] in _TEXTS]
    refusals = [str(part.get("refusal")) for part in content if part["type"] == "refusal"]
    if not refusals:
        return {"role": role, "content": "".join(texts)}
    return {"role": role, "content": "".join(texts) or None, "refusal": "".join(refusals)}


def _call(item: Item, kind: str) -> dict[str, Any]:
    tool, said = kind.partition("_")[0], CALLS[kind]
    made = {"name": item["name"], said: item[said]}
    return {"id": item["call_id"], "type": tool, tool: made}


def _content(content: str | list[Item]) -> str | list[Item]:
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] in _TEXTS and content[0].keys() <= _PLAIN:
        return str(content[0]["text"])  # every server understands a string
    return [_part(part) for part in content]


def _part(part: Item) -> Item:
    made = _PARTS.get(part["type"])
    if made is None:
        return part
    mark = part.get("prompt_cache_breakpoint")
    return made(part) | ({"prompt_cache_breakpoint": mark} if mark else {})


def _text_part(part: Item) -> Item:
    return {"type": "text", "text": part["text"]}


def _image_part(part: Item) -> Item:
    image = {"url": part.get("image_url"), "detail": part.get("detail")}
    if image["detail"] == "original":  # a chat's finest
        image["detail"] = "high"
    return {"type": "image_url", "image_url": {n: v for n, v in image.items() if v is not None}}


def _file_part(part: Item) -> Item:
    file = {name: part.get(name) for name in ("file_id", "file_data", "filename")}
    return {"type": "file", "file": {n: v for n, v in file.items() if v is not None}}


def _audio_part(part: Item) -> Item:
    return {"type": "input_audio", "input_audio": part.get("input_audio")}


_PARTS: Final[Mapping[str, Callable[[Item], Item]]] = {
    **dict.fromkeys(_TEXTS, _text_part),
    "input_image": _image_part,
    "input_file": _file_part,
    "input_audio": _audio_part,
}
_CHAT_PARTS: Final = frozenset({*_PARTS, "refusal", "image_url", "file"})


def _unplaced_parts(content: Any, where: str) -> Iterator[tuple[str, str, str]]:
    for at, part in enumerate(content if isinstance(content, list) else []):
        kind = part["type"]
        if kind not in _CHAT_PARTS:
            yield f"{where}[{at}]", f"a part of the type {kind!r}", "leave it out"
        elif kind == "input_image" and not part.get("image_url"):
            yield f"{where}[{at}]", "an image by 'file_id'", "send its 'image_url', or a data: URL"
        elif kind == "input_file" and part.get("file_url"):
            yield f"{where}[{at}]", "a file by 'file_url'", "send its 'file_data'"
