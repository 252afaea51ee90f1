import re
from pathlib import Path

import pytest

from callboard.simulator.faults import KINDS, WHOLE, FaultError, choose, parse_rule, read_rule

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ([], "is an object"),
        ({"fault": {"kind": "nope"}}, "'fault.kind' must be one of"),
        ({}, "'fault' must be an object"),
        ({"fault": {"kind": "cut", "chunks": 3}}, "unknown field 'chunks'; known: kind, n"),
        ({"fault": {"kind": "cut"}, "time": 1}, "unknown field 'time'"),
        ({"fault": {"kind": "cut"}, "match": {"text": "x"}}, "unknown field 'text'"),
        ({"fault": {"kind": "cut"}, "match": {"wire": "telepathy"}}, "'match.wire'"),
        ({"fault": {"kind": "cut"}, "match": {"contains": 3}}, "'match.contains' must be a string"),
        ({"fault": {"kind": "cut"}, "times": -1}, "'times'"),
        ({"fault": {"kind": "cut"}, "after": None}, "'after'"),
        ({"fault": {"kind": "cut", "n": "3"}}, "'n' must be int"),
        ({"fault": {"kind": "cut", "n": True}}, "'n' must be int"),
        ({"fault": {"kind": "status"}}, "needs 'status'"),
        ({"fault": {"kind": "status", "status": 99}}, "between 200 and 599"),
        ({"fault": {"kind": "delay", "seconds": None}}, "'seconds' must be int or float"),
    ],
)
def test_a_mistake_in_a_rule_is_refused_by_name(rule, said):
    with pytest.raises(FaultError, match=re.escape(said)):
        read_rule(rule)


def test_the_first_matches_are_spared_and_the_times_run_out():
    rules = [read_rule({"match": {"contains": "a"}, "after": 1, "times": 2, "fault": {"kind": "cut"}})]
    assert [choose(rules, "xyz", "m", "openai") for _ in range(3)] == [None, None, None]
    assert [choose(rules, "abc", "m", "openai") is not None for _ in range(5)] == [False, True, True, False, False]


def test_the_first_rule_that_matches_wins():
    rules = [
        read_rule({"match": {"wire": "anthropic"}, "fault": {"kind": "bom"}}),
        read_rule({"match": {"model": "m-2"}, "fault": {"kind": "crlf"}}),
        read_rule({"fault": {"kind": "cut"}, "times": 1}),
    ]

    def kind(model: str, wire: str) -> str | None:
        rule = choose(rules, "", model, wire)
        return rule and rule.fault.kind

    assert kind("m-2", "anthropic") == "bom"
    assert kind("m-2", "openai") == "crlf"
    assert kind("m-1", "openai") == "cut"
    assert kind("m-1", "openai") is None


def test_a_rule_on_the_command_line():
    rule = parse_rule("status:status=429,retry_after=2.5,type=rate,contains=job 1,wire=openai,times=3,after=1")
    described = rule.describe()
    assert described["match"] == {"contains": "job 1", "wire": "openai"}
    assert (described["times"], described["after"]) == (3, 1)
    assert (described["fault"]["status"], described["fault"]["retry_after"]) == (429, 2.5)
    assert parse_rule("bom").fault.kind == "bom"
    assert parse_rule('{"fault": {"kind": "cut", "n": 3}}').fault["n"] == 3
    assert parse_rule("error_event:type=503").fault["type"] == "503"


@pytest.mark.parametrize("text", ["cut:n", "cut:n=many", "{not json", "", "cut:nn=3"])
def test_a_mistake_on_the_command_line_is_refused(text):
    with pytest.raises(FaultError):
        parse_rule(text)


def test_the_page_describes_every_kind_and_its_parameters():
    page = (ROOT / "docs" / "simulator.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*?)\|", page, re.MULTILINE))
    assert set(KINDS) <= set(rows)
    for kind, parameters in KINDS.items():
        assert set(re.findall(r"`(\w+)`", rows[kind])) == set(parameters), kind
    assert set(KINDS) >= WHOLE
