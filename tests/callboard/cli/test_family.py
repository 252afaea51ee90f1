"""`callboard show` draws what belongs together, and `callboard cancel --tree` ends it."""

import json

from callboard import JobQueue
from callboard.cli.family import MAX_LINES


def diamond(queue):
    return queue.add_flow(
        {
            "plan": {"type": "chat"},
            "left": {"type": "chat", "needs": ["plan"]},
            "right": {"type": "embed", "needs": [("plan", "continue")]},
            "merge": {"type": "chat", "needs": ["left", ("right", "ignore")]},
            "after": {"type": "chat", "needs": ["merge"]},
        }
    )


def test_show_draws_the_flow_with_its_states(cli, here):
    with JobQueue(here / "callboard.db") as queue:
        ids = {name: job.id for name, job in diamond(queue).items()}
        queue.cancel(ids["right"])
    shown = cli("show", ids["merge"])
    assert shown.code == 0, shown.err
    drawn = shown.out.split("what it waits on and what it created:\n")[1].split("\n\n")[0].splitlines()
    assert drawn == [
        f"job {ids['merge']} chat waiting_children",
        f"  needs 'left' job {ids['left']} chat waiting_children",
        f"    needs 'plan' job {ids['plan']} chat waiting",
        f"  needs 'right' [ignore] job {ids['right']} embed cancelled",
        f"    needs 'plan' [continue, moot] job {ids['plan']} chat waiting",
    ]
    assert f"needed by job {ids['after']} (waiting_children)" in shown.out
    assert f"waits on 1 of 2 jobs, 1 done: job {ids['left']} (left) waiting_children" in shown.out
    found = json.loads(cli("show", ids["merge"], "--json").out)
    assert {one["id"]: one["state"] for one in found["family"]["jobs"]}[ids["right"]] == "cancelled"
    assert {
        "job": ids["left"],
        "on": ids["plan"],
        "child": False,
        "name": "plan",
        "policy": "fail",
        "state": "open",
    } in (found["family"]["edges"])
    assert found["needed_by"] == [{"id": ids["after"], "state": "waiting_children"}]


def test_a_large_tree_is_drawn_in_part(cli, here):
    with JobQueue(here / "callboard.db") as queue:
        flow = {f"n{n}": {"type": "chat"} for n in range(MAX_LINES + 50)}
        last = queue.add_flow({**flow, "last": {"type": "chat", "needs": list(flow)}})["last"]
    shown = cli("show", last.id).out
    assert shown.count("needs 'n") == MAX_LINES - 1
    assert "and 51 more below" in shown


def test_cancel_tree(cli, here):
    with JobQueue(here / "callboard.db") as queue:
        added = diamond(queue)
        done = cli("cancel", "--tree", added["merge"].id)
        assert (done.code, done.out) == (0, f"{added['merge'].id} cancelled with its tree: 4 jobs\n")
        assert str(added["plan"].state) == "cancelled"
        again = cli("cancel", "--tree", added["merge"].id)
    assert again.code == 1
    assert "had already ended" in again.err
    assert cli("cancel", "--tree", "--where", "type:chat", "--yes").code == 2
