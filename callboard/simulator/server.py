"""The server: connections, routes, and the playing of replies. What is played is decided in `replies.py`.

One event loop owns all state. Order of a model request: journalled, counted, key, body, model, limits, fault, reply: so a request that
the provider would refuse meets no fault, and a fault is charged against the limits as the providers charge failed requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11

from . import batch_routes, routes
from .background import Background
from .batches import Batches, OrderError
from .buckets import Limits
from .config import SimulatorConfig
from .faults import WHOLE, FaultError, FaultRule, choose, read_rule
from .http import MAX_BODY_BYTES, ClientGoneError, HttpConnection, Request, WatchedProtocol
from .journal import Journal, fingerprint, redacted
from .play import play
from .replies import Reply, build_reply, plain, refusal
from .stats import Stats
from .wire import Call, Headers, Wire, WireError, answer_to, dump

_log = logging.getLogger("callboard.simulator")
_ADMIN = "/_simulator/"
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the limits, windows and timestamps take their time from. The pace of a stream is real time, always."""

    monotonic: Callable[[], float] = time.monotonic
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class SimulatorServer:
    """One simulator on the running event loop. Nothing of it may be touched from another thread; `Simulator` does that safely.

    `changed` is called on the event loop after every request's arrival and end.
    """

    def __init__(self, config: SimulatorConfig, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._clock = clock
        self._rules: list[FaultRule] = [read_rule(rule) for rule in config.faults]
        self._barriers: dict[FaultRule, list[asyncio.Future[None]]] = {}
        self._limits: dict[tuple[str, str, str], Limits] = {}
        self._stats = Stats(config.window_seconds)
        self._journal = Journal(config.journal, changed)
        self._batches = Batches(config)
        self._background = Background(config)
        self._requests = 0
        self._connections: dict[asyncio.Task[None], HttpConnection] = {}
        self._stopping = False
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Bind, open the journal and listen. Raises OSError when the port is taken or the journal cannot be opened."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: WatchedProtocol(self._connected),
            "127.0.0.1",
            self._config.port,
            backlog=_BACKLOG,
            start_serving=False,
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            self._journal.started(self._clock.now_ms(), self.url)
        except OSError:
            server.close()
            raise
        self._server = server
        await server.start_serving()

    async def stop(self) -> None:
        """Stop listening, abort every connection and journal what was open as `stopped`."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for connection in self._connections.values():
            connection.abort()
        if self._connections:
            await asyncio.wait(list(self._connections))
        self._journal.close()

    def journal(self) -> list[dict[str, Any]]:
        """Return the requests seen, oldest first."""
        return self._journal.entries()

    def stats(self) -> dict[str, Any]:
        """Return the counts."""
        return {**self._stats.report(), **self._batches.report()}

    def faults(self) -> list[dict[str, Any]]:
        """Return the rules with their counts."""
        return [rule.describe() for rule in self._rules]

    def add_faults(self, rules: list[Any]) -> None:
        """Append rules, all of them or none. Raises FaultError."""
        self._rules += [read_rule(rule) for rule in rules]

    def clear_faults(self) -> None:
        """Forget all rules. Requests that a fault already holds stay held; those at a barrier are released."""
        self._rules.clear()
        for waiting in self._barriers.values():
            _release(waiting)

    def batches(self, orders: list[Any]) -> list[dict[str, Any]]:
        """Do what is ordered, and return every batch. Raises OrderError."""
        for order in orders:
            self._batches.order(order, self._clock.now_ms())
        return self._batches.describe()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = HttpConnection(reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def _serve(self, connection: HttpConnection) -> None:
        try:
            while (request := await connection.next_request()) is not None:
                if request.path.startswith(_ADMIN):
                    await play(connection, self._administer(request), _ignore)
                else:
                    await self._answer(connection, request)
                if not connection.reusable:
                    break
        except ConnectionError:
            pass
        except h11.RemoteProtocolError as error:
            if connection.can_reply:
                body = dump(
                    {
                        "error": {
                            "message": f"not HTTP/1.1: {error}",
                            "type": "invalid_request_error",
                            "param": None,
                            "code": None,
                        }
                    }
                )
                await _last_words(connection, plain(400, body, [("connection", "close")]))
        except Exception:  # noqa: BLE001 - one bad request must not end the server
            _log.exception("the simulator failed on a request; its connection is aborted")
            connection.abort()
        finally:
            connection.close()

    async def _answer(self, connection: HttpConnection, request: Request) -> None:
        """Answer anything but the simulator's own endpoints, journalled."""
        self._requests += 1
        number = self._requests
        request_id = f"req_sim_{number}"
        route = routes.find(request.method, request.path)
        wire, model = route or (routes.wire_of(request.path, request.by_name), None)
        body = _parsed(request.body)
        model = model or (body.get("model") if isinstance(body, dict) else None)
        entry: dict[str, Any] = {
            "n": number,
            "at": self._clock.now_ms(),
            "wire": wire.name,
            "path": request.path,
            "model": model if isinstance(model, str) else None,
            "headers": redacted(request.headers),
            "body": body,
            "request_id": request_id,
            "fault": None,
        }
        self._journal.arrived(entry, request.body)
        exchange = _Exchange(connection, request, wire, body, entry, number, request_id, time.monotonic())
        try:
            if route is not None:
                await self._complete(exchange)
            else:
                await self._other(exchange)
        except ConnectionError:
            exchange.outcome = "stopped" if self._stopping else "aborted_by_client"
            if exchange.connection.can_reply:
                exchange.status = None
            raise
        except BaseException:
            exchange.outcome = "failed"
            raise
        finally:
            usage = {"input_tokens": exchange.input_tokens, "output_tokens": exchange.output_tokens}
            self._journal.ended(
                entry,
                status=exchange.status,
                outcome=exchange.outcome,
                fault=entry["fault"],
                usage=usage,
                ended_at=self._clock.now_ms(),
            )
            if route is not None:
                self._stats.ended("invalid" if exchange.invalid else exchange.outcome)

    async def _complete(self, exchange: _Exchange) -> None:
        wire, now = exchange.wire, self._clock.monotonic()
        key = wire.api_key(exchange.request.by_name)
        account = (wire.name, fingerprint(key) if key else "", exchange.entry["model"] or "")
        try:
            call = self._read(exchange, key)
        except WireError as error:
            self._stats.attempted(account, 0, now)
            exchange.invalid = True
            # Whoever has no valid key is told nothing of limits.
            known = error.status != 401
            levels = self._limits_of(wire, account, now).levels(now) if known else {}
            await self._refuse(exchange, error, wire.limit_headers(levels, self._clock.now_ms()))
            return
        charges = wire.charges(call)
        tokens = sum(amount for name, amount in charges.items() if not name.startswith("requests"))
        self._stats.attempted(account, tokens, now, charges)
        limits = self._limits_of(wire, account, now)
        rejection = limits.admit(charges, now)
        reported = wire.limit_headers(limits.levels(now), self._clock.now_ms())
        if rejection is not None:
            self._stats.rejected(account)
            headers = [] if math.isinf(rejection.wait_seconds) else wire.retry_headers(rejection.wait_seconds)
            await self._refuse(exchange, wire.too_many(rejection, call.model), headers + reported)
            return
        self._stats.admitted(account, tokens, now)
        output = wire.output_dimension()

        def produced(count: int) -> None:
            exchange.output_tokens += count
            if output is not None and count:
                at = self._clock.monotonic()
                limits.charge(output, count, at)
                self._stats.produced(account, output, count, at)

        try:
            exchange.input_tokens = call.input_tokens
            await self._reply(exchange, call, reported, produced)
        finally:
            limits.release()
            self._stats.left(account)

    async def _reply(self, exchange: _Exchange, call: Call, reported: Headers, produced: Callable[[int], None]) -> None:
        rule = choose(self._rules, call.all_text, call.model, exchange.wire.name)
        fault = rule.fault if rule else None
        if rule is not None and fault is not None:
            exchange.entry["fault"] = fault.kind
            if fault.kind == "barrier":
                await self._wait_at_barrier(rule, exchange.connection)
        created = self._clock.now_ms() // 1000
        answer = answer_to(call, self._config)
        reply = self._background.begin(
            exchange.wire,
            exchange.body,
            call,
            answer,
            fault,
            number=exchange.number,
            created=created,
            key=exchange.wire.api_key(exchange.request.by_name),
            now=time.monotonic(),
        ) or build_reply(
            exchange.wire, call, answer, self._config, fault, exchange.number, exchange.request_id, created
        )
        reply.headers += exchange.headers() + reported
        exchange.status = reply.status if reply.has_headers else None
        exchange.outcome = "completed" if fault is None or fault.kind in WHOLE else f"fault:{fault.kind}"
        await play(exchange.connection, reply, produced)

    def _read(self, exchange: _Exchange, key: str) -> Call:
        """Return the call. Raises WireError when the provider would refuse it."""
        wire = exchange.wire
        if self._config.keys and key not in self._config.keys:
            raise wire.key_refused(key)
        if exchange.request.too_large:
            raise WireError(413, f"Request body is larger than {MAX_BODY_BYTES} bytes.")
        call = wire.read(exchange.body, exchange.request.by_name)
        if self._config.models and call.model not in self._config.models:
            raise wire.model_unknown(call.model)
        return call

    async def _other(self, exchange: _Exchange) -> None:
        """Answer what is not a completion: the model list, or a path or method that does not exist."""
        request, wire = exchange.request, exchange.wire
        key = wire.api_key(request.by_name)
        batch = batch_routes.find(self._batches, request)
        kept = self._background.find(request)
        if batch is not None:
            await self._about_batch(exchange, batch, key)
        elif kept is not None:
            await self._about_response(exchange, kept, key)
        elif request.path not in routes.MODEL_LISTS and not routes.known(request.path):
            # The usual code of a 404 names a model, which an unknown path has not.
            error = WireError(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")
            await self._refuse(exchange, error, [])
        elif request.path not in routes.MODEL_LISTS or request.method != "GET":
            error = WireError(405, f"Not allowed to {request.method} on {request.path}.", kind="invalid_request_error")
            await self._refuse(exchange, error, [])
        elif self._config.keys and key not in self._config.keys:
            await self._refuse(exchange, wire.key_refused(key), [])
        else:
            exchange.status, exchange.outcome = 200, "completed"
            await play(exchange.connection, plain(200, wire.models(self._config.models), exchange.headers()), _ignore)

    async def _about_batch(self, exchange: _Exchange, endpoint: batch_routes.Endpoint, key: str) -> None:
        wrong: WireError | None = None
        if self._config.keys and key not in self._config.keys:
            wrong = exchange.wire.key_refused(key)
        elif exchange.request.too_large:
            wrong = WireError(413, f"Request body is larger than {MAX_BODY_BYTES} bytes.")
        else:
            try:
                reply, fault = endpoint.answer(
                    exchange.body, now=self._clock.now_ms(), url=self.url, headers=exchange.headers()
                )
            except WireError as error:
                wrong = error
        if wrong is not None:
            await self._refuse(exchange, wrong, [])
            return
        exchange.entry["fault"] = fault
        exchange.status = reply.status if reply.has_headers else None
        exchange.outcome = "completed" if fault is None else f"fault:{fault}"
        await play(exchange.connection, reply, _ignore)

    async def _about_response(self, exchange: _Exchange, answer: Callable[..., Reply], key: str) -> None:
        if self._config.keys and key not in self._config.keys:
            await self._refuse(exchange, exchange.wire.key_refused(key), [])
            return
        about = self._background.text_of(exchange.request) if exchange.request.method == "GET" else None
        rule = None if about is None else choose(self._rules, *about, exchange.wire.name)
        fault = rule.fault if rule else None
        try:
            reply = answer(key=key, now=time.monotonic(), fault=fault)
        except WireError as error:
            await self._refuse(exchange, error, [])
            return
        exchange.entry["fault"] = fault and fault.kind
        reply.headers += exchange.headers()
        exchange.status = reply.status if reply.has_headers else None
        exchange.outcome = "completed" if fault is None or fault.kind in WHOLE else f"fault:{fault.kind}"
        await play(exchange.connection, reply, _ignore)

    async def _refuse(self, exchange: _Exchange, error: WireError, headers: Headers) -> None:
        exchange.status, exchange.outcome = error.status, "rejected"
        await play(
            exchange.connection,
            refusal(exchange.wire, error, exchange.request_id, exchange.headers() + headers),
            _ignore,
        )

    def _limits_of(self, wire: Wire, account: tuple[str, str, str], now: float) -> Limits:
        found = self._limits.get(account)
        if found is None:
            found = Limits(wire.limits(self._config), self._config.concurrency, self._config.window_seconds, now)
            self._limits[account] = found
        return found

    async def _wait_at_barrier(self, rule: FaultRule, connection: HttpConnection) -> None:
        """Hold a request until as many as the rule says are held; then release them all, and hold the next ones anew."""
        waiting = self._barriers.setdefault(rule, [])
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(released)
        if len(waiting) >= rule.fault["n"]:
            _release(waiting)
        try:
            await connection.wait_for(released)
        finally:
            if released in waiting:
                waiting.remove(released)

    def _administer(self, request: Request) -> Reply:
        """Answer one of the simulator's own endpoints, which have no key: the server binds the loopback address only."""
        route = (request.method, request.path.removeprefix(_ADMIN))
        try:
            if route == ("GET", "journal"):
                return plain(200, dump(self.journal()), [])
            if route == ("GET", "stats"):
                return plain(200, dump(self.stats()), [])
            if route[1] == "batches":
                return batch_routes.administer(self._batches, request, self._clock.now_ms())
            if route == ("DELETE", "faults"):
                self.clear_faults()
            elif route == ("POST", "faults"):
                rules = json.loads(request.body)
                self.add_faults(rules if isinstance(rules, list) else [rules])
            elif route != ("GET", "faults"):
                return plain(
                    404,
                    dump({"error": {"message": f"no {request.method} {request.path} here; see docs/simulator.md"}}),
                    [],
                )
            return plain(200, dump(self.faults()), [])
        except (FaultError, OrderError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            return plain(400, dump({"error": {"message": str(error)}}), [])


@dataclass(slots=True)
class _Exchange:
    """A request and what became of it."""

    connection: HttpConnection
    request: Request
    wire: Wire
    body: Any
    entry: dict[str, Any]
    number: int
    request_id: str
    began: float
    status: int | None = None
    outcome: str = "completed"
    invalid: bool = False
    input_tokens: int = 0
    output_tokens: int = 0

    def headers(self) -> Headers:
        return self.wire.headers(self.request_id, round((time.monotonic() - self.began) * 1000))


async def _last_words(connection: HttpConnection, reply: Reply) -> None:
    try:
        await play(connection, reply, _ignore)
    except (ClientGoneError, ConnectionError, h11.LocalProtocolError):
        return


def _ignore(_tokens: int) -> None:
    """Count no tokens: the reply has none."""


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for released in waiting:
        if not released.done():
            released.set_result(None)
    waiting.clear()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
