"""The neutral model's JSON forms: what the ledger has kept must be found again by every later release."""

import hashlib
import json
from dataclasses import asdict

from callboard.actors.providers.model import CallError, Completion, ErrorClass, Finish, Message, Request, Usage

REQUEST = Request(
    model="m-1",
    messages=(Message("system", "Be brief."), Message("user", "Grüße, 你好 🌊")),
    max_output=50,
    temperature=0.5,
    stop=("END",),
    extra={"a": {"b": [1, None]}},
)


def test_a_fingerprint_is_the_hash_of_every_field_but_how_it_is_sent() -> None:
    body = asdict(REQUEST)
    del body["stream"]
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    assert REQUEST.fingerprint() == hashlib.sha256(text.encode()).hexdigest()
    assert REQUEST.fingerprint() == "4f3ac5d6f7c247424f51f65435880961ab0c63159bfc8bfaf343cd77244f607d"


def test_a_completion_comes_back_from_json() -> None:
    usage = Usage(input_uncached=3, output_visible=4)
    completion = Completion(text="Hallo.", finish=Finish.STOP, usage=usage, model="m-1", total_ms=12)
    assert completion.to_json() == asdict(completion)
    assert Completion.from_json(json.loads(json.dumps(completion.to_json()))) == completion
    without = Completion(text="", finish=Finish.STOP)
    assert Completion.from_json(without.to_json()) == without


def test_an_error_says_what_it_knows() -> None:
    error = CallError(kind=ErrorClass.RATE, message="too many", http=429, retry_after=1.5, partial="half an")
    told = error.to_json()
    assert told["class"] == "rate"
    assert (told["message"], told["http"], told["retry_after"], told["sent"]) == ("too many", 429, 1.5, True)
    assert "partial" not in told
    assert "code" not in told
