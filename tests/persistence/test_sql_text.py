"""The SQL that runs is the SQL that is written: `sql_text` is what the statements compile to, today."""

import subprocess
import sys

from callboard.persistence import sql_text
from callboard.persistence.statements.render import creation, render, statements


def test_the_text_is_up_to_date():
    # `make sql` writes it anew.
    assert {name: text.strip() for name, text in sql_text.STATEMENTS.items()} == {
        name: "\n".join(line.rstrip() for line in text.strip().splitlines()) for name, text in statements()
    }
    assert len(sql_text.CREATION) == len(creation())
    namespace: dict[str, object] = {}
    exec(render(), namespace)
    assert namespace["STATEMENTS"] == sql_text.STATEMENTS
    assert namespace["CREATION"] == sql_text.CREATION


def test_a_host_that_adds_and_reads_never_loads_sqlalchemy(tmp_path):
    script = """
import sys
from callboard import JobQueue
with JobQueue(sys.argv[1]) as queue:
    job = queue.add("chat", {"prompt": "hello"}, key="once")
    queue.add_many([{"type": "chat", "data": {}}])
    assert job.refresh().state == "waiting" and job.cancel() and queue.counts()
assert not [name for name in sys.modules if name.startswith("sqlalchemy")]
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "b.db")], check=True)
