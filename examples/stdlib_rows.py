"""Make rows out of text that every machine with Python has: the documentation of the standard library, one module a row.

    python examples/stdlib_rows.py > rows.jsonl

The source files are read and parsed, never imported, so nothing of them runs. Same Python, same rows, in the same order.
"""

import ast
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_CHARACTERS = 6000
"""Of each module's text. Enough for an abstract, small enough for any model."""

PACKAGES = (
    "asyncio",
    "collections",
    "concurrent",
    "email",
    "encodings",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
)
"""Packages whose modules get a row of their own as well."""


def rows() -> Iterator[dict[str, str]]:
    """One row per documented module: `module`, `text`. Modules without a source file or a docstring are left out."""
    for name in sorted(module_names()):
        text = documentation(name)
        if text:
            yield {"module": name, "text": text}


def module_names() -> set[str]:
    """Public modules of the standard library, and those inside the larger packages."""
    names = {
        name for name in sys.stdlib_module_names if not name.startswith("_") and name not in ("antigravity", "this")
    }
    for package in PACKAGES:
        folder = source_of(package)
        if folder is not None and folder.name == "__init__.py":
            names |= {f"{package}.{file.stem}" for file in folder.parent.glob("*.py") if not file.stem.startswith("_")}
    return names


def documentation(name: str) -> str | None:
    """Join the module's docstring with its public functions' and classes' first paragraphs."""
    source = source_of(name)
    if source is None:
        return None
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    summary = ast.get_docstring(tree)
    if summary is None:
        return None
    parts = [summary.strip()]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            about = ast.get_docstring(node)
            if about:
                parts.append(f"{node.name}: {inspect.cleandoc(about).split(chr(10) * 2)[0].strip()}")
    return "\n\n".join(parts)[:MAX_CHARACTERS]


def source_of(name: str) -> Path | None:
    """Find the file a module would be loaded from, without importing it: only the paths of parent packages are looked at."""
    parent, _, leaf = name.rpartition(".")
    if parent:
        folder = source_of(parent)
        file = folder.parent / f"{leaf}.py" if folder is not None else None
        return file if file is not None and file.is_file() else None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    # A module frozen into the interpreter (os, io, abc) still says where its source is.
    place = getattr(spec.loader_state, "filename", None) or spec.origin
    origin = Path(place) if place else None
    return origin if origin is not None and origin.suffix == ".py" and origin.is_file() else None


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
