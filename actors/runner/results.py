"""The results of what a job waited on, as text for a prompt. Pure."""

import json
from collections.abc import Iterable

from ...persistence.lifecycle import JobState
from ...persistence.model import JobInput

RESULTS = "{results}"
"""What stands in a prompt for the results of the jobs it waited on."""


def results_text(inputs: Iterable[JobInput]) -> str:
    """The results of what a job waited on, as text to stand in a prompt, with a blank line between two.

    Of a chat its text, of anything else JSON. A failure is told where the policy was `continue`; what did not count is left out.
    """
    return "\n\n".join(text for text in map(_told, inputs) if text is not None)


def _told(given: JobInput) -> str | None:
    if given.ok:
        result = given.result
        if isinstance(result, str):
            return result
        if isinstance(result, dict) and isinstance(result.get("text"), str):
            return str(result["text"])
        return json.dumps(result, ensure_ascii=False)
    if given.counted and given.policy == "continue":
        why = (given.error or {}).get("message") or "no reason is known"
        state = "was cancelled" if given.state == JobState.CANCELLED else "failed"
        return f"[{given.name or f'job {given.job_id}'} {state}: {why}]"
    return None
