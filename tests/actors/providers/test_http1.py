"""The reader of HTTP replies: the same however the bytes are cut, and no guess where a reply is ambiguous."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.http1 import MAX_HEAD_BYTES, BadReplyError, ReplyParser

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(*parts, end=False):
    """A parser that was fed the parts, and the body it found."""
    parser = ReplyParser()
    body = b"".join(piece for part in parts for piece in parser.feed(part))
    if end:
        parser.end()
    return parser, body


REPLIES = {
    "chunked": (CHUNKED + b"5\r\nhello\r\n1;x=y\r\n \r\n0006 \r\nworld\n\r\n0\r\n\r\n", b"hello world\n", True),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\nx-checksum: 1\r\ny: 2\r\n\r\n", b"a", True),
    "sized": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", True),
    "sized twice alike": (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "chunked wins": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"a",
        True,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + CHUNKED + b"0\r\n\r\n",
        b"",
        True,
    ),
    "asks to close": (b"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\ncontent-length: 1\r\n\r\na", b"a", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na", b"a", False),
    "bare line feeds": (b"HTTP/1.1 200\ncontent-length: 1\n\na", b"a", True),
}


@pytest.mark.parametrize(("raw", "body", "reusable"), REPLIES.values(), ids=REPLIES)
def test_a_reply_is_the_same_wherever_it_is_cut(raw, body, reusable):
    for cut in range(len(raw) + 1):
        parser, found = read(raw[:cut], raw[cut:])
        assert (found, parser.done, parser.reusable) == (body, True, reusable), cut
    parser, found = read(*(raw[n : n + 1] for n in range(len(raw))), end=True)
    assert (found, parser.done, parser.reusable) == (body, True, reusable)


@pytest.mark.parametrize("raw", [raw for raw, _, _ in REPLIES.values()], ids=REPLIES)
def test_a_connection_that_ends_before_the_reply_does_is_no_reply(raw):
    for cut in range(len(raw)):
        parser, _ = read(raw[:cut])
        if not parser.done:
            with pytest.raises(BadReplyError, match="closed the connection"):
                parser.end()


def test_a_body_without_a_length_ends_with_its_connection():
    parser, body = read(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert (body, parser.done) == (b"hello", False)
    parser.end()
    assert parser.done
    assert not parser.reusable


def test_bytes_that_nobody_asked_for_end_the_use_of_a_connection():
    for rest in ([b"x"], [], [b"HTTP/1.1 200 OK\r\n"]):
        parser, _ = read(b"HTTP/1.1 204 No Content\r\n\r\n", *rest)
        assert parser.reusable == (not rest)


def test_headers_have_lower_case_names_and_one_value_each():
    head = "HTTP/1.1 200 OK\r\nX-One: a\r\nx-one:b \r\nRetry-After:\t3\r\nX-Folded: a\r\n  b\r\n\tc\r\nX-Name: Zoë\r\nEmpty:\r\n"
    parser, _ = read(head.encode() + b"X-Latin: Zo\xeb\r\nContent-Length: 0\r\n\r\n")
    assert parser.headers == {
        "x-one": "a, b",
        "retry-after": "3",
        "x-folded": "a b c",
        "x-name": "Zoë",
        "empty": "",
        "x-latin": "Zoë",
        "content-length": "0",
    }


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"space : before the colon\r\n\r\n",
        HEAD + b" folded: without a first line\r\n\r\n",
        HEAD + b": no name\r\n\r\n",
        HEAD + b"x: a\x00b\r\n\r\n",
        HEAD + b"x: a\rb\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        HEAD + b"content-length: 1, 2\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 0x10\r\n\r\n",
        HEAD + b"content-length: \r\n\r\n",
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"x: " + b"a" * MAX_HEAD_BYTES,
        HEAD + b"x: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_what_is_no_head_is_refused(raw):
    with pytest.raises(BadReplyError):
        read(raw)
    with pytest.raises(BadReplyError):
        read(*(raw[n : n + 7000] for n in range(0, len(raw), 7000)))


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1\n",
        b"1" * 17 + b"\r\n",
        b"1\r\nab",
        b"1\r\na\rb",
        b"1;" + b"x" * MAX_HEAD_BYTES,
        b"1;" + b"x" * MAX_HEAD_BYTES + b"\r\n",
        b"0\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
    ],
)
def test_what_is_no_chunk_is_refused_after_what_came_before_it_was_given(rest):
    parser = ReplyParser()
    assert parser.feed(CHUNKED + b"2\r\nok\r\n" + rest)[0] == b"ok"
    assert parser.broken
    with pytest.raises(BadReplyError):
        parser.feed(b"")
    with pytest.raises(BadReplyError):
        parser.end()
    assert not parser.reusable


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_any_body_comes_through_in_any_pieces(parts, data):
    chunked = CHUNKED + b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    body = b"".join(parts)
    sized = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    for raw in (chunked, sized):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
        parser, found = read(*(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)))
        assert (found, parser.reusable) == (body, True)
