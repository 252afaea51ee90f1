"""All statements, and what makes an empty database a board, as the text of a Python module."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sqlalchemy import Executable
from sqlalchemy.schema import CreateIndex, CreateTable

from ..inbox import inbox_statements
from ..schema import metadata
from ..triggers import trigger_statements
from .build import DIALECT, as_text

_APART = {"build", "render", "__main__"}


def modules() -> list[ModuleType]:
    """Every module of this package that holds statements."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [import_module(f"{__package__}.{module.name}") for module in found if module.name not in _APART]


_HEAD = '''"""SQL as it is run: made from `persistence.statements` and `persistence.schema` by `make sql`, never by hand."""
'''


def statements() -> Iterator[tuple[str, str]]:
    """Every statement by its name, `module.NAME`, and its text."""
    for module in modules():
        home = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            if (
                name.isupper()
                and not name.startswith("_")
                and isinstance(value, Executable)
                and inspect.getmodule(value) is not module
            ):
                yield f"{home}.{name}", as_text(value)


def creation() -> list[str]:
    """What makes an empty database a board, but for the stamp of its version."""
    tables = metadata.sorted_tables
    return [
        *(str(CreateTable(table).compile(dialect=DIALECT)).strip() for table in tables),
        *(
            str(CreateIndex(index).compile(dialect=DIALECT))
            for table in tables
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        ),
        *trigger_statements(),
        *inbox_statements(),
    ]


def render() -> str:
    """The module's text."""
    lines = [_HEAD, "STATEMENTS: dict[str, str] = {"]
    lines += [f'    "{name}": """\n{_tidy(text)}\n""",' for name, text in sorted(statements())]
    lines += ["}", "", "CREATION: tuple[str, ...] = ("]
    lines += [f'    """\n{_tidy(text)}\n""",' for text in creation()]
    lines += [")", ""]
    return "\n".join(lines)


def _tidy(text: str) -> str:
    if "\\" in text or '"""' in text:
        raise ValueError(f"a statement with a backslash or three quotes cannot be written down as it is: {text}")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
