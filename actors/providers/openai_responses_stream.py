"""Reads a streamed answer of OpenAI Responses. Its events are numbered, so that it can go on with a second stream where the first broke off."""

import json
from collections.abc import Mapping
from typing import Any

from .adapter import optional_text
from .answer_stream import AnswerStream
from .errors import classify_in_body, malformed, parse_error
from .model import Billed, CallError, Completion, ErrorClass
from .openai_items import read_response
from .openai_shared import request_id_of
from .resume import Handle
from .sse import SSEEvent

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class OpenAIResponsesStream(AnswerStream):
    """One answer. The end is an event that says how it ended; what is not known is ignored, and a keep-alive is no progress."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._final: dict[str, Any] | None = None
        self._items: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        self.position: int | None = None
        """The number of the last event that was read."""

    @property
    def terminal(self) -> bool:
        """Whether the event that ends the answer, or an error, has come."""
        return self._final is not None or self._error is not None

    @property
    def handle(self) -> Handle | None:
        """What the call can be taken up by again, as soon as it is known."""
        return None if self._id is None else Handle(ref=self._id)

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the pieces of text in an event."""
        if self.terminal:
            return []
        try:
            data = json.loads(event.data)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            if event.event == "error":
                self._fail(parse_error({"error": event.data}))
            elif event.data.strip() != "[DONE]":  # which some compatible servers send here too
                self._error = malformed(
                    "an event of the stream is not a JSON object", partial=self.text, request_id=self._request_id
                )
            return []
        number = data.get("sequence_number")
        if isinstance(number, int) and not isinstance(number, bool):
            if self.position is not None and number <= self.position:
                return []  # seen before the connection was lost
            self.position = number
        return self._read(optional_text(data.get("type")) or event.event, data)

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome."""
        if self._error is not None:
            return self._error
        if self._final is None:
            return CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"the stream {'ended' if eof else 'broke off'} without response.completed: the answer is not complete",
                billed=Billed.YES if self._pieces else Billed.MAYBE,
                request_id=self._request_id,
                partial=self.text,
            )
        items = [self._item(index) for index in sorted(self._items)]
        return read_response(self._final, headers=self._headers, at_ms=self._at_ms, text=self.text, items=items)

    @property
    def _request_id(self) -> str | None:
        return request_id_of(self._headers)

    def _read(self, kind: str, data: dict[str, Any]) -> list[str]:
        if kind == "error" or (not kind.startswith("response.") and data.get("error")):
            self._fail(parse_error(data))
            return []
        response = data.get("response")
        if isinstance(response, dict):
            self._id = self._id or optional_text(response.get("id"))
            if kind in _ENDS:
                return self._end(kind, response)
        if kind in _ENDS:
            return self._end(kind, {})
        pieces = self._piece(kind, data)
        # All that has a family beneath it (response.output_text.delta, response.web_search_call.searching) is the model at work. What is
        # about the response as a whole (created, queued, in_progress), what only announces a part, and what is not known, is not.
        if kind.startswith("response.") and kind.count(".") > 1 and not kind.endswith(".added"):
            self._progress += 1
        self._pieces += pieces
        return pieces

    def _piece(self, kind: str, data: dict[str, Any]) -> list[str]:
        index = data.get("output_index")
        delta = data.get("delta")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            return [delta] if isinstance(delta, str) and delta else []
        if not isinstance(index, int):
            return []
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = data.get("item")
            if isinstance(item, dict):
                self._items[index] = item
                if kind.endswith(".done"):
                    self._arguments.pop(index, None)
        elif kind == "response.function_call_arguments.delta" and isinstance(delta, str):
            self._arguments.setdefault(index, []).append(delta)
        elif kind == "response.function_call_arguments.done" and isinstance(data.get("arguments"), str):
            self._arguments[index] = [data["arguments"]]
        return []

    def _end(self, kind: str, response: dict[str, Any]) -> list[str]:
        self._final = response if response.get("status") else {**response, "status": kind.removeprefix("response.")}
        if self._pieces:
            return []
        # Some servers stream nothing but the end.
        found = self.finish(eof=False)
        if not isinstance(found, Completion) or not found.text:
            return []
        self._progress += 1
        self._pieces.append(found.text)
        return [found.text]

    def _item(self, index: int) -> dict[str, Any]:
        item = self._items[index]
        return {**item, "arguments": "".join(self._arguments[index])} if index in self._arguments else item

    def _fail(self, said: Any) -> None:
        self._error = classify_in_body(
            said, headers=self._headers, at_ms=self._at_ms, partial=self.text, request_id=self._request_id
        )
