"""The packages as they are installed: nothing missing, nothing under a name that a host may have, nothing loaded before it is wanted."""

import ast
import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import callboard

ROOT = Path(__file__).parents[2]
FOLDERS = {"callboard": "callboard", "callboard/actors": "actors", "callboard/persistence": "persistence"}


def sources():
    """Every module of ours, by its place in the wheel."""
    for installed, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            yield f"{installed}/{file.relative_to(ROOT / folder).as_posix()}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, as a release is."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--skip-dependency-check",
            "--outdir",
            str(out),
            str(tree),
        ],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_has_every_module_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {name for name in names if name.endswith(".py")}
    assert modules == set(sources())
    assert {"callboard/py.typed", "callboard/actors/prices.json"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"callboard"}
    migrations = {
        f"callboard/persistence/migrations/{file.name}" for file in (ROOT / "persistence" / "migrations").glob("*.*")
    }
    assert migrations <= names


def test_the_metadata_names_what_is_needed(wheel):
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    needed = {re.split(r"[<>=!;\[ ]", line)[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {
        "pykka",
        "httpx",
        "cronsim",
        "tzdata",
        "SQLAlchemy",
        "msgspec",
        "click",
        "rich",
        "alembic",
        "h11",
        "pysqlite3",
    }
    assert metadata["Version"] == callboard.__version__ == importlib.metadata.version("callboard")


def test_the_installed_wheel_runs_from_an_empty_directory(wheel, tmp_path):
    # The new environment sees this one's dependencies, but not this tree: only its editable install would show it.
    env = tmp_path / "env"
    venv.create(env, with_pip=False, symlinks=True)
    site = next((env / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    here = Path(importlib.metadata.distribution("click").locate_file("")).resolve()
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for entry in here.iterdir():
        if "callboard" not in entry.name and not entry.name.endswith(".pth"):
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(str(dependencies))
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments):
        return subprocess.run(
            [env / "bin" / "python", *arguments],
            cwd=empty,
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        ).stdout

    assert run("-c", "import callboard; print(callboard.__file__)").startswith(str(site))
    assert run("-m", "callboard", "--version") == f"callboard {callboard.__version__}\n"
    assert run("-m", "callboard", "add", "chat", "--data", '{"prompt": "Installed."}') == "1\n"
    run("-m", "callboard", "worker", "--once", "--log-level", "error")
    assert run("-m", "callboard", "follow", "1") == "Installed.\n"
    assert sorted(path.name for path in empty.glob("*.db")) == ["callboard.db"]


def test_a_hosts_own_actors_and_persistence_are_not_disturbed(tmp_path):
    for name in ("actors", "persistence"):
        (tmp_path / f"{name}.py").write_text("OURS = True\n")
    code = (
        "import sys, callboard\n"
        "assert not {'actors', 'persistence'} & set(sys.modules)\n"
        "[getattr(callboard, name) for name in callboard.__all__]\n"
        "import callboard.cli.map_run, callboard.cli.doctor, callboard.worker\n"
        "assert not {'actors', 'persistence'} & set(sys.modules)\n"
        "import actors, persistence\n"
        "print(actors.OURS and persistence.OURS, callboard.actors.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "True callboard.actors\n", done.stderr


def test_inside_the_folders_imports_are_relative_and_outside_absolute():
    found = []
    for folder in ("actors", "persistence", "callboard", "tests", "examples", "benchmarks"):
        inside = b"|callboard" if folder in ("actors", "persistence") else b""
        # Most files have no line that could be one: only the others are parsed.
        suspicious = re.compile(
            rb"^\s*(?:from|import)\b(?:[^#\n]*,)?\s*(?:actors|persistence" + inside + rb")\b", re.MULTILINE
        )
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_bytes()
            for node in ast.walk(ast.parse(text)) if suspicious.search(text) else ():
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
                tops = {name.partition(".")[0] for name in names}
                if tops & {"actors", "persistence"} or (folder in ("actors", "persistence") and "callboard" in tops):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_the_public_names_are_sorted_documented_and_there():
    assert callboard.__all__ == sorted(callboard.__all__)
    assert dir(callboard) == callboard.__all__
    for name in callboard.__all__:
        value = getattr(callboard, name)
        assert name in {"__version__", "sqlite_driver"} or value.__doc__, (
            name
        )  # the latter is a module of another package


def test_importing_the_package_or_the_hosts_side_loads_no_actors():
    code = (
        "import sys, callboard\n"
        "first = sorted(m for m in sys.modules if m.startswith('callboard.'))\n"
        "callboard.JobQueue\n"
        "heavy = [m for m in ('pykka', 'httpx', 'sqlalchemy', 'msgspec', 'rich', 'alembic', 'callboard.actors') if m in sys.modules]\n"
        "print(first, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_the_links_for_type_checkers_cover_the_package():
    links = ROOT / ".links" / "callboard"
    for entry in links.iterdir():
        assert entry.resolve().exists(), f"{entry.name} leads nowhere"
    modules = {file.name for file in (ROOT / "callboard").iterdir() if file.name != "__pycache__"} | {
        "actors",
        "persistence",
    }
    assert {entry.name for entry in links.iterdir()} == modules


def test_the_readmes_example_runs_as_it_stands(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(blocks[0])
    env = {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Why is the sky blue?{'input_uncached'")
