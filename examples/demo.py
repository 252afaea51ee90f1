"""The main job on real text, from nothing: `make demo`.

A simulated provider (a real HTTP server with limits of its own) and a worker, each a process of its own, work off one prompt per module of
the standard library. Everything lives in `./demo/`. Kill any of the processes at any point and start it again: it resumes, and at the end
the provider's own journal is read to check that no row was lost and no completed call was made again.

    python examples/demo.py                                     # no key, no server, nothing to install
    python examples/demo.py --model openai:NAME --limit 20      # the same against the real thing; it asks first
"""

import _thread
import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from demo_check import check_calls, check_journal
from stdlib_rows import rows

from callboard import JobQueue
from callboard.__main__ import run as callboard
from callboard.actors.providers.keys import KeyUnavailableError, resolve_key
from callboard.actors.settings import route
from callboard.cli.errors import InputError
from callboard.config import Config, ConfigError, load_config

FOLDER = Path("demo")
ROWS = FOLDER / "rows.jsonl"
CONFIG = FOLDER / "callboard.toml"
DATABASE = FOLDER / "callboard.db"
JOURNAL = FOLDER / "journal.jsonl"
WORKER_LOG = FOLDER / "worker.log"
PROMPT = "Say in at most three sentences what the Python module {module} is for.\n\n{text}"
MAX_OUTPUT = 120
MOST_EXITS = 2
CONCURRENCY = 8
REQUESTS_PER_MINUTE = 1200

SETTINGS = """\
# Written by examples/demo.py at every start.
database = "{database}"

[models.simulated]
provider = "simulator"
model = "extract"
price = {{ input = 0.15, output = 0.60 }}   # pretend prices, dollars per million tokens: to see the bookkeeping

[providers.simulator]
base_url = "{url}/v1"

[limits.simulator]                          # the simulator enforces the same
concurrency = {concurrency}
requests_per_minute = {rpm}
"""


class Child:
    """A process that is started again when it dies, and that cannot outlive this one: its stdin is a pipe of ours."""

    def __init__(self, name: str, command: Callable[[], list[str]], log: Path | None = None) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start it, in a session of its own so that Ctrl-C reaches it only through us."""
        log = self._log.open("a") if self._log else None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                [sys.executable, "-m", "callboard", *self._command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()

    def read_line(self) -> str:
        """Wait for its first line of output."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"demo: the {self.name} did not start; its messages are above")
        return line

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def watch(self, started_again: Callable[[], object]) -> None:
        """From now on start it again whenever it dies."""
        threading.Thread(target=self._watch, args=(started_again,), name=f"watch-{self.name}", daemon=True).start()

    def _watch(self, started_again: Callable[[], object]) -> None:
        gave_up = 0
        while True:
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            # One that was killed is started again as often as somebody cares to kill it; one that ends by itself is not.
            gave_up += code >= 0
            if gave_up > MOST_EXITS:
                say(
                    f"the {self.name} keeps ending by itself (exit code {code}); {self._log or 'its messages above'} may say why"
                )
                _thread.interrupt_main()
                return
            self.start()
            started_again()
            say(f"the {self.name} died ({code}); started again as process {self.pid}")

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def say(message: str) -> None:
    """Tell the person who watches."""
    sys.stderr.write(f"demo: {message}\n")


def write_rows() -> int:
    """Make the rows once, so that every run asks the same questions; a file cut short by a kill is never there."""
    if not ROWS.exists():
        temporary = ROWS.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()), encoding="utf-8")
        temporary.replace(ROWS)
    return len(ROWS.read_text(encoding="utf-8").splitlines())


def simulator_command() -> list[str]:
    """Run the simulator at a provider's pace, with a provider's limits."""
    return [
        *("simulate", "--watch-stdin", "--journal", str(JOURNAL), "--port", str(_last_port())),
        *("--latency", "0.25", "--tokens-per-second", "120"),
        *("--concurrency", str(CONCURRENCY), "--rpm", str(REQUESTS_PER_MINUTE)),
    ]


def _last_port() -> int:
    """Take the port of the last run if nobody else has it now, so that a worker finds the simulator again where it was."""
    import socket

    try:
        port = int((FOLDER / "port").read_text())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, ValueError):
        return 0
    return port


def write_settings(url: str | None) -> Config:
    """Write the demo's callboard.toml: with the simulator at this address, or without one for a real model."""
    (FOLDER / "port").write_text((url or "").rpartition(":")[2])
    CONFIG.write_text(
        SETTINGS.format(
            database=f"sqlite:///{DATABASE}",
            url=url or "http://127.0.0.1:1",
            concurrency=CONCURRENCY,
            rpm=REQUESTS_PER_MINUTE,
        ),
        encoding="utf-8",
    )
    return load_config(CONFIG)


def confirm_real_model(model: str, number: int, *, yes: bool) -> None:
    """Say what a real model will cost in tokens, and ask. Ends the process if the answer is no, or no key is there."""
    config = write_settings(None)
    try:
        provider = config.providers[route(config, model).provider]
        resolve_key(provider.name, env=provider.key_env, key_file=provider.key_file)
    except (LookupError, ConfigError, KeyUnavailableError) as error:
        raise SystemExit(f"demo: {error}") from error
    texts = ROWS.read_bytes().splitlines()[:number]
    tokens = sum(len(text) for text in texts) // 4
    say(
        f"{model} is a real model: {len(texts)} calls, about {tokens:,} input tokens and at most {len(texts) * MAX_OUTPUT:,} output tokens"
    )
    if yes:
        return
    try:
        answer = input("demo: spend that? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise SystemExit("demo: nothing was sent")


def stream_one(model: str) -> None:
    """Post one question ahead of the others and print its answer as it is produced."""
    every_row = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    row = next((row for row in every_row if row["module"] == "heapq"), every_row[0])
    data = {
        "prompt": f"Explain the idea behind the module {row['module']}.\n\n{row['text']}",
        "max_output": 2 * MAX_OUTPUT,
    }
    with JobQueue(DATABASE) as queue:
        job = queue.add("chat", data, model=model, priority="user", key=f"demo:{model}")
    say(f"one answer as it is produced (callboard follow {job.id} --config {CONFIG}):\n")
    if callboard(["follow", str(job.id), "--config", str(CONFIG)]) == 130:
        raise KeyboardInterrupt
    say("")


def perform(model: str, limit: int | None) -> int:
    """Run the map over all rows with the worker that is running. Returns its exit code."""
    results = FOLDER / ("results.jsonl" if model == "simulated" else "results-real.jsonl")
    arguments = [
        "map",
        str(ROWS),
        "--prompt",
        PROMPT,
        "--model",
        model,
        "--max-output",
        str(MAX_OUTPUT),
        "-o",
        str(results),
    ]
    arguments += ["--no-worker", "--config", str(CONFIG), *([] if limit is None else ["--limit", str(limit)])]
    return callboard(arguments)


def main() -> int:
    """Run the demo. Returns 0 if every row was answered and the check holds."""
    os.chdir(Path(__file__).parents[1])
    parser = argparse.ArgumentParser(description="The main job on real text; see the head of this file.")
    parser.add_argument("--model", help="a real one, as provider:model; without it the simulator")
    parser.add_argument("--limit", type=int, help="only the first so many rows")
    parser.add_argument("--yes", action="store_true", help="do not ask before spending")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    number = write_rows()
    number = min(number, options.limit or number)
    model = options.model or "simulated"
    simulator = None
    if options.model:
        confirm_real_model(model, number, yes=options.yes)
    else:
        simulator = Child("simulator", simulator_command)
        simulator.start()
        write_settings(simulator.read_line())
        say(f"simulated provider: process {simulator.pid}; it records every request it sees in {JOURNAL}")
    worker = Child("worker", lambda: ["worker", "--config", str(CONFIG), "--watch-stdin"], WORKER_LOG)
    worker.start()
    say(f"worker: process {worker.pid}; its log is {WORKER_LOG}")
    say(f"{number} rows in {ROWS}. Kill anything (Ctrl-C, kill -9) and run it again: it resumes.")
    try:
        worker.watch(lambda: None)
        if simulator is not None:
            simulator.watch(simulator.read_line)
        stream_one(model)
        code = perform(model, options.limit)
    except KeyboardInterrupt:
        code = 130
    finally:
        worker.stop()
        if simulator is not None:
            simulator.stop()
    if code == 130:
        say("stopped; `make demo` resumes")
        return code
    with JobQueue(DATABASE) as queue:
        problems = check_calls(queue, model) if simulator is None else check_journal(queue, JOURNAL)
    return 1 if problems or code else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"demo: {error}")
