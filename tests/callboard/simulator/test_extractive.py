from hypothesis import given
from hypothesis import strategies as st

from callboard.simulator.extractive import NOTHING_TO_EXTRACT, cut_at_stop, estimate_tokens, extract, pieces

TEXT = "Tell me the main points.\nQueues store work for us. Bread is baked. Work is work in queues. Cats sleep."


def test_the_salient_sentences_come_in_their_original_order():
    found = extract(TEXT, 100)
    assert found.text == "Queues store work for us. Work is work in queues."
    assert not found.truncated


def test_the_instruction_is_left_out_when_there_is_something_after_it():
    assert extract("Work work work work.\nCats sleep.", 100).text == "Cats sleep."
    assert extract("Repeat this sentence.", 100).text == "Repeat this sentence."


def test_a_wrapped_first_paragraph_is_all_instruction():
    assert extract("Summarise the text\nthat follows.\n\nCats sleep.", 100).text == "Cats sleep."


def test_a_wrapped_line_does_not_end_a_sentence_but_an_item_does():
    assert extract("x\n\nA long sentence that\ngoes on here.", 100).text == "A long sentence that goes on here."
    assert extract("x\n\nFirst item\nSecond item", 100).text == "First item"


def test_decimal_points_do_not_end_a_sentence():
    assert extract("Pi is 3.14 here.", 100).text == "Pi is 3.14 here."


def test_an_empty_message_gets_an_honest_sentence():
    for text in ("", "  \n\n "):
        assert extract(text, 100).text == NOTHING_TO_EXTRACT


def test_the_limit_cuts_at_a_word():
    found = extract("Supervisors restart actors whenever jobs fail.", 6)
    assert (found.text, found.truncated) == ("Supervisors restart", True)
    assert extract("Supervisors", 1).text == "Supe"
    assert extract("Supervisors", 0) == extract("Actors", 0)


def test_a_stop_sequence_ends_the_text_and_is_named():
    assert cut_at_stop("one two three", ("three", "two")) == ("one ", "two")
    assert cut_at_stop("one", ("x", "")) == ("one", None)


def test_tokens_are_quarter_bytes_rounded_up():
    assert [estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "éé")] == [0, 1, 1, 2, 1]


@given(st.text(max_size=300), st.integers(0, 60))
def test_nothing_is_said_that_is_not_in_the_input(text, limit):
    said = extract(text, limit).text
    assert estimate_tokens(said) <= limit
    if text.strip():
        assert all(word in text for word in said.split())


@given(st.text(max_size=300))
def test_pieces_add_up_to_the_text_and_its_tokens(text):
    found = pieces(text)
    assert "".join(piece for _, piece in found) == text
    assert sum(tokens for tokens, _ in found) == estimate_tokens(text)
