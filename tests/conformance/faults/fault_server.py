"""A server that speaks each wire byte for byte and misbehaves exactly as told, over plain and TLS sockets on the loopback.

The first folder of a request's path names the fault; what it does is in `fault_table.py`. What fails before a request can be read (resets, TLS,
nobody there) has a port of its own. One event loop in one thread serves all of it.
"""

import asyncio
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import Counter, defaultdict

WAIT = 20.0


class Peer:
    """One request that was read whole, and the means to answer it badly. `kinds`: how many of each kind its fault has had, as its act counts them.

    `kept` is what the fault's server has from one request to the next.
    """

    def __init__(self, name, number, head, body, kinds, kept, reader, writer):
        self.name, self.number, self.head, self.body, self.kinds, self.kept = name, number, head, body, kinds, kept
        self.method, self.path = head.decode("latin-1").split(" ", 2)[:2]
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body=b"", status="200 OK", headers=("content-type: application/json",), *, length=None):
        """A whole reply. A `length` that is more than the body's has the connection end before the body does."""
        said = len(body) if length is None else length
        await self.send(
            "\r\n".join(["HTTP/1.1 " + status, *headers, f"content-length: {said}", "", ""]).encode("latin-1")
        )
        await self.send(body)
        if length is not None:
            self.close()

    async def open(self, wire, *headers):
        """The head of a stream."""
        media = "application/x-ndjson" if wire == "ollama" else "text/event-stream"
        lines = ["HTTP/1.1 200 OK", f"content-type: {media}", "transfer-encoding: chunked", *headers, "", ""]
        await self.send("\r\n".join(lines).encode("latin-1"))

    async def chunk(self, data):
        if data:
            await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def stream(self, wire, *pieces, headers=()):
        """A stream that ends as HTTP wants it, whatever is in it."""
        await self.open(wire, *headers)
        for piece in pieces:
            await self.chunk(piece)
        await self.send(b"0\r\n\r\n")

    async def pause(self, seconds):
        """The pace of a stream that never ends."""
        await asyncio.sleep(seconds)

    def now(self):
        return time.time()

    def host(self):
        return next(line for line in self.head.decode().split("\r\n") if line.lower().startswith("host:"))[5:].strip()

    async def end(self, how):
        """End a chunked reply: "whole" as HTTP wants it, "stall" (it stands still), "reset", or cut."""
        if how == "whole":
            await self.send(b"0\r\n\r\n")
        elif how == "stall":
            await self.stall()
        elif how == "reset":
            self.reset()
        else:
            self.close()

    async def stall(self):
        """Say nothing more until the client has gone."""
        while await self.reader.read(65536):
            pass

    def close(self):
        self.writer.close()

    def reset(self):
        """End with RST instead of FIN."""
        linger(self.writer)
        self.writer.transport.abort()


def linger(writer):
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class FaultServer:
    """`acts`: what to do with a request, by the fault it names. `seen` counts the requests that were read whole, by fault."""

    def __init__(self, acts, certificates):
        self._acts = acts
        self.seen = Counter()
        self.kinds = defaultdict(Counter)
        self.kept = defaultdict(dict)
        self.bodies = {}
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # broken handshakes are what this is about
        self._thread = threading.Thread(target=self.loop.run_forever, name="fault-server", daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task] = set()
        self._servers, self._sockets = [], []
        self.ports = {
            "http": self._listen(self._serve),
            "not-tls": self._listen(self._answer_unasked),
            "no-handshake": self._listen(self._drop),
            "silent-tls": self._listen(self._hold),
            "reset-first": self._listen(self._reset_first),
            "reset-after": self._listen(self._reset_after),
            "mute": self._listen(self._drop),
            "garbage": self._listen(self._garbage),
            "refused": self._nobody(),
            "full": self._full(),
            **{port: self._listen(self._serve, context) for port, context in certificates.items()},
        }

    def _listen(self, handle, context=None):
        made = asyncio.start_server(self._tracked(handle), "127.0.0.1", 0, backlog=500, ssl=context)
        server = asyncio.run_coroutine_threadsafe(made, self.loop).result(WAIT)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def _tracked(self, handle):
        async def run(reader, writer):
            self._tasks.add(asyncio.current_task())
            try:
                await handle(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
                pass
            finally:
                writer.transport.abort()

        return run

    async def _serve(self, reader, writer):
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            body = await reader.readexactly(length)
            name = head.split(b" ", 2)[1].split(b"/")[1].decode()
            self.seen[name] += 1
            await self._acts[name](
                Peer(name, self.seen[name], head, body, self.kinds[name], self.kept[name], reader, writer)
            )

    async def _answer_unasked(self, reader, writer):
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _drop(self, reader, writer):
        await reader.read(65536)

    async def _hold(self, reader, writer):
        while await reader.read(65536):
            pass

    async def _reset_first(self, reader, writer):
        await reader.readexactly(1)
        linger(writer)

    async def _reset_after(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.seen[head.split(b" ", 2)[1].split(b"/")[1].decode()] += 1
        linger(writer)

    async def _garbage(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.seen[head.split(b" ", 2)[1].split(b"/")[1].decode()] += 1
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _nobody(self):
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            return reserved.getsockname()[1]

    def _full(self):
        """A listener that accepts nothing and whose queue is full: a connection to it is never made."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._sockets.append(listener)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self._sockets.append(filler)
        return listener.getsockname()[1]

    def close(self):
        async def end():
            for server in self._servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(WAIT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT)
        self.loop.close()
        for held in self._sockets:
            held.close()


def make_certificates(path):
    """Contexts of servers, and the file of the authorities that the client is to trust. Needs the openssl command."""
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

    def certificate(name):
        named = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        files = path / f"{name}.key", path / f"{name}.crt"
        subprocess.run(
            ["openssl", *made, *named, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True
        )
        return files

    def context(files):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(files[1], files[0])
        return made

    good, other = certificate("localhost"), certificate("other.example.org")
    (path / "elsewhere").mkdir()
    unknown = path / "elsewhere" / "key", path / "elsewhere" / "crt"
    subprocess.run(
        [
            "openssl",
            *made,
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            unknown[0],
            "-out",
            unknown[1],
        ],
        check=True,
        capture_output=True,
    )
    old = context(good)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("NULL-SHA256:@SECLEVEL=0")
    trusted = path / "trusted.pem"
    trusted.write_bytes(good[1].read_bytes() + other[1].read_bytes())
    contexts = {"tls": context(good), "wrong-host": context(other), "self-signed": context(unknown), "old-tls": old}
    return contexts, trusted
