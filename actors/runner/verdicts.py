"""How what a handler returned or raised becomes a verdict on its job. Pure."""

import json
import traceback
from collections.abc import Callable
from typing import Any

from ...persistence.errors import InvalidJobError
from ...persistence.model import Said
from ..messages import Complete, Fail, Verdict
from ..providers.keys import redact
from .chat import InvalidDataError
from .effects import CallFailedError
from .structured import NOT_FOLLOWED

MAX_MESSAGE = 4096
_FRAMES = 5


def result_verdict(value: Any, said: Said | None = None) -> Verdict:
    """Completed, if the value has a JSON form; else failed for good, because a second run would return the same."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"the handler's result has no JSON form: {error}"
        return Fail({"class": "result", "message": reason}, reason)
    return Complete(value, said)


def verdict_of(error: BaseException, again: Callable[[dict[str, Any], str], Verdict]) -> Verdict:
    """Failed for good for bad data and for a call that no retry would heal; `again`, of the stored error and the reason, for everything else.

    What is kept of an exception is its type, its redacted message and its last frames: no values of variables.
    """
    match error:
        case InvalidDataError() | InvalidJobError():
            return Fail({"class": "invalid", "message": str(error)}, str(error))
        case CallFailedError():
            failed = error.error.to_json()
            if error.error.code == NOT_FOLLOWED:  # the last answer, for whoever looks into why
                failed["text"] = error.error.partial[:MAX_MESSAGE]
            return Fail(failed, str(error))
    message = redact(str(error))[:MAX_MESSAGE]
    reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    told = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return again({"class": "handler", "message": reason, "frames": told}, reason)
