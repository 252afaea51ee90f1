"""The job that drives a provider's batch through its life, from wherever it stands.

    open → sealed → uploaded → creating → submitted → ended → downloading → applied
                       ↑            │ (refused for now)           (or: failed, its members divided into two others)
                       └────────────┘

Every arrow is committed before the next request leaves, and each request to the provider is one that can be sent again; but for `creating`, where
a batch whose creation was not heard of is looked for at the provider by its tag before another is asked for. Between two looks the job
leaves its runner. It runs on a thread of its own, because it writes and reads large files; nothing here holds a batch in memory.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from ...persistence.batch_orders import (
    PER_ORDER,
    Answered,
    Apply,
    CountLive,
    Create,
    Divide,
    FindMembers,
    GiveUp,
    Intend,
    LeaveLate,
    LetDivided,
    ListKnown,
    ListMembers,
    Load,
    Move,
    Seal,
)
from ...persistence.batches import BatchRow
from ...persistence.model import CallOutcome, ClaimedJob
from ..providers.batch_api import (
    BatchFormat,
    BatchFound,
    BatchLine,
    BatchPhase,
    BatchResult,
    BatchStatus,
    CancelBatch,
    CreateBatch,
    DeleteFile,
    FetchResults,
    FileUploaded,
    FindBatch,
    Operation,
    PollBatch,
    UploadFile,
    batch_format_for,
)
from ..providers.model import CallError, ErrorClass, Scope, request_from_json
from ..settings import CompanySettings
from . import batch_results
from .effects import CallFailedError, ComeBack, Effect, Exchange, OrderOnBoard
from .spool import Spool

logger = logging.getLogger(__name__)

Ask = Callable[[Effect], Any]

AT_ONCE = 400_000
"""Bytes of requests, or of results, that are in memory at a time, about."""
GROWTH = 1.5
ELSEWHERE = 60.0
"""Seconds until a batch is looked at again whose provider this worker does not know; another may."""
SKEW_MS = 60_000
"""How far the provider's clock may be behind ours."""
NOT_TAKEN = frozenset(
    {
        ErrorClass.RATE,
        ErrorClass.QUOTA,
        ErrorClass.AUTH,
        ErrorClass.INVALID,
        ErrorClass.NOT_FOUND,
        ErrorClass.TOO_LARGE,
        ErrorClass.CONTEXT,
    }
)
"""Failures of a creation after which there is certainly no batch."""
OVER = frozenset({ErrorClass.CONFLICT, ErrorClass.INVALID, ErrorClass.NOT_FOUND})
"""Failures of a cancellation after which there is nothing to cancel."""
GONE_AFTER = 5
"""Looks and failures after which results that are not there (404) are taken for gone: right after its end, a file may not be seen yet."""
TO_BE_CHANGED = frozenset({ErrorClass.INVALID, ErrorClass.TOO_LARGE, ErrorClass.CONTEXT})


def _page(lines: Iterable[bytes]) -> list[bytes]:
    """The next lines: as many as one transaction books, and not more than fits in memory."""
    page: list[bytes] = []
    size = 0
    for line in islice(lines, PER_ORDER):
        page.append(line)
        size += len(line)
        if size >= AT_ONCE:
            break
    return page


def _about_the_requests(error: CallError) -> bool:
    """Whether a refusal is about what is in the batch, so that halving it finds what is wrong; a redirect, say, refuses each half as well."""
    return error.sent and error.kind in TO_BE_CHANGED and error.scope is Scope.REQUEST


class Later(Exception):  # noqa: N818 - not an error: there is nothing more to do now
    """Leave the runner until then."""

    def __init__(self, at_ms: int, reason: str) -> None:
        super().__init__(reason)
        self.at_ms, self.reason = at_ms, reason


def drive_batch(
    job: ClaimedJob, settings: CompanySettings, ask: Ask, now_ms: Callable[[], int], chance: float
) -> dict[str, Any]:
    """See the batch through to its end. `ask` performs an effect and returns its result; `chance` is uniform in [0, 1)."""
    del job
    batch: BatchRow | None = ask(OrderOnBoard(Load()))
    if batch is None:
        return {"batch": None}
    provider = settings.providers.get(batch.provider)
    form = None if provider is None else batch_format_for(provider.wire)
    if form is None:
        reason = f"provider {batch.provider!r}, which has the batch, is not configured here with a batch API"
        ask(ComeBack(now_ms() + round(ELSEWHERE * 1000), reason))
        return {"batch": batch.id}
    driver = _Driver(batch, form, settings, ask, now_ms, chance)
    try:
        driver.run()
    except Later as later:
        ask(ComeBack(later.at_ms, later.reason))
    except OSError as error:
        ask(ComeBack(now_ms() + round(settings.batch.poll * 1000), f"the batch's files: {error}"))
    batch = driver.batch
    return {"batch": batch.id, "provider": batch.provider, "batch_id": batch.batch_id, "state": batch.state}


class _Driver:
    """One stretch of work on a batch, up to its end or to the next wait."""

    def __init__(
        self,
        batch: BatchRow,
        form: BatchFormat,
        settings: CompanySettings,
        ask: Ask,
        now_ms: Callable[[], int],
        chance: float,
    ) -> None:
        self.batch = batch
        self._form = form
        self._settings = settings
        self._provider = settings.providers[batch.provider]
        self._own = settings.batch
        self._ask = ask
        self._now = now_ms
        self._chance = chance
        self._spool = Spool(settings.database, batch.id)
        self._by_deadline: int | None = None

    def run(self) -> None:
        """Take one arrow after the other."""
        steps = {
            "open": self._seal,
            "sealed": self._prepare,
            "uploaded": self._create,
            "creating": self._find,
            "submitted": self._poll,
            "ended": self._download,
            "downloading": self._apply,
        }
        while (step := steps.get(self.batch.state)) is not None:
            step()
        if self.batch.state == "failed" and self.batch.error is not None and "divided" in self.batch.error:
            self._divide(str(self.batch.error.get("message", "")))
        self._clean_up()

    # --- towards the provider ---------------------------------------------------------------------------------------------------------

    def _seal(self) -> None:
        self._leave_late()
        self.batch = self._order(Seal())

    def _prepare(self) -> None:
        """Commit every member's intent, write the file, and send it where it is sent apart."""
        self._leave_late()
        if self._order(CountLive()) == 0:
            self._move("applied")
            return
        while self._order(Intend()):
            pass
        requests, digest = self._write_file()
        if requests == 0:
            self._move("applied")
            return
        file_id = None
        if self._form.uploads:
            try:
                report = self._ask(
                    Exchange(self.batch.provider, UploadFile(path=str(self._spool.requests), tag=self.batch.tag))
                )
            except CallFailedError as failed:
                if _about_the_requests(failed.error):
                    self._refused(failed.error.message, ())
                    return
                self._come_back("uploading", failed.error)
            assert isinstance(report, FileUploaded)
            file_id = report.file_id
        self._move("uploaded", sha256=digest, requests=requests, file_id=file_id)

    def _write_file(self) -> tuple[int, str]:
        """Write the requests of all members as lines, in their order. How many there are, and their SHA-256."""
        digest, count = hashlib.sha256(), 0
        with self._spool.writing() as file:
            for state in ("waiting", "sent"):
                for member in self._members(state):
                    line = self._form.line(
                        BatchLine(custom_id=f"{member.job_id}-{member.id}", request=request_from_json(member.request)),
                        settings=self._provider,
                    )
                    if isinstance(line, CallError):
                        self._order(Apply([batch_results.refused(member.id, line)]))
                        continue
                    digest.update(line + b"\n")
                    file.write(line + b"\n")
                    count += 1
        return count, digest.hexdigest()

    def _members(self, state: str) -> Iterator[Any]:
        after, size = 0, max(1, self.batch.bytes // max(1, self.batch.requests))
        most = max(1, min(PER_ORDER, AT_ONCE // size))
        while page := self._order(ListMembers(state, after, most)):
            yield from page
            after = page[-1].id

    def _create(self) -> None:
        if not self._form.uploads and not self._spool.holds(self.batch.sha256):
            # Written by another worker, or lost with a disk. Nothing has left: write it again.
            self._move("sealed")
            return
        if self._order(CountLive()) == 0:
            self._give_up("failed", "no_result", "nobody waited for it any more", "applied")
            return
        self.batch = self._order(Create())
        operation = CreateBatch(
            tag=self.batch.tag,
            model=self._model(),
            endpoint=self.batch.endpoint,
            file_id=self.batch.file_id,
            path=None if self._form.uploads else str(self._spool.requests),
        )
        try:
            status = self._ask(Exchange(self.batch.provider, operation))
        except CallFailedError as failed:
            self._not_created(failed.error)
            return
        assert isinstance(status, BatchStatus)
        self._submitted(status)

    def _model(self) -> str:
        """The provider's name of the model of its requests; of the first of them, where they may be mixed."""
        page = self._order(ListMembers("sent", most=1))
        return str(page[0].provider_model) if page else ""

    def _not_created(self, error: CallError) -> None:
        told = f"{error.kind}: {error.message}"
        if error.sent and error.kind not in NOT_TAKEN:
            raise Later(self._at(self._own.find_after), f"whether the batch was created is not known ({told})")
        if _about_the_requests(error):
            self._refused(error.message, ())
            return
        if error.kind is ErrorClass.NOT_FOUND and self.batch.file_id is not None:
            self._move("sealed", polls=self.batch.polls + 1)  # its file is gone: send it again
            raise Later(self._next_poll(error.retry_after), told)
        self._move("uploaded", polls=self.batch.polls + 1)
        raise Later(self._next_poll(error.retry_after), told)

    def _find(self) -> None:
        """Its creation was asked for and not heard of: is it there?"""
        asked_at = self.batch.creating_at or self.batch.created_at
        known = self._order(ListKnown(asked_at - 86_400_000))
        operation = FindBatch(
            tag=self.batch.tag, since=asked_at - SKEW_MS, requests=self.batch.requests, known=tuple(known)
        )
        found = self._exchange(operation, "looking for the batch")
        assert isinstance(found, BatchFound)
        if found.status is not None:
            self._submitted(found.status)
            return
        complete_at = asked_at + round(self._own.find_after * 1000)
        if self._now() < complete_at:
            raise Later(complete_at, "looking for the batch: the provider's list may not have it yet")
        if found.certain:
            self._move("uploaded")
            return
        message = f"whether provider {self.batch.provider} has created the batch {self.batch.tag} cannot be found out"
        logger.error("%s; its requests may be paid for twice", message)
        self._give_up("unknown", "unknown_outcome", message, "failed")

    def _submitted(self, status: BatchStatus) -> None:
        self._move("submitted", batch_id=status.batch_id)
        if status.phase is BatchPhase.RUNNING:
            raise Later(self._next_poll(None), f"{self.batch.provider} has the batch {status.batch_id}")

    # --- while the provider has it ----------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        assert self.batch.batch_id is not None
        self._leave_late()
        if self._order(CountLive()) == 0 and not (self.batch.error or {}).get("cancelled"):
            self._cancel(self.batch.batch_id)
        try:
            status = self._ask(Exchange(self.batch.provider, PollBatch(self.batch.batch_id)))
        except CallFailedError as failed:
            if failed.error.kind is ErrorClass.NOT_FOUND:
                self._give_up(
                    "unknown",
                    "unknown_outcome",
                    f"the provider knows the batch no more: {failed.error.message}",
                    "failed",
                )
                return
            self._move("submitted", polls=self.batch.polls + 1)
            raise Later(
                self._next_poll(failed.error.retry_after), f"{failed.error.kind}: {failed.error.message}"
            ) from None
        assert isinstance(status, BatchStatus)
        match status.phase:
            case BatchPhase.ENDED:
                self._move("ended", results=status.results)
            case BatchPhase.FAILED if status.failure in (ErrorClass.RATE, ErrorClass.QUOTA, ErrorClass.AUTH):
                self._move("uploaded", polls=self.batch.polls + 1)
                raise Later(self._at(self._own.poll_cap), f"refused for now: {status.error}")
            case BatchPhase.FAILED:
                self._refused(status.error or "refused as a whole", status.bad_lines)
            case _:
                self._move("submitted", polls=self.batch.polls + 1)
                raise Later(
                    self._next_poll(None),
                    f"{self.batch.provider} has the batch {status.batch_id}: {status.done} of {status.total} done",
                )

    def _cancel(self, batch_id: str) -> None:
        """Nobody waits for what is not done by now. What the provider refuses to cancel has ended: looking at it says how."""
        try:
            self._ask(Exchange(self.batch.provider, CancelBatch(batch_id)))
        except CallFailedError as failed:
            if failed.error.kind not in OVER:
                self._come_back("cancelling the batch", failed.error)
        self._move("submitted", error={"cancelled": True, "message": "nobody waits for it any more"})

    def _refused(self, message: str, bad_lines: tuple[int, ...]) -> None:
        """Nothing of it ran. What is wrong is told apart from the rest, which goes again."""
        bad = self._spool.custom_ids(bad_lines)
        if bad:
            error = CallError(kind=ErrorClass.INVALID, message=message)
            self._order(Apply([batch_results.refused(request, error) for request in bad]))
            self._move("sealed")
            return
        if self._order(CountLive()) <= 1:
            error = CallError(kind=ErrorClass.INVALID, message=message)
            for state in ("waiting", "sent"):
                self._order(Apply([batch_results.refused(member.id, error) for member in self._members(state)]))
            self._give_up("failed", "invalid", message, "failed")
            return
        self._divide(message)

    def _divide(self, message: str) -> None:
        outcome = CallOutcome(state="failed", error_class="invalid", error={"class": "invalid", "message": message})
        if self.batch.error is None or "divided" not in self.batch.error:
            self._move(self.batch.state, error={"class": "invalid", "message": message})
        while self._order(Divide(outcome, (f"{self.batch.tag}-1", f"{self.batch.tag}-2"))):
            pass
        self.batch = self._order(LetDivided())
        self._give_up("failed", "invalid", message, "failed")

    # --- the results ------------------------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        if self._fetch():
            self._move("downloading", offset=0)

    def _fetch(self) -> bool:
        """Fetch all files of results. False: they are not to be had, and the batch is given up."""
        assert self.batch.batch_id is not None
        for place, ref in enumerate(self.batch.results):
            operation = FetchResults(batch_id=self.batch.batch_id, ref=ref, path=str(self._spool.results(place)))
            try:
                self._ask(Exchange(self.batch.provider, operation))
            except CallFailedError as failed:
                error = failed.error
                if error.kind is ErrorClass.NOT_FOUND and self.batch.polls >= GONE_AFTER:
                    logger.error("the results of batch %s cannot be had: %s", self.batch.batch_id, error.message)  # noqa: TRY400 - no bug of ours
                    self._give_up("unknown", "unknown_outcome", f"the results cannot be had: {error.message}", "failed")
                    return False
                self._come_back("fetching the results", error)
        return True

    def _apply(self) -> None:
        """Book the results page by page, and give those that have none back to be asked for again."""
        files = [self._spool.results(place) for place in range(len(self.batch.results))]
        offset = self.batch.offset
        if not all(file.exists() for file in files):
            if not self._fetch():
                return
            offset = 0  # results are known by their requests, so that reading them again changes nothing
        start = 0
        for file in files:
            size = file.stat().st_size
            if offset < start + size:
                self._apply_file(file, start, max(0, offset - start))
            start += size
        message = "the batch ended without a result for it"
        self._give_up("failed", "no_result", message, "applied")

    def _apply_file(self, file: Path, start: int, skip: int) -> None:
        with file.open("rb") as lines:
            lines.seek(skip)
            while page := _page(lines):
                results = list(self._form.results(iter(page), at_ms=self._now()))
                wanted = [result for result in results if isinstance(result, BatchResult)]
                for broken in results:
                    if isinstance(broken, CallError):
                        logger.warning("batch %s has a line that is no result: %s", self.batch.batch_id, broken.message)
                self._order(Apply(self._answered(wanted), offset=start + lines.tell()))

    def _answered(self, results: list[BatchResult]) -> list[Answered]:
        ids: dict[int | None, BatchResult] = {}
        for result in results:  # of two for the same request, an answer counts, whatever else is said of it
            request = batch_results.request_of(result.custom_id)
            if request not in ids or isinstance(ids[request].outcome, CallError):
                ids[request] = result
        known = self._order(FindMembers(tuple(request for request in ids if request is not None)))
        return [
            batch_results.answered(member, ids[member.id].outcome, self._settings)
            for member in known
            if ids[member.id].custom_id == f"{member.job_id}-{member.id}"
        ]

    def _give_up(self, state: str, kind: str, message: str, end: str) -> None:
        """Book this for all that have no answer, and let their jobs ask again."""
        error = {"class": kind, "message": message}
        while self._order(GiveUp(CallOutcome(state=state, error_class=kind, error=error))):
            pass
        self._move(end, error=None if end == "applied" else error)

    def _clean_up(self) -> None:
        """Nothing of it is kept, neither here nor there. What the provider will not delete now, it deletes in time."""
        batch = self.batch
        for name in self._form.kept(file_id=batch.file_id, batch_id=batch.batch_id, results=tuple(batch.results)):
            try:
                self._ask(Exchange(batch.provider, DeleteFile(name)))
            except CallFailedError as failed:
                logger.warning("%s of batch %d was not deleted: %s", name, batch.id, failed.error.message)
        self._spool.remove()

    # --- small things -----------------------------------------------------------------------------------------------------------------

    def _order(self, order: object) -> Any:
        return self._ask(OrderOnBoard(order))

    def _move(self, state: str, **known: Any) -> None:
        self.batch = self._order(Move(state=state, **known))

    def _exchange(self, operation: Operation, doing: str) -> Any:
        """Ask the provider; on any failure come back later and do it again."""
        try:
            return self._ask(Exchange(self.batch.provider, operation))
        except CallFailedError as failed:
            self._come_back(doing, failed.error)

    def _come_back(self, doing: str, error: CallError) -> NoReturn:
        self._move(self.batch.state, polls=self.batch.polls + 1)
        raise Later(self._next_poll(error.retry_after), f"{doing}: {error.kind}: {error.message}") from None

    def _leave_late(self) -> None:
        self._by_deadline = self._order(LeaveLate(round(self._own.deadline_margin * 1000)))

    def _at(self, seconds: float) -> int:
        at = self._now() + round(seconds * 1000)
        return at if self._by_deadline is None else min(at, max(self._now(), self._by_deadline))

    def _next_poll(self, retry_after: float | None) -> int:
        """When to ask again: more and more seldom, not all at the same moment, and not before the provider's word."""
        delay = min(self._own.poll_cap, self._own.poll * GROWTH ** min(self.batch.polls, 50))
        delay *= 0.9 + 0.2 * self._chance
        return self._at(max(delay, retry_after or 0.0))
