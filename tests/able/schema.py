"""Values that a JSON schema accepts, made from the words of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"]")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Filling:
    """Fills schemas from one prompt: its quoted words and its numbers, each used once."""

    def __init__(self, prompt: str) -> None:
        self._words = QUOTED.findall(prompt)
        self._numbers = NUMBER.findall(QUOTED.sub("", prompt))
        self._roots: Mapping[str, Any] = {}

    def fill(self, schema: Mapping[str, Any]) -> Any:
        """A value that `schema` accepts."""
        self._roots = schema
        return self._value(schema, "value")

    def _value(self, schema: Mapping[str, Any], name: str) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        kind = next(k for k in kind if k != "null") if isinstance(kind, list) else kind
        return getattr(self, f"_{kind}")(schema, name)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while True:
            if "$ref" in schema:
                schema = self._found(schema["$ref"])
            elif any_of := schema.get("anyOf") or schema.get("oneOf"):
                schema = next(s for s in any_of if s.get("type") != "null")
            elif all_of := schema.get("allOf"):
                rest = {k: v for k, v in schema.items() if k != "allOf"}
                schema = {**rest, **{k: v for part in all_of for k, v in part.items()}}
            else:
                return schema

    def _found(self, reference: str) -> Mapping[str, Any]:
        node: Any = self._roots
        for step in reference.removeprefix("#").strip("/").split("/"):
            node = node[step] if step else node
        return node

    def _object(self, schema: Mapping[str, Any], _: str) -> dict[str, Any]:
        fields = schema.get("properties", {})
        wanted = {*schema.get("required", fields)}
        return {name: self._value(fields[name], name) for name in fields if name in wanted}

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        items = schema.get("items") or {}
        return [self._value(items, name) for _ in range(max(1, schema.get("minItems", 1)))]

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        text = self._words.pop(0) if self._words else f"some {name.replace('_', ' ')}"
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def _integer(self, schema: Mapping[str, Any], name: str) -> int:
        return int(self._number(schema, name))

    def _number(self, schema: Mapping[str, Any], _: str) -> float:
        found = float(self._numbers.pop(0)) if self._numbers else 1.0
        least = max(schema.get("minimum", -1e9), schema.get("exclusiveMinimum", -1e9) + 1)
        most = min(schema.get("maximum", 1e9), schema.get("exclusiveMaximum", 1e9) - 1)
        return min(max(found, least), most)

    def _boolean(self, _: Mapping[str, Any], __: str) -> bool:
        return True

    def _null(self, _: Mapping[str, Any], __: str) -> None:
        return None


def free_object(prompt: str) -> dict[str, str]:
    """What JSON mode answers: a field for each quoted word of the prompt."""
    return {name: f"some {name}" for name in QUOTED.findall(prompt)} or {"answer": "yes"}
