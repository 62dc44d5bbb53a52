"""JSON that is read no further than someone asks.

What nobody changed is written as it came: each top-level value stays as bytes until it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder, encode
from msgspec.json import decode as _decode

_fields_of = Decoder(dict[str, Raw]).decode
_items_of = Decoder(list[Raw]).decode


def read(raw: bytes | Raw) -> Any:
    """Parse JSON; the slow way where JSON allows what msgspec refuses, such as 1e400."""
    try:
        return _decode(raw)
    except (DecodeError, ValidationError):
        return json.loads(bytes(raw), parse_int=_number)


def write(value: Any) -> bytes:
    """Write JSON; `Raw` parts go out as they came."""
    try:
        return encode(value)
    except (UnicodeEncodeError, ValueError):  # lone surrogates: valid in JSON, not in UTF-8
        return _spelled(value).encode()


def _spelled(value: Any) -> str:
    """JSON in ASCII, but for what came as JSON: that stays as it came."""
    if isinstance(value, Raw):
        return bytes(value).decode()
    if isinstance(value, Mapping):
        items = (f"{json.dumps(name)}:{_spelled(item)}" for name, item in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_spelled, value)) + "]"
    return json.dumps(value)


def _number(digits: str) -> int | float:
    # Python refuses to read integers of more digits than that, which JSON allows.
    return int(digits) if len(digits) <= 4300 else float(digits)


def _thawed(value: Any) -> Any:
    if isinstance(value, Raw):
        return read(value)
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_thawed(item) for item in value]
    return value


def split_object(raw: bytes | Raw) -> dict[str, Raw]:
    """The top-level values of a JSON object, each as the bytes it came in.

    Raises ValueError where it isn't an object, or isn't JSON.
    """
    try:
        return _fields_of(raw)
    except (DecodeError, ValidationError):
        return dict(_slices(bytes(raw).decode("utf-8"), dict))


def split_list(raw: bytes | Raw) -> list[Raw]:
    """The items of a JSON list, each as the bytes it came in. Raises ValueError alike."""
    try:
        return _items_of(raw)
    except (DecodeError, ValidationError):
        return [item for _, item in _slices(bytes(raw).decode("utf-8"), list)]


def _slices(text: str, kind: type) -> Iterator[tuple[str, Raw]]:
    """What an object or a list holds, by name; a list's items have none."""
    if not isinstance(json.loads(text, parse_int=_number), kind):
        raise ValueError(f"expected a JSON {'object' if kind is dict else 'list'}")
    scan, blank = json.JSONDecoder(parse_int=_number).raw_decode, " \t\r\n"

    def skip(at: int, over: str) -> int:
        while text[at] in over:
            at += 1
        return at

    name, at = "", skip(skip(0, blank) + 1, blank)
    while text[at] not in "}]":
        if kind is dict:
            name, at = scan(text, at)
            at = skip(at, blank + ":")
        start = at
        _, at = scan(text, start)
        yield name, Raw(text[start:at].encode())
        at = skip(at, blank + ",")


class Document:
    """A JSON object: made from bytes or from fields, each form built when first asked for."""

    __slots__ = ("_bytes", "_fields", "_read")

    def __init__(self, source: bytes | Mapping[str, Any]) -> None:
        is_bytes = isinstance(source, bytes)
        self._bytes: bytes | None = source if is_bytes else None  # type: ignore[assignment]
        self._fields: dict[str, Any] | None = None if is_bytes else dict(source)  # type: ignore[arg-type]
        self._read: dict[str, Any] = {}

    @property
    def raw(self) -> bytes:
        """The JSON text: the bytes as they came, where nothing was changed."""
        if self._bytes is None:
            self._bytes = write(self._fields)
        return self._bytes

    @property
    def fields(self) -> dict[str, Any]:
        """Top-level values, unread ones as `Raw`. Not to be changed: see `replace`."""
        if self._fields is None:
            self._fields = split_object(self._bytes or b"")
        return self._fields

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a top-level field, parsed on first use."""
        known = self._read
        if name in known:
            return known[name]
        value = (self._fields or self.fields).get(name, default)
        kind = type(value)
        if kind is not Raw and kind is not list:
            return value
        known[name] = value = read(value) if kind is Raw else _thawed(value)
        return value

    def items(self, name: str) -> list[Any]:
        """The items of a list, each unread where they are still bytes."""
        value = self.fields.get(name) or []
        return split_list(value) if isinstance(value, Raw) else list(value)

    def objects(self, name: str) -> list[Document]:
        """The objects in a list."""
        return [Document(bytes(i) if isinstance(i, Raw) else i) for i in self.items(name)]

    def dict(self) -> dict[str, Any]:
        """The whole object, parsed."""
        return {name: self.get(name) for name in self.fields}

    def replace(self, drop: Iterable[str] = (), **changes: Any) -> Self:
        """The same document with other top-level values; the rest stays as it came."""
        gone = frozenset(drop)
        kept = {name: value for name, value in self.fields.items() if name not in gone}
        return self._with({**kept, **changes})

    def _with(self, fields: Mapping[str, Any]) -> Self:
        return type(self)(fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw.decode('utf-8', 'replace')})"
