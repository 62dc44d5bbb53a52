"""What goes into each call, and what must not be rewritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from honestproxy import conversation
from honestproxy.document import read, write
from honestproxy.types import ChatRequest

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello", "name": "Ana"},
    {"role": "assistant", "content": "Hi.", "x_note": 1.0},
    {"role": "user", "content": "Again"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
]
EVERYTHING: dict[str, Any] = {
    "model": "m", "messages": HISTORY, "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto", "user": "u", "seed": 3, "service_tier": "flex", "top_k": 5,
    "stop": ["x"], "n": 1, "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 2},
    "response_format": {"type": "text"}, "prediction": None, "audio": None, "temperature": 0.9,
    "top_p": 0.5, "max_completion_tokens": 70, "store": True, "metadata": {"a": "b"},
}  # fmt: skip


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(json.dumps(fields or EVERYTHING).encode())


def test_a_draft_takes_everything_byte_for_byte() -> None:
    asked = request()
    assert conversation.draft(asked, returned=True).raw == asked.raw


def test_a_draft_that_is_never_returned_is_not_stored() -> None:
    left = set(EVERYTHING) - set(conversation.draft(request(), returned=False).fields)
    assert left == {"store", "metadata"}


def test_a_confusion_takes_the_conversation_and_nothing_that_shapes_an_answer() -> None:
    asked = conversation.elicitation(request(), "Why?", 900).dict()
    expected = {
        "model", "messages", "tools", "tool_choice", "user", "seed", "service_tier", "top_k",
        "max_completion_tokens", "temperature",
    }  # fmt: skip
    assert set(asked) == expected
    assert asked["tool_choice"] == "none"
    assert asked["max_completion_tokens"] == 900
    assert asked["top_k"] == 5


GUIDES = {
    "guided_json": {"type": "object"},
    "structured_outputs": {"choice": ["a", "b"]},
    "grammar": 'root ::= "a"',
    "json_schema": '{"type": "object"}',
    "regex": "(yes|no)",
    "ebnf": 'root ::= "yes" | "no"',
}


@pytest.mark.parametrize("name", GUIDES)
def test_guided_decoding_passes_through_and_guides_no_question_of_ours(name: str) -> None:
    asked = request(model="m", messages=HISTORY, **{name: GUIDES[name]})
    assert conversation.pass_through(asked) == name
    assert name not in conversation.elicitation(asked, "Why?", 9)


def test_a_merge_takes_all_but_n_and_prediction_and_calls_no_tools() -> None:
    asked = conversation.rewrite(request(), "Merge.").dict()
    assert set(EVERYTHING) - set(asked) == {"n", "prediction"}
    assert asked["tool_choice"] == "none"
    same = set(asked) - {"messages", "tool_choice"}
    assert {name: asked[name] for name in same} == {name: EVERYTHING[name] for name in same}


def test_the_cap_goes_under_the_name_that_the_client_used() -> None:
    asked = request(model="m", messages=HISTORY)
    assert "max_tokens" in conversation.elicitation(asked, "Why?", 9)
    assert "tool_choice" not in conversation.elicitation(asked, "Why?", 9)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"Hi."', "Hi.\n\nWhy\n?"),
        ('""', "Why\n?"),
        ("null", "Why\n?"),
        ("{}", "Why\n?"),
        ('"\\ud800 \\" 😀"', '\ud800 " 😀\n\nWhy\n?'),
        ("[ \n]", [{"type": "text", "text": "Why\n?"}]),
        ('[ {"big": 1e400} ]', [{"big": float("inf")}, {"type": "text", "text": "Why\n?"}]),
    ],
)
def test_our_words_follow_content_of_any_kind_which_stays_as_it_came(content, expected) -> None:
    raw = f'{{"messages": [ 1, {{"x": 1.0,"role" : "user", "content": {content}, "y": 2e0}} ]}}'
    asked = ChatRequest(raw.encode())
    said = write(conversation.instructed(asked, "Why\n?"))
    assert b"1.0" in said
    assert b"2e0" in said
    assert (b"1e400" in said) is ("1e400" in content)
    assert json.loads(said) == [1, {"x": 1.0, "role": "user", "content": expected, "y": 2.0}]


def test_history_and_images_stay_and_our_words_come_last() -> None:
    messages = conversation.elicitation(request(), "Why?", 9).replace().raw
    asked = json.loads(messages)["messages"]
    assert asked[:-1] == HISTORY[:-1]
    parts = [*HISTORY[-1]["content"], {"type": "text", "text": "Why?"}]
    assert asked[-1] == {"role": "user", "content": parts}


@pytest.mark.parametrize("role", ["assistant", "tool", "system"])
def test_after_anyone_else_our_words_are_a_message_of_their_own(role: str) -> None:
    messages = [*HISTORY, {"role": role, "content": "42"}]
    asked = conversation.instructed(request(model="m", messages=messages), "Why?")
    assert asked[-1] == {"role": "user", "content": "Why?"}
    assert len(asked) == len(messages) + 1


def test_a_message_without_text_becomes_our_words_alone() -> None:
    asked = request(model="m", messages=[{"role": "user", "content": None}])
    said = read(write(conversation.instructed(asked, "Why?")))
    assert said == [{"role": "user", "content": "Why?"}]


MISTRAL = """{{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"""


# Gemma's refuses a system message too, and calls the assistant "model".
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}
{{- '\n' + message['content'] | trim + '[/INST]' }}{% endfor %}"""


@pytest.mark.parametrize("source", [MISTRAL, GEMMA], ids=["mistral", "gemma"])
def test_strictly_alternating_chat_templates_accept_every_call(source: str) -> None:
    def refuse(message: str) -> None:
        raise AssertionError(message)

    template = jinja2.Environment(autoescape=False).from_string(source)
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    asked = request(model="m", messages=turns)
    for call in (
        conversation.draft(asked, returned=True),
        conversation.elicitation(asked, "Why?", 9),
        conversation.rewrite(asked, "Merge."),
        conversation.single_message(asked, "Alone."),
    ):
        messages = json.loads(call.replace().raw)["messages"]
        text = template.render(
            messages=messages, raise_exception=refuse, bos_token="<s>", eos_token="</s>"
        )
        assert text.endswith("[/INST]")


def test_the_papers_form_is_one_bare_message_decoded_greedily() -> None:
    asked = conversation.single_message(request(), "Alone.").dict()
    assert asked["messages"] == [{"role": "user", "content": "Alone."}]
    decoding = {name: asked[name] for name in ("temperature", "top_p", "max_tokens")}
    assert decoding == {"temperature": 0, "top_p": 1, "max_tokens": 70}
    elicited = conversation.single_message(request(), "Alone.", answers=False)
    assert elicited.get("max_tokens") == 2500


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_tools_that_may_be_called_dont_stop_the_pipeline(choice: str | None) -> None:
    asked = request(model="m", messages=HISTORY, tools=EVERYTHING["tools"], tool_choice=choice)
    assert conversation.pass_through(asked) is None


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("required", "forced tools"),
        ({"type": "function", "function": {"name": "f"}}, "forced tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required"}}, "forced tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, None),
    ],
)
def test_forced_tools_pass_through(choice: Any, reason: str | None) -> None:
    asked = request(model="m", messages=HISTORY, tools=EVERYTHING["tools"], tool_choice=choice)
    assert conversation.pass_through(asked) == reason


def test_abilities_name_tools_attachments_results_and_what_the_app_says() -> None:
    tool = {"type": "function", "function": {"name": "get_quote", "description": "A\n price"}}
    messages = [*HISTORY, {"role": "tool", "content": "1"}]
    asked = request(model="m", messages=messages, tools=[tool])
    told = conversation.abilities(asked, ("web_search",))
    for line in (
        "- Tool get_quote: A price",
        "- The application provides: web_search",
        "- Attached to the conversation: image",
        "- Results of tool calls",
    ):
        assert line in told


def test_abilities_name_custom_tools_by_their_own_name() -> None:
    tool = {"type": "custom", "custom": {"name": "grep", "description": "Finds words"}}
    assert conversation.abilities(request(tools=[tool]), ()) == "- Tool grep: Finds words"


@pytest.mark.parametrize("options", [{}, {"search_context_size": "low"}])
def test_a_model_that_searches_the_web_has_no_limit_of_latest_information(options: Any) -> None:
    asked = request(model="m", messages=HISTORY[:2], web_search_options=options)
    assert "- Web search" in conversation.abilities(asked, ())
    assert conversation.lifted(asked, ()) == {"latest_information", "knowledge_gap"}
    assert "web_search_options" in conversation.rewrite(asked, "Merge.")
    without = request(model="m", messages=HISTORY[:2], web_search_options=None)
    assert conversation.lifted(without, ()) == frozenset()
    assert "Web search" not in conversation.abilities(without, ())


def test_without_any_the_abilities_say_so() -> None:
    asked = request(model="m", messages=[{"role": "user", "content": "hi"}])
    assert conversation.abilities(asked, ()).startswith("- Nothing beyond this conversation")


@pytest.mark.parametrize(
    ("capabilities", "lifts", "leaves"),
    [
        (["clock"], {"latest_information-date_time"}, {"latest_information"}),
        (["images"], {"modality_mismatch-image"}, {"modality_mismatch"}),
        (["webSearch"], {"latest_information", "knowledge_gap"}, {"interactivity_sensory"}),
        (["internet_access"], {"latest_information"}, {"modality_mismatch"}),
        (["user's calendar"], {"interactivity_sensory-act"}, {"interactivity_sensory"}),
    ],
)
def test_a_capability_lifts_what_it_is_for_and_no_more(capabilities, lifts, leaves):
    found = conversation.lifted(ChatRequest({"messages": []}), capabilities)
    assert lifts <= found
    assert not leaves & found


def test_the_words_that_lift_doubts_are_documented():
    told = (Path(__file__).parents[1] / "docs/settings.md").read_text("utf-8")
    words = frozenset().union(*conversation._LIFTS.values())
    assert [word for word in sorted(words) if f"`{word}`" not in told] == []
