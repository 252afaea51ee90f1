"""What `callboard doctor` finds out about the database: engine, place, version, soundness, and whether it can be written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from callboard.config import Config
from callboard.persistence.errors import DatabaseError, DatabaseTooOldError

from .probes import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from callboard.persistence.engine import Connection

_AREA = "database"


def examine_database(config: Config) -> Iterator[Finding]:
    """Look at the engine and the file. Creates nothing and changes nothing."""
    from callboard.persistence.engine import driver, has_wal_reset_bug

    version = driver.sqlite_version
    if has_wal_reset_bug(driver.sqlite_version_info):
        yield Finding(
            "sqlite",
            WARN,
            f"SQLite {version} can corrupt a WAL database; the slower rollback journal is used instead",
            "install pysqlite3 (a newer SQLite), where there is a wheel of it for this platform",
        )
    else:
        yield Finding("sqlite", OK, f"SQLite {version}")
    path = Path(config.database.removeprefix("sqlite:///")) if config.database.startswith("sqlite:///") else None
    if path is not None and not path.exists():
        folder = path.absolute().parent
        if not folder.is_dir():
            yield Finding(
                _AREA, FAIL, f"{path}: the directory {folder} does not exist", "create it, or correct the path"
            )
        elif not os.access(folder, os.W_OK):
            yield Finding(
                _AREA,
                FAIL,
                f"{path}: the directory {folder} cannot be written",
                "choose another place, or change its rights",
            )
        else:
            yield Finding(_AREA, OK, f"{path} does not exist yet; the first worker, add or map creates it")
        return
    if path is not None and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(
            _AREA, WARN, f"{path} can be read by other users; it holds prompts and answers", f"chmod 600 {path}"
        )
    yield from _examine_contents(config)


def _examine_contents(config: Config) -> Iterator[Finding]:
    from callboard.persistence.engine import open_database
    from callboard.persistence.job_queue import JobQueue

    try:
        database = open_database(config.database, create=False, busy_timeout=2.0)
    except DatabaseTooOldError as error:
        yield Finding(_AREA, FAIL, str(error), "callboard db upgrade")
        return
    except DatabaseError as error:
        yield Finding(_AREA, FAIL, str(error))
        return
    try:
        with JobQueue(database) as queue:
            problems = queue.check()
        yield from (Finding(_AREA, FAIL, problem, "restore a copy, or report this") for problem in problems)
        with database.connect() as connection:
            with connection.write():
                pass
            yield from _examine_holds(connection)
    except DatabaseError as error:
        yield Finding(_AREA, FAIL, str(error))
    else:
        if not problems:
            yield Finding(_AREA, OK, f"{database.name}: sound and writable")
    finally:
        database.close()


def _examine_holds(connection: "Connection") -> Iterator[Finding]:
    """Keys that wait for a person: their jobs are paused, and nobody pays for them."""
    from callboard.persistence.limits import holds

    from .records import now_ms

    for hold in holds(connection):
        if hold.kind in ("auth", "quota") and hold.until > now_ms():
            yield Finding(
                f"limits {hold.key}",
                FAIL,
                f"on hold ({hold.kind}): {hold.reason}",
                f"see to the account and its key, then `callboard limits --resume {hold.key}`",
            )
