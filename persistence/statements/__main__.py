"""`python -m callboard.persistence.statements`: write `persistence/sql_text.py` anew from the statements. Run by `make sql`."""

from pathlib import Path

from .render import render

if __name__ == "__main__":
    path = Path(__file__).parent.parent / "sql_text.py"
    path.write_text(render(), encoding="utf-8")
