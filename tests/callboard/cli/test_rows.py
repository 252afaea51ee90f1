"""Rows and prompts: a bad row says where and why and spoils nothing else; a row's key is stable."""

import io

import pytest

from callboard.cli.errors import InputError
from callboard.cli.rows import BadRow, Naming, Row, Template, read_rows


def rows_of(tmp_path, name, data):
    file = tmp_path / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(str(file)))


def test_json_lines(tmp_path):
    found = rows_of(tmp_path, "r.jsonl", '\ufeff{"a": 1}\n\n  \n{"b": "ü", "n": 9007199254740993}')
    assert found == [Row(1, 1, {"a": 1}), Row(2, 4, {"b": "ü", "n": 9007199254740993})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": ', "malformed JSON"),
        (b"{'a': 1}", "malformed JSON"),
        (b"[1]", "expected a JSON object, not a list"),
        (b"3", "not a number"),
        (b"null", "not null"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud83d"}', "lone surrogate"),
        (b"[" * 100_000, "malformed JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path, line, problem):
    found = rows_of(tmp_path, "r.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert [row.number for row in found] == [1, 2, 3]
    assert isinstance(found[1], BadRow)
    assert found[1].line == 2
    assert problem in found[1].problem
    assert found[2] == Row(3, 3, {"a": 2})


def test_standard_input_is_json_lines():
    assert list(read_rows("-", io.BytesIO(b'{"a": 1}\n'))) == [Row(1, 1, {"a": 1})]


def test_csv_and_its_bad_rows(tmp_path):
    text = '\ufeffFirst Name,text\nAda,"two\nlines"\nBob\nEve,a,b\n\nZoë,"it ""works"""\n'
    assert rows_of(tmp_path, "r.csv", text) == [
        Row(1, 2, {"First Name": "Ada", "text": "two\nlines"}),
        BadRow(2, 4, "1 values for 2 fields"),
        BadRow(3, 5, "3 values for 2 fields"),
        Row(4, 7, {"First Name": "Zoë", "text": 'it "works"'}),
    ]
    assert rows_of(tmp_path, "r.tsv", "a\tb\n1\t2\n") == [Row(1, 2, {"a": "1", "b": "2"})]


def test_csv_that_is_not_utf_8_or_not_quoted_right(tmp_path):
    found = rows_of(tmp_path, "r.csv", b'a,b\n1,2\n\xff,2\n1,"x"y\n3,4\n')
    assert [type(row) for row in found] == [Row, BadRow, BadRow, Row]
    assert "UTF-8" in found[1].problem
    assert "malformed CSV" in found[2].problem
    assert [row.line for row in found] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "problem"), [("", "no header"), ("\n", "no header"), ("a,a\n1,2\n", "'a' is there twice")]
)
def test_a_csv_needs_a_usable_header(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem):
        rows_of(tmp_path, "r.csv", text)


def test_a_source_that_is_not_there_or_not_a_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_rows(str(tmp_path / "none.jsonl")))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_rows(str(tmp_path)))


def test_a_template_takes_plain_names_only():
    row = Row(1, 1, {"a": "{b}", "b": 2, "First Name": "Ada", "a.__class__": "plain", "c": {"d": [1]}})
    assert Template("{a} {{x}} {b} {First Name}").fill(row) == "{b} {x} 2 Ada"
    assert Template("{a.__class__}").fill(row) == "plain"
    assert Template("{c}").fill(row) == '{"d": [1]}'
    missing = Template("{b.real}").fill(row)
    assert isinstance(missing, BadRow)
    assert "missing field 'b.real'" in missing.problem


@pytest.mark.parametrize("text", ["{}", "{a!r}", "{a:>9}", "{a", "a}", "no field", "{{a}}", "{0!s}"])
def test_a_template_that_could_not_be_meant(text):
    with pytest.raises(InputError, match="--prompt"):
        Template(text)


def test_a_missing_field_says_what_the_row_has():
    assert Template("{text}").fill(Row(7, 9, {"txt": 1})) == BadRow(
        7, 9, "missing field 'text' (the row has: txt)", {"txt": 1}
    )


def test_the_same_question_has_the_same_key_and_equal_rows_have_their_own():
    def keys(prompt="{a}", model="m", options=None, rows=({"a": 1}, {"a": 1}, {"a": 2})):
        naming = Naming(prompt, model, options or {})
        return [naming.key(Row(n, n, fields)) for n, fields in enumerate(rows)], naming.name

    first, tag = keys()
    assert len(set(first)) == 3
    assert keys() == (first, tag)
    assert keys(rows=({"a": 2}, {"a": 1}))[0] == [first[2], first[0]]
    assert all(len(key) <= 200 for key in first)
    for changed in ({"prompt": "{a}!"}, {"model": "n"}, {"options": {"max_output": 5}}):
        other, other_tag = keys(**changed)
        assert not set(other) & set(first)
        assert other_tag != tag
