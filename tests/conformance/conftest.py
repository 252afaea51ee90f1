"""The wire formats under test: each a module of data in `wires/`, which says what its provider sends, byte for byte.

A wire module defines:

- `WIRE`, and `BASE`: what the base URL ends in. `FRAMING`: sse or ndjson.
- `text_stream(text, usage=True)`, `text_body(text, usage=True)`: an answer of USAGE's tokens by model "m1"; the stream in one piece for
  each character, with keep-alives where the format has any. `END`: how many bytes at its end are the terminal marker.
- `calls_stream(calls)`, `calls_body(calls)`: an answer that calls tools, each (id, name, arguments), the arguments in pieces.
- `reasoned_stream()`, `reasoned_body()`: the answer "4" after reasoning, which is in `OPAQUE` as it must come back.
- `FINISHES`: what the format calls the reasons to stop; `finish_stream(raw)`, `finish_body(raw)` give an answer that stopped for it.
- `ERRORS`: (status, body, class, scope) of refusals. `STREAM_ERRORS`: (bytes, class) of errors after the first piece of a stream.
- `KEEP_ALIVES`: bytes that mean nothing.
- `NEVER`: fields of a request that the format has not.
- `said(body)`: what an encoded body says in neutral words: {"tools": names, "schema": …, "system": …, "turns": [(role, [kind, …])]}.
- over HTTP: `FILTERED`, `REFUSED`: how such answers end; `REQUEST_ID`, `RESPONSE_ID`, `LIMITS`: whether replies say these;
  `CANNOT`: faults of the simulator that the format cannot tell from others.
"""

import importlib.util
from pathlib import Path

import pytest


def _load(path):
    spec = importlib.util.spec_from_file_location(f"conformance_wire_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WIRES = [_load(path) for path in sorted(Path(__file__).with_name("wires").glob("*.py"))]


@pytest.fixture(scope="session", params=WIRES, ids=lambda module: module.WIRE)
def wire(request):
    return request.param
