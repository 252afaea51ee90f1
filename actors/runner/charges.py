"""What a call takes from its limits, by each provider's own formula (reference B.1-B.4). Pure.

Before the call it is an estimate on the safe side; afterwards the real usage, as far as the provider corrects its own count by it.
"""

from ..messages import Charge
from ..providers.estimate import estimate_input_tokens
from ..providers.model import AnyRequest, CallError, EmbeddingRequest, ErrorClass, Usage
from ..settings import Route

ASSUMED_OUTPUT = 512
"""Tokens reserved for the answer of a call that sets no `max_output`, until the limiter knows what such calls take."""

_UNPROCESSED = frozenset(
    {
        ErrorClass.INVALID,
        ErrorClass.NOT_FOUND,
        ErrorClass.AUTH,
        ErrorClass.QUOTA,
        ErrorClass.RATE,
        ErrorClass.TOO_LARGE,
        ErrorClass.CONTEXT,
    }
)
_NEVER_LEFT = Charge(requests=0)


def output_at_most(request: AnyRequest, *, assumed: int = ASSUMED_OUTPUT) -> int:
    """Tokens of output to reserve for a call, `assumed` where it sets no limit; vectors are not counted as output."""
    return 0 if isinstance(request, EmbeddingRequest) else request.max_output or assumed


def assumed_output(request: AnyRequest) -> int:
    """How much of that is a guess."""
    return output_at_most(request) - output_at_most(request, assumed=0)


def charge_of(request: AnyRequest, route: Route) -> Charge:
    """What to reserve.

    OpenAI charges the larger of the output limit and its estimate of the input when it admits a request. The others count what is read and
    what is written, each by itself or together, of which the most is reserved.
    """
    tokens_in, tokens_out = estimate_input_tokens(request), output_at_most(request)
    total = max(tokens_in, tokens_out) if route.charges_on_admission else tokens_in + tokens_out
    return Charge(1, tokens_in, tokens_out, total)


def used_by(usage: Usage | None, charge: Charge, route: Route) -> Charge | None:
    """What an answered call really took; None if the provider did not say.

    OpenAI gives nothing back of what it charged on admission. Anthropic does not count what was read from its cache.
    """
    if usage is None:
        return None
    tokens_in = usage.input_uncached + usage.cache_write + usage.cache_write_1h
    if route.wire != "anthropic-messages":
        tokens_in += usage.cache_read
    tokens_out = usage.output_visible + usage.output_reasoning
    total = tokens_in + tokens_out
    return Charge(1, tokens_in, tokens_out, max(total, charge.total) if route.charges_on_admission else total)


def used_by_failed(error: CallError) -> Charge | None:
    """What a failed call took: nothing if it never left, a request if it was refused before the model saw it, else all it reserved."""
    if not error.sent:
        return _NEVER_LEFT
    return Charge() if error.kind in _UNPROCESSED else None
