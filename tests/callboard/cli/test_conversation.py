"""`callboard conversation`, and turns added from the command line."""

import json


def lines(result):
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_turns_are_added_performed_shown_and_branched_off(cli, provider):
    for prompt in ("First thing.", "Second thing."):
        assert cli("add", "chat", "--conversation", "talk", "--prompt", prompt).code == 0
    assert [row["state"] for row in lines(cli("list", "--json"))] == ["waiting_children", "waiting"]
    assert cli("worker", "--once").code == 0
    (row,) = lines(cli("conversation", "list", "--json"))
    assert (row["name"], row["turns"], row["live"]) == ("talk", 2, 0)
    log = lines(cli("conversation", "show", "talk", "--json"))
    assert [m["content"] for m in log] == ["First thing."] * 2 + ["Second thing."] * 2
    assert "assistant, turn 2, job 2" in cli("conversation", "show", "talk").out
    assert cli("conversation", "fork", "talk", "branch", "--at", log[1]["id"]).code == 0
    assert len(lines(cli("conversation", "show", "branch", "--json"))) == 2
    assert "talk" in cli("conversation", "list").out


def test_what_does_not_exist_or_cannot_be_is_one_line(cli):
    cli("add", "chat", "--prompt", "x")
    for arguments, says in [
        (("conversation", "show", "none"), "there is no conversation 'none'"),
        (("conversation", "fork", "none", "new"), "there is no conversation 'none'"),
        (("add", "chat"), "give --data or --prompt"),
        (("add", "chat", "--data", "[]", "--prompt", "x"), "must be a JSON object"),
        (("add", "chat", "--prompt", "x", "--conversation", ""), "conversation"),
    ]:
        result = cli(*arguments)
        assert result.code == 2
        assert says in result.err
    assert lines(cli("conversation", "list", "--json")) == []
    assert cli("conversation").code == 0
