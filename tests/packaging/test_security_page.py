"""docs/providers.md says of each rule of security which test holds it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_rule_of_security_names_a_test_that_exists():
    page = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    section = page[page.index("## Security") :].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"\bdef {name}\b", (ROOT / path).read_text(encoding="utf-8")), f"{path}::{name}"
