import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.ndjson import NDJSONDecoder
from callboard.actors.providers.sse import EventTooLargeError

STREAM = '{"a":"\u2028\u2029\u0085é"}\n\n  \r\n{"b":1}\r\n[]\n{"done":true}'
LINES = ['{"a":"\u2028\u2029\u0085é"}', '{"b":1}', "[]", '{"done":true}']


def decode(raw, size):
    decoder = NDJSONDecoder()
    events = [event for start in range(0, len(raw), size) for event in decoder.feed(raw[start : start + size])]
    return [event.data for event in events], [event.data for event in decoder.close()]


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_chunk_size_gives_the_same_lines(bom):
    raw = (bom + STREAM).encode()
    for size in range(1, len(raw) + 1):
        assert decode(raw, size) == (LINES[:-1], LINES[-1:]), size


def test_a_byte_order_mark_counts_only_at_the_start():
    assert decode("\ufeff1\n\ufeff2\n".encode(), 2)[0] == ["1", "\ufeff2"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_cap(size):
    raw = b"x" * 101
    decoder = NDJSONDecoder(max_bytes=100)

    def feed_all():
        for start in range(0, len(raw), size):
            decoder.feed(raw[start : start + size])

    with pytest.raises(EventTooLargeError, match="over 100 bytes"):
        feed_all()


def test_the_cap_is_of_a_line_not_of_a_stream():
    decoder = NDJSONDecoder(max_bytes=20)
    assert sum(len(decoder.feed(b"0123456789\n")) for _ in range(100)) == 100


@given(st.binary(max_size=300), st.integers(1, 300))
def test_any_bytes_any_chunks(raw, size):
    complete, last = decode(raw, size)
    assert complete + last == [event for part in decode(raw, max(len(raw), 1)) for event in part]
