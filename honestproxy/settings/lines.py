"""On which line of a TOML file each key stands: tomllib tells values, but not places."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Final, NamedTuple

Key = tuple[str | int, ...]
"""The way to a value: names of tables and keys, numbers of items."""

_TOKEN: Final = re.compile(
    r'''
    (?P<string> """(?:\\[\s\S]|[^\\])*?"""(?:"{0,2}) | \'\'\'[\s\S]*?\'\'\'(?:'{0,2})
              | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
  | (?P<mark> [\[\]{},=] )
  | (?P<newline> \n )
  | (?P<bare> [^\s\[\]{},="'\#]+ )
  | (?P<nothing> \#[^\n]* | \s )
    ''',
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


_END: Final = _Token("end", "", 0)


def lines(text: str) -> dict[Key, int]:
    """The line, from 1 on, on which each key, table and item of valid TOML first stands."""
    return _Reader(text).found


class _Reader:
    """Reads what TOML's keys need: strings are skipped whole, whatever they look like."""

    def __init__(self, text: str) -> None:
        self.found: dict[Key, int] = {}
        self._tokens = list(_tokens(text))
        self._at = 0
        self._tables: dict[Key, int] = {}
        table: Key = ()
        while self._peek() is not _END:
            if self._skips("newline"):
                continue
            if self._peek().text == "[" and self._peek().kind == "mark":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _skips(self, kind: str, text: str = "") -> bool:
        """Whether one of that kind stands here; if so, it is left behind."""
        token = self._peek()
        is_there = token.kind == kind and text in ("", token.text)
        self._at += is_there
        return is_there

    def _header(self) -> Key:
        """`[a.b]`, or `[[a.b]]`, whose tables are numbered."""
        line = self._next().line
        is_list = self._skips("mark", "[")
        key = self._numbered(self._key("]"))
        self._skips("mark", "]")
        if is_list:
            self._note(key, line)
            number = self._tables[key] = self._tables.get(key, -1) + 1
            key = (*key, number)
        self._note(key, line)
        return key

    def _numbered(self, names: list[str]) -> Key:
        """The way to a table; where a list of tables is on it, to the last of them."""
        key: Key = ()
        for name in names[:-1]:
            key = (*key, name)
            if key in self._tables:
                key = (*key, self._tables[key])
        return (*key, names[-1]) if names else key

    def _pair(self, table: Key) -> None:
        line = self._peek().line
        key = (*table, *self._key("="))
        self._note(key, line)
        self._value(key)

    def _key(self, end: str) -> list[str]:
        """A key's names, each of them bare or quoted; what ends it is left behind."""
        names: list[str] = []
        while (token := self._next()) is not _END and token.text != end:
            if token.kind == "string":
                names.append(tomllib.loads(f"key = {token.text}")["key"])
            elif token.kind == "bare":
                names.extend(part for part in token.text.split(".") if part)
        return names

    def _value(self, key: Key) -> None:
        if self._skips("mark", "["):
            self._items(key)
        elif self._skips("mark", "{"):
            self._inline(key)
        else:
            while self._peek().kind in ("string", "bare"):  # a date and its time are two
                self._next()

    def _items(self, key: Key) -> None:
        number = 0
        while self._peek() is not _END and not self._skips("mark", "]"):
            if self._skips("newline") or self._skips("mark", ","):
                continue
            self._note((*key, number), self._peek().line)
            self._value((*key, number))
            number += 1

    def _inline(self, key: Key) -> None:
        while self._peek() is not _END and not self._skips("mark", "}"):
            if not (self._skips("newline") or self._skips("mark", ",")):
                self._pair(key)

    def _note(self, key: Key, line: int) -> None:
        """Note where a key stands, and the tables on the way to it where they are new."""
        for length in range(1, len(key) + 1):
            self.found.setdefault(key[:length], line)


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind != "nothing":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")
