import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.sse import EventTooLargeError, SSEDecoder, SSEEvent

STREAM = (
    ': keep-alive\n\nevent: start\ndata: {"a":1}\n\ndata:no space\n\ndata: one\ndata: two\nid: 7\nretry: 5\n\n'
    'data:  two spaces\n\nevent: nothing\n\ndata: \u2028in\u2029side\u0085\n\nerror: {"code":500}\n\ndata\n\ndata: unclosed'
)
EVENTS = [
    SSEEvent("start", '{"a":1}'),
    SSEEvent("message", "no space"),
    SSEEvent("message", "one\ntwo"),
    SSEEvent("message", " two spaces"),
    SSEEvent("message", "\u2028in\u2029side\u0085"),
    SSEEvent("error", '{"code":500}'),
    SSEEvent("message", ""),
]


def decode(raw, size):
    decoder = SSEDecoder()
    events = [event for start in range(0, len(raw), size) for event in decoder.feed(raw[start : start + size])]
    return events, decoder.close()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_chunk_size_gives_the_same_events(ending, bom):
    raw = (bom + STREAM.replace("\n", ending)).encode()
    for size in range(1, len(raw) + 1):
        assert decode(raw, size) == (EVENTS, []), size


def test_cr_closes_an_event_at_once():
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x\r\r") == [SSEEvent("message", "x")]
    assert decoder.feed(b"\ndata: y\r\n\r\n") == [SSEEvent("message", "y")]


def test_bom_only_at_the_very_start():
    bom = b"\xef\xbb\xbf"
    assert decode(bom + b"data: x\n\n" + bom + b"data: y\n\n", 3) == ([SSEEvent("message", "x")], [])


def test_invalid_utf8_is_replaced_and_a_split_character_is_not():
    assert decode("data: \u00e9\n\n".encode(), 1)[0] == [SSEEvent("message", "\u00e9")]
    assert decode(b"data: \xff\n\n", 1)[0] == [SSEEvent("message", "\ufffd")]


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: 0123456789\n" * 20])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_cap(raw, size):
    decoder = SSEDecoder(max_bytes=100)

    def feed_all():
        for start in range(0, len(raw), size):
            decoder.feed(raw[start : start + size])

    with pytest.raises(EventTooLargeError, match="over 100 bytes"):
        feed_all()
    SSEDecoder().feed(raw)


def test_the_cap_is_of_an_event_not_of_a_stream():
    decoder = SSEDecoder(max_bytes=100)
    assert sum(len(decoder.feed(b"data: 0123456789\n\n")) for _ in range(100)) == 100


@given(st.binary(max_size=300), st.integers(1, 300))
def test_any_bytes_any_chunks(raw, size):
    assert decode(raw, size) == decode(raw, max(len(raw), 1))


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_is_written_is_read(texts, ending):
    raw = "".join(f"data: {text}{ending}{ending}" for text in texts).encode()
    events, _ = decode(raw, 4)
    assert [event.data for event in events] == texts


PRETTY = '{\n  "error": {\n    "code": 500,\n    "message": "a\u2028b"\n  }\n}'


@pytest.mark.parametrize("bare", ['{"error": {"code": 500}}', PRETTY])
@pytest.mark.parametrize("after", ["", "\n", "\n\n", "\n\ndata: y\n\n"])
def test_a_bare_object_is_an_error_event(bare, after):
    raw = ("data: x\n\n" + bare + after).encode()
    expected = [SSEEvent("message", "x"), SSEEvent("error", bare)]
    if after.endswith("y\n\n"):
        expected.append(SSEEvent("message", "y"))
    for size in range(1, len(raw) + 1):
        events, last = decode(raw, size)
        assert events + last == expected, size


def test_a_bare_object_cut_short_is_given_as_it_came():
    assert decode(b'{\n "error": 1', 1) == ([], [SSEEvent("error", '{\n "error": 1')])


def test_the_cap_holds_for_a_bare_object():
    with pytest.raises(EventTooLargeError):
        SSEDecoder(max_bytes=100).feed(b"{\n" + b"x: y\n" * 50)
