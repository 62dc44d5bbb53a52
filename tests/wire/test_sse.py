"""Splitting a byte stream into server-sent events."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honestproxy.wire.sse import EventSplitter, data_of, name_of

TERMINATORS = [b"\n\n", b"\r\n\r\n", b"\r\r"]


def split(stream: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    splitter, events = EventSplitter(), []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        events += splitter.feed(stream[start:end])
    return events, splitter.rest


pieces = st.sampled_from([b"data: ", b"data:", b"{}", "é✓".encode(), b": ping", b"\n", b"\r", b"x"])
streams = st.lists(pieces, max_size=30).map(b"".join)
cuts = st.lists(st.integers(0, 200), max_size=12)


@given(stream=streams, cuts=cuts)
def test_where_the_network_cuts_never_matters(stream, cuts):
    assert split(stream, cuts) == split(stream, [])


@given(stream=streams, cuts=cuts)
def test_events_and_rest_joined_are_the_stream(stream, cuts):
    events, rest = split(stream, cuts)
    assert b"".join(events) + rest == stream


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1, max_size=6
    ),
    terminator=st.sampled_from(TERMINATORS),
    cuts=cuts,
)
def test_each_event_gives_its_data_back(texts, terminator, cuts):
    stream = b"".join(b"data: " + text.encode() + terminator for text in texts)
    events, rest = split(stream, cuts)
    assert [data_of(event).decode() for event in events] == texts
    assert rest == b""


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata:b\r\n\r\n", b"a\nb"),
        (b": ping\n\n", b""),
        (b": note\ndata: a\n\n", b"a"),
        (b"event: error\ndata: {}\n\n", b"{}"),
        (b"data: a\nid: 7\n\n", b"a"),
        (b"\n\n", b""),
        (b"data\n\n", b""),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        ("data: é\u2028é\n\n".encode(), "é\u2028é".encode()),
    ],
)
def test_data(event, data):
    assert data_of(event) == data


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (b"event: error\ndata: {}\n\n", b"error"),
        (b"data: {}\nevent:error\n\n", b"error"),
        (b'data: {"event": 1}\n\n', b""),
        (b"data: {}\n\n", b""),
    ],
)
def test_name(event, name):
    assert name_of(event) == name


def test_a_large_event_in_many_reads_costs_no_more_than_its_size():
    def seconds(size: int) -> float:
        splitter, piece, start = EventSplitter(), b"x" * 1000, time.process_time()
        splitter.feed(b"data: ")
        for _ in range(size // len(piece)):
            splitter.feed(piece)
        assert len(splitter.feed(b"\n\n")) == 1
        return time.process_time() - start

    assert seconds(8_000_000) < 2  # searched over and over it would be minutes
