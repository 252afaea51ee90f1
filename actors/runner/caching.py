"""The part of a runner that looks whether an answer is there already, before a call is made: kept from before, or on its way to another job.

    effect, cache on: LOOKING ─kept→ answer the handler      ─missed→ RESERVING …, the answer is kept
                              ─awaited→ LOOKING again when the other call has ended

It looks before the limiter is asked and a budget is reserved, so that an answer that is there costs nothing of either. It waits for another's call no
longer than its own may take, and looks by itself every `LOOK_EVERY` seconds: that call may be another process's, or its maker dead.
"""

import hashlib
import json
from typing import Any

from ...persistence.model import CallOutcome
from ..messages import (
    STORE,
    AnswerAwaited,
    AnswerDue,
    AnswerKept,
    AnswerMissed,
    CallRemembered,
    LeaveFlight,
    LookUpAnswer,
)
from ..providers.model import AnyRequest, Completion, Finish, Request, answer_from_json
from ..settings import Route
from . import booking
from .calling import CallingActor
from .effects import CallModel
from .structured import checker, read_answer
from .work import Call, LookDue, Looking, Stage, Work

LOOK_EVERY = 0.25
_KEPT = frozenset({None, Finish.STOP, Finish.TOOL})
"""How an answer must have ended to be given again; vectors do not say."""
_HINTS = ("stream", "cache_key", "cache_ttl")


def key_of(request: AnyRequest, where: Route, account: str) -> str:
    """What must be the same for an answer to be the same: a SHA-256 over the request, the provider's `account`, and what its model refuses.

    How the answer is delivered, and what the provider keeps of the prompt or wants back of its own reasoning, does not count.
    """
    body = request.to_json()
    for name in _HINTS:
        body.pop(name, None)
    for message in body.get("messages", ()):
        if isinstance(message["content"], list):
            parts = (part for part in message["content"] if part.get("type") != "opaque")
            message["content"] = [{name: value for name, value in part.items() if name != "opaque"} for part in parts]
    told = [where.provider, account, sorted(where.unsupported), body]
    return hashlib.sha256(
        json.dumps(told, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def worth_keeping(request: AnyRequest, outcome: CallOutcome) -> bool:
    """Whether an answer is one to be given again: whole, neither refused nor filtered, and as its schema wants it."""
    if outcome.state != "completed" or outcome.finish not in _KEPT or outcome.completion is None:
        return False
    if not isinstance(request, Request) or request.schema is None or outcome.completion.get("tool_calls"):
        return True
    check = checker(json.dumps(request.schema, sort_keys=True))
    return read_answer(outcome.completion["text"], request.schema, check)[1] is None


class CachingActor(CallingActor):
    """Makes no call whose answer is there."""

    def receive_of_calls(self, message: object) -> None:
        """Dispatch what concerns answers that are there; the rest concerns calls."""
        match message:
            case AnswerKept(ref, kept):
                self._with_call(ref, Stage.LOOKING, lambda work, call: self._on_kept(work, call, kept))
            case AnswerMissed(ref, leads):
                self._with_call(ref, Stage.LOOKING, lambda work, call: self._on_missed(work, call, leads=leads))
            case AnswerAwaited(ref):
                self._with_call(ref, Stage.LOOKING, lambda _, call: self._on_awaited(call))
            case AnswerDue(ref) | LookDue(ref):
                self._with_call(ref, Stage.LOOKING, self._look)
            case CallRemembered(ref, kept):
                self._with_call(ref, Stage.LOOKING, lambda work, call: self._on_kept(work, call, kept))
                self._with_call(ref, Stage.INTENDING, lambda _, call: self._leave_flight(call))
                super().receive_of_calls(message)
            case _:
                super().receive_of_calls(message)

    def _begin_call(self, work: Work, call: Call) -> None:
        self._leave_flight(call)
        if call.kept is not None or self._max_age(work, call) <= 0:
            self._make(work, call)
            return
        account = self._settings.providers[call.route.provider].base_url
        call.looking = Looking(key_of(call.request, call.route, account), self.monotonic())
        self._look(work, call)

    def _max_age(self, work: Work, call: Call) -> float:
        """Seconds; 0 for a call that is given no old answers."""
        for said in (call.effect.cache if isinstance(call.effect, CallModel) else None, work.job.options.cache):
            if said is not None:
                return said
        return self._settings.cache.max_age or 0.0

    def _look(self, work: Work, call: Call) -> None:
        assert call.looking is not None
        call.stage = Stage.LOOKING
        self._stop_timer(call)
        patience = booking.timeouts_of(work.job, self._settings).total
        order = LookUpAnswer(
            reply_to=self.name,
            call=call.ref,
            key=call.looking.key,
            intent=booking.intent_of(call.effect, call.request, call.route, call.charge),
            max_age_ms=round(self._max_age(work, call) * 1000),
            waits=patience is None or self.monotonic() - call.looking.since < patience,
        )
        self.tell(STORE, order)

    def _on_kept(self, work: Work, call: Call, kept: dict[str, Any]) -> None:
        self._stop_timer(call)
        del work.calls[call.ref]
        answer = answer_from_json(kept)
        if isinstance(answer, Completion) and answer.text:
            work.note_text(call.effect.step, answer.text)
            self._flush_text(work)
        self._tell_handler(work, call, answer)
        self._leave_to_wait(work)

    def _on_missed(self, work: Work, call: Call, *, leads: bool) -> None:
        assert call.looking is not None
        self._stop_timer(call)
        call.looking.ref = call.ref if leads else None
        self._make(work, call)

    def _on_awaited(self, call: Call) -> None:
        assert call.looking is not None
        call.looking.timer = self.after(LOOK_EVERY, LookDue(call.ref))

    def _cached_as(self, call: Call, outcome: CallOutcome) -> tuple[str | None, bool]:
        looking, call.looking = call.looking, None
        if looking is None:
            return None, False
        return looking.key, worth_keeping(call.request, outcome)

    def _leave_flight(self, call: Call) -> None:
        """It will ask something else than what it took the lead for."""
        if call.looking is not None and call.looking.ref is not None:
            self.tell(STORE, LeaveFlight(call.looking.ref, call.looking.key))
        call.looking = None

    def _stop_timer(self, call: Call) -> None:
        if call.looking is not None and call.looking.timer is not None:
            self.cancel(call.looking.timer)
            call.looking.timer = None
