#!/usr/bin/env python3
"""A whole Boki worker in Python's standard library: docs/worker-protocol.md as code. It offers `echo`;
conformance/reference.py adds the functions of docs/conformance.md, and the suite proves that this page is right."""
import asyncio, functools, json, os, random, signal, struct

HELLO, HELLO_OK, PING, PONG, ERROR, CANCEL, CALL, CALL_RESULT, CALL_ACCEPTED = *range(1, 7), 32, 33, 34
APPEND, APPENDED, READ, RECORDS, TAIL, TAIL_IS, TAGS, TAGS_ARE, SET_AUX, AUX_SET = range(8, 18)
(REGISTER, REGISTERED, INVOKE, INVOKE_DONE, INVOKE_CANCEL, WORKER_LOG, DRAIN,
 INVOKE_INPUT, INPUT_CREDIT, OUTPUT_HEAD, OUTPUT_DATA, OUTPUT_CREDIT) = range(64, 76)
POSITION_AT = {APPENDED: 8, RECORDS: 0, TAIL_IS: 8, TAGS_ARE: 0, CALL_RESULT: 16, CALL_ACCEPTED: 16}  # in an answer's body
WINDOW, PIECE, MAX_BODY, CONCURRENCY, REGISTRATION = 256 << 10, 64 << 10, 32 << 20, 4, 1  # the last is a corr

# -- Fields: how a body is put together and taken apart ---------------------------------------------------------------
def name(value): return struct.pack("<B", len(value.encode())) + value.encode()
def text(value): return struct.pack("<I", len(value.encode())) + value.encode()
class Fields:
    def __init__(self, body): self.body, self.at = body, 0
    def take(self, form):
        values = struct.unpack_from("<" + form, self.body, self.at)
        self.at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]
    def bytes(self, count): return self.take(f"{count}s") if count else b""
    def name(self): return self.bytes(self.take("B")).decode()
    def text(self): return self.bytes(self.take("I")).decode()
    def headers(self): return [(self.name(), self.text()) for _ in range(self.take("H"))]
    def rest(self): return self.body[self.at:]
TABLE = [functools.reduce(lambda byte, _: byte >> 1 ^ (0x82F63B78 if byte & 1 else 0), range(8), byte) for byte in range(256)]
def crc32c(data): return functools.reduce(lambda crc, byte: crc >> 8 ^ TABLE[(crc ^ byte) & 255], data, 0xFFFFFFFF) ^ 0xFFFFFFFF
class Failure(Exception):  # a function's error, or one that the server answers with
    def __init__(self, code, message="", retryable=False):
        super().__init__(message or code)
        self.code, self.retryable = code, retryable

# -- A connection: frames both ways, and the questions that wait for an answer ----------------------------------------
class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer, self.corr, self.ending, self.drained = reader, writer, REGISTRATION, False, False
        self.open, self.calls = {}, {}  # questions by their corr, calls by theirs
    def send(self, kind, corr=0, body=b""):
        self.writer.write(struct.pack("<IBBHQII", len(body), kind, 0, 0, corr, 0, 0) + body)  # checksum 0: absent
    async def receive(self):
        length, kind, _, zero, corr, _, zeros = struct.unpack("<IBBHQII", await self.reader.readexactly(24))
        if length > MAX_BODY or zero or zeros: raise ConnectionError("what arrives is not frames")
        return kind, corr, await self.reader.readexactly(length)
    async def ask(self, kind, body):
        self.corr = corr = self.corr + 1
        answer = self.open[corr] = asyncio.get_running_loop().create_future()
        self.send(kind, corr, body)
        try: return await answer
        except asyncio.CancelledError:
            self.send(CANCEL, corr)
            raise
        finally: self.open.pop(corr, None)
    def end_if_done(self, drained=False):
        """In good order: behind the server's Drain no call is on its way, and those that ran are answered."""
        self.drained |= drained
        if self.ending and self.drained and not self.calls: self.writer.close()

# -- A call: what a function is given ---------------------------------------------------------------------------------
class Call:
    def __init__(self, link, corr, body):
        self.link, self.corr, fields = link, corr, Fields(body)
        self.id, self.attempt, deadline, self.book, self.position, flags = fields.take("16sIIQQB")
        self.function, self.book_name, self.content_type = fields.name(), fields.name(), fields.name()
        self.http = (fields.name(), fields.text(), fields.text(), fields.headers()) if flags & 2 else None
        self.input, self.pieces, self.credit, self.may_send = fields.rest(), asyncio.Queue(), WINDOW, asyncio.Event()
        self.more_input, self.until = bool(flags & 1), deadline and asyncio.get_running_loop().time() + deadline / 1000
    def seen(self, position): self.position = max(self.position, position)  # the position only grows
    async def ask(self, kind, body):
        kind, body = await self.link.ask(kind, body)
        fields = Fields(body)
        if kind == ERROR:
            retry, code, message, details = fields.take("B"), fields.name(), fields.text(), fields.text()
            self.seen(json.loads(details or "{}").get("position", 0))
            raise Failure(code, message, retry != 0)
        if kind in POSITION_AT: self.seen(struct.unpack_from("<Q", body, POSITION_AT[kind])[0])
        return fields
    async def append(self, data, tags=(), if_tail=None, trim_below=None):
        record = struct.pack("<B", len(set(tags))) + b"".join(name(tag) for tag in sorted(set(tags), key=str.encode))
        record += data if trim_below is None else struct.pack("<Q", trim_below)
        conditions = b"".join(struct.pack("<B", 1) + name(tag) + struct.pack("<Q", seq) for tag, seq in (if_tail or {}).items())
        rest = struct.pack("<Q16sBBHHHI", self.book, random.randbytes(16), 1 if trim_below is None else 2, 0,
                           len(if_tail or {}), 0, 0, 1) + conditions + struct.pack("<I", len(record)) + record
        return (await self.ask(APPEND, struct.pack("<BII", 0, len(rest) + 8, crc32c(rest)) + rest)).take("Q")
    async def read(self, tag="", start=1, prev=False, limit=1, wait_ms=0):
        where = struct.pack("<QQQBBHII", self.book, start, self.position, prev, 1, 0, limit, wait_ms) + name(tag)
        fields, records = await self.ask(READ, where), []
        for _ in range(fields.take("QI")[1]):
            seq, _, length, aux_length = fields.take("QQII")
            record, aux = Fields(fields.bytes(length)), None if aux_length == 0xFFFFFFFF else fields.bytes(aux_length).decode()
            records.append({"seq": seq, "tags": [record.name() for _ in range(record.take("B"))],
                            "data": record.rest().decode(), "aux": aux})
        return records
    async def tail(self, tag=""):
        return (await self.ask(TAIL, struct.pack("<QQB", self.book, self.position, 1) + name(tag))).take("Q")
    async def tags(self, prefix):
        fields = await self.ask(TAGS, struct.pack("<QQIB", self.book, self.position, 1000, 1) + name("") + text(prefix))
        return {fields.name(): fields.take("Q") for _ in range(fields.take("QBI")[2])}
    async def set_aux(self, seq, aux): await self.ask(SET_AUX, struct.pack("<QQ", self.book, seq) + aux.encode())
    async def call(self, function, data, key="", detached=False, deadline_ms=0):
        left = max(1, int((self.until - asyncio.get_running_loop().time()) * 1000)) if self.until and not detached else 0
        deadline_ms = min(filter(None, (left, deadline_ms)), default=0)  # never later than the parent's own
        body = struct.pack("<QQIBBQ", self.book, self.position, deadline_ms, detached, 5, self.corr)
        fields = await self.ask(CALL, body + text(function) + text(key) + text("") + text("application/json") + data)
        if detached: return fields.bytes(16).hex()
        fields.take("16sQI"), fields.text()  # its id, position, attempts, content type
        return json.loads(fields.rest() or "null")
    def log(self, line): self.link.send(WORKER_LOG, self.corr, self.id + struct.pack("<B", 3) + line.encode())
    async def input_pieces(self):
        yield self.input
        taken, more = 0, self.more_input
        while more:
            last, piece = await self.pieces.get()
            yield piece
            taken, more = taken + len(piece), not last
            if more and taken >= PIECE:  # what has been taken out of the buffer may be sent again
                self.link.send(INPUT_CREDIT, self.corr, struct.pack("<I", taken))
                taken = 0
    def head(self, status=0, content_type="", headers=()):
        count, fields = struct.pack("<H", len(headers)), b"".join(name(key) + text(value) for key, value in headers)
        self.link.send(OUTPUT_HEAD, self.corr, struct.pack("<H", status) + name(content_type) + count + fields)
    async def send(self, data):
        while data:
            while self.credit <= 0:
                self.may_send.clear()
                await self.may_send.wait()
            size = min(len(data), PIECE, self.credit)
            self.link.send(OUTPUT_DATA, self.corr, data[:size])
            self.credit, data = self.credit - size, data[size:]
            await self.link.writer.drain()
    def start(self):
        self.link.calls[self.corr] = self
        self.task = asyncio.ensure_future(FUNCTIONS.get(self.function, unknown)(self))  # what a cancel ends
        asyncio.ensure_future(self.answer())
    async def answer(self):
        """Answers exactly once, whatever happens."""
        try: status, flags, kind, output = 0, 0, *await self.task
        except Failure as error: status, flags, kind, output = 1, error.retryable, error.code, str(error).encode()
        except asyncio.CancelledError: status, flags, kind, output = 1, 0, "cancelled", b"the call was cancelled"
        except Exception as error: status, flags, kind, output = 1, 0, "", repr(error).encode()
        if self.link.calls.pop(self.corr, None) is None: return  # given up with its connection
        self.link.send(INVOKE_DONE, self.corr, struct.pack("<BBQ", status, flags, self.position) + name(kind) + output)
        self.link.end_if_done()

# -- The functions: each takes a Call, and returns a content type and bytes -------------------------------------------
async def unknown(call): raise Failure("not_run", f"there is no function {call.function!r} here")
async def echo(call): return call.content_type, call.input
FUNCTIONS = {"echo": echo}

# -- The worker: connect, register, take calls, end in good order -----------------------------------------------------
async def serve(stop):
    """One connection, from the preamble to its end. Returns whether the worker shall end with it."""
    address, process = os.environ.get("BOKI_URL", "127.0.0.1:2654"), os.environ.get("BOKI_WORKER", "")
    host, _, port = address.removeprefix("http://").rpartition(":")
    link = Connection(*await (asyncio.open_unix_connection(address[5:]) if address.startswith("unix:")
                              else asyncio.open_connection(host, port)))
    link.writer.write(b"BOKI\x01\0\0\0")
    link.send(HELLO, 0, struct.pack("<HBB", 1, 2, 0) + name("reference"))
    functions = b"".join(name(f) + text("") + struct.pack("<IIB", 0, 0, f == "stream_in") for f in FUNCTIONS)
    link.send(REGISTER, REGISTRATION, name("reference") + name(process) + name(os.environ.get("BOKI_VERSION", ""))
              + struct.pack("<IIH", CONCURRENCY, os.getpid(), len(FUNCTIONS)) + functions)
    link.ending = bool(process)  # a worker that the server started ends when it is told that no more calls come
    def drain(_): link.ending = link.send(DRAIN) or True  # the server's own Drain answers it
    stop.add_done_callback(drain)
    try:
        while True:
            kind, corr, body = await link.receive()
            call = link.calls.get(corr)
            if kind == INVOKE: Call(link, corr, body).start()
            elif kind == INVOKE_CANCEL and call: call.task.cancel()
            elif kind == INVOKE_INPUT and call: call.pieces.put_nowait((body[0] & 1, body[1:]))
            elif kind == OUTPUT_CREDIT and call:
                call.credit += struct.unpack("<I", body)[0]
                call.may_send.set()
            elif kind == PING: link.send(PONG, corr)
            elif kind == DRAIN: link.end_if_done(drained=True)
            elif kind == ERROR and corr in (0, REGISTRATION):  # refused: is there any use in trying again?
                if process and Fields(body[1:]).name() == "BK0412": return True
                raise ConnectionError("refused")
            elif (answer := link.open.get(corr)) and not answer.done(): answer.set_result((kind, body))  # others are skipped
    except (OSError, asyncio.IncompleteReadError):
        return link.writer.is_closing()  # closed here in good order, or lost: then what ran is tried again elsewhere
    finally:
        stop.remove_done_callback(drain)
        while link.calls: link.calls.popitem()[1].task.cancel()
        link.writer.close()
async def main():
    loop = asyncio.get_running_loop()
    stop, lost, pause = loop.create_future(), None, 0.02
    for number in (signal.SIGTERM, signal.SIGINT): loop.add_signal_handler(number, stop.cancel)
    while not stop.done():
        try:
            if await serve(stop): return
            lost, pause = None, 0.02
        except OSError: pass  # nobody listens, or not to us
        lost = lost or loop.time()
        if os.environ.get("BOKI_WORKER") and loop.time() - lost > 10: return  # the server that started it is gone
        await asyncio.wait([stop], timeout=pause * (0.5 + random.random() / 2))
        pause = min(pause * 2, 2)
if __name__ == "__main__": asyncio.run(main())
