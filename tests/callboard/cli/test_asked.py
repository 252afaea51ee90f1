"""Schemas, images and effort from the command line, and answers as columns."""

import base64
import csv
import json

import pytest

from callboard.cli.asked import read_schema, short_schema
from callboard.cli.errors import InputError
from callboard.cli.map_csv import columns_of

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_fields_in_short():
    assert short_schema("label good|bad, confidence float: from 0 to 1,n") == {
        "type": "object",
        "properties": {
            "label": {"enum": ["good", "bad"]},
            "confidence": {"type": "number", "description": "from 0 to 1"},
            "n": {"type": "string"},
        },
        "required": ["label", "confidence", "n"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "'' is no field"),
        ("a, a", "field 'a' is there twice"),
        ("a date", "'date' is no type"),
        ("{", "--schema: malformed JSON"),
        ('{"type": "thing"}', "--schema.type: is not a JSON Schema"),
        ("none.json", "none.json cannot be read"),
        ("@none", "none cannot be read"),
    ],
)
def test_what_is_no_schema_is_said(here, given, told):
    with pytest.raises(InputError, match=told.replace("|", r"\|")):
        read_schema(given)


def test_a_chat_is_added_with_all_of_it(cli, provider, here):
    (here / "a.png").write_bytes(PNG)
    (here / "s.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    asked = (
        "--prompt",
        "See",
        "--image",
        "a.png",
        "--image",
        "https://x.test/b.png",
        "--schema",
        "s.json",
        "--effort",
        "low",
    )
    assert cli("add", "chat", *asked).code == 0
    data = json.loads(cli("show", 1, "--json").out)["data"]
    first, second, third = data["messages"][0]["content"]
    assert first == {"type": "text", "text": "See"}
    assert second == {"type": "image", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    assert third == {"type": "image", "url": "https://x.test/b.png"}
    assert data["schema"]["properties"] == {"n": {"type": "integer"}}
    assert data["effort"] == "low"


def test_what_is_no_image_is_one_line(cli, here):
    (here / "text.png").write_text("no picture")
    for arguments, told in [
        (("--prompt", "x", "--image", "text.png"), "is neither PNG, JPEG, GIF nor WebP"),
        (("--prompt", "x", "--image", "none.png"), "none.png cannot be read"),
        (("--prompt", "x", "--image", "http://x.test/a.png"), "is no https address"),
        (("--data", "{}", "--image", "text.png"), "give the --prompt"),
        (("--data", "[]", "--effort", "low"), "must be a JSON object"),
    ]:
        result = cli("add", "chat", *arguments)
        assert (result.code, told in result.err) == (2, True), result.err


def test_rows_are_answered_in_columns(cli, provider, here):
    (here / "rows.csv").write_text('id,text,label\n1,"A, good",x\n2,bad\n3,Fine,z\n')
    provider.faults(
        {"match": {"contains": "good"}, "fault": {"kind": "reply", "text": '{"label": "good", "confidence": 0.5}'}},
        {
            "match": {"contains": "Fine"},
            "fault": {"kind": "reply", "text": '```json\n{"label": "bad", "confidence": 1}\n```'},
        },
    )
    asked = ("map", "rows.csv", "--prompt", "{text}", "--schema", "label good|bad, confidence float")
    assert cli(*asked, "-o", "out.csv").code == 1
    with (here / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [
        "id",
        "text",
        "label",
        "answer.label",
        "confidence",
        "state",
        "error",
        "tokens",
        "cost_usd",
        "job",
    ]
    assert [row[:6] for row in rows] == [
        ["1", "A, good", "x", "good", "0.5", "completed"],
        ["", "", "", "", "", "bad_row"],
        ["3", "Fine", "z", "bad", "1", "completed"],
    ]
    assert cli(*asked, "-o", "out.jsonl").code == 1
    records = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [record["data"] for record in records] == [
        {"label": "good", "confidence": 0.5},
        None,
        {"label": "bad", "confidence": 1},
    ]
    assert len(provider.journal()) == 2, "the second run paid for nothing"
    body = provider.journal()[0]["body"]
    assert "label" in json.dumps(body["response_format"])


def test_no_column_is_there_twice():
    assert columns_of([{"state": 1}, None, {"job": 2}], ("state", "answer.state")) == (
        ["state", "job"],
        [
            "answer.state",
            "answer.answer.state",
            "answer.answer.answer.state",
            "error",
            "tokens",
            "cost_usd",
            "answer.job",
        ],
    )


def test_a_turn_with_a_picture_is_shown_in_words(cli, provider, here):
    (here / "a.png").write_bytes(PNG)
    assert cli("add", "chat", "--prompt", "See this.", "--image", "a.png", "--conversation", "c").code == 0
    assert cli("worker", "--once").code == 0
    shown = cli("conversation", "show", "c").out
    assert "See this.\n[an image]\n" in shown
    assert base64.b64encode(PNG).decode() not in shown
