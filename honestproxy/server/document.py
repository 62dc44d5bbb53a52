"""What the OpenAPI document says of each route: the fields that are checked here, and refusals.

All else in a request is the upstream's to judge: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from typing import Any, Final

from honestproxy.strategies import STRATEGIES
from honestproxy.wire.request import MOST_CHOICES

Schema = dict[str, Any]


def _object(required: list[str], /, **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def _listed(item: Schema, **more: Any) -> Schema:
    return {"type": ["array", "null"], "items": item, **more}


_TEXT: Final = {"type": "string"}
_FLAG: Final = _or_null("boolean")
_ANY: Final = {"type": "object"}
_ERROR: Final = _object(
    ["error"],
    error=_object(
        ["message"],
        message=_TEXT,
        type=_or_null("string"),
        param=_or_null("string"),
        code={"type": ["string", "integer", "null"]},
    ),
)
_HONESTY: Final = {
    **_object(
        [],
        strategy={"enum": [*STRATEGIES, None]},
        capabilities=_listed(_TEXT),
        annotate=_FLAG,
        threshold=_or_null("number", minimum=0, maximum=1),
        on_failure={"enum": ["draft", "error", None]},
    ),
    "additionalProperties": False,
}
_PART: Final = _object([], type=_TEXT)
_MESSAGE: Final = _object(
    ["role"],
    role=_TEXT,
    content={"anyOf": [_or_null("string"), {"type": "array", "items": _PART}]},
)
_TOOL: Final = _object([], function=_ANY)
_CHOICE: Final = {"anyOf": [_or_null("string"), _object([], allowed_tools=_ANY)]}
_CHAT: Final = _object(
    ["messages"],
    messages={"type": "array", "minItems": 1, "items": _MESSAGE},
    model=_TEXT,
    stream=_FLAG,
    stream_options=_or_null("object"),
    response_format=_or_null("object"),
    tools=_listed(_TOOL),
    functions=_listed(_TOOL),
    tool_choice=_CHOICE,
    modalities=_listed(_TEXT),
    n=_or_null("integer", minimum=1, maximum=MOST_CHOICES),
    honesty=_HONESTY,
)
_ITEM: Final = _object([], type=_or_null("string"))
_TYPED: Final = _object(["type"], type=_TEXT)
_RESPONSES: Final = _object(
    [],
    input={"anyOf": [_or_null("string"), _listed(_ITEM)]},
    model=_or_null("string"),
    instructions=_or_null("string"),
    previous_response_id=_or_null("string"),
    **dict.fromkeys(("stream", "store", "background", "parallel_tool_calls"), _FLAG),
    **dict.fromkeys(("text", "reasoning", "metadata", "stream_options"), _or_null("object")),
    **dict.fromkeys(("max_output_tokens", "top_logprobs"), _or_null("integer")),
    **dict.fromkeys(("temperature", "top_p"), _or_null("number")),
    tools=_listed(_TYPED),
    tool_choice={"anyOf": [_or_null("string"), _TYPED]},
    include=_listed(_TEXT),
    honesty=_HONESTY,
)
_MODEL: Final = _object(["id"], id=_TEXT)


def _content(schema: Schema, *, streams: bool = False) -> Schema:
    content: Schema = {"application/json": {"schema": schema}}
    return content | ({"text/event-stream": {}} if streams else {})


def _answers(told: str, schema: Schema, *, streams: bool = False) -> Schema:
    """The responses of a route: a good one, and every refusal in OpenAI's shape."""
    refused = "Refused, by the proxy or by the upstream: OpenAI's error object."
    return {
        "200": {"description": told, "content": _content(schema, streams=streams)},
        "default": {"description": refused, "content": _content(_ERROR)},
    }


def _asking(summary: str, schema: Schema, answers: Schema) -> Schema:
    body = {"required": True, "content": _content(schema)}
    return {"summary": summary, "requestBody": body, "responses": answers}


CHAT: Final = _asking(
    "OpenAI's chat completion, made honest",
    _CHAT,
    _answers(
        "The answer, with an object `honesty`; chunks where `stream` is true.",
        _object(["choices"], choices={"type": "array", "items": _ANY}, honesty=_ANY),
        streams=True,
    ),
)
RESPONSES: Final = _asking(
    "OpenAI's Responses, made honest",
    _RESPONSES,
    _answers(
        "The Response, with an object `honesty`; typed events where `stream` is true.",
        _object(["output"], output={"type": "array", "items": _ANY}, honesty=_ANY),
        streams=True,
    ),
)
MODELS: Final[Schema] = {
    "responses": _answers(
        "The upstream's models and their variants.",
        _object(["object", "data"], object={"const": "list"}, data=_listed(_MODEL)),
    )
}
MODEL: Final[Schema] = {
    "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}],
    "responses": _answers("One model.", _MODEL),
}
