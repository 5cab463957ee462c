"""The SEEJob wire, profile open-1, written from its description alone: what a foreign implementation would hold.

Only the standard library. It is strict where the description is strict, so that a sloppy peer is found out.
"""

import socket
import struct

ERROR_RETURN, NO_OP, SEE_JOB, GET_PUBLISHED_OBJECT = 0, 1, 2, 3

STATUS = {
    0: "OK",
    1: "UnknownCommand",
    2: "Malformed",
    3: "InvalidParameter",
    4: "UnknownID",
    5: "AccessDenied",
    6: "BufferFull",
    7: "QueueFull",
    8: "NotAvailable",
    9: "NetworkError",
    10: "SEEWorldFailed",
    11: "Timeout",
}
OK, UNKNOWN_COMMAND, MALFORMED, INVALID_PARAMETER, UNKNOWN_ID, ACCESS_DENIED = 0, 1, 2, 3, 4, 5
BUFFER_FULL, QUEUE_FULL, NOT_AVAILABLE, NETWORK_ERROR, WORLD_FAILED, TIMEOUT = 6, 7, 8, 9, 10, 11

MAX_JOB = 262_100
MIB_16 = 16 * 1024 * 1024

# How long an answer may take that takes microseconds on an idle machine.
PATIENCE = 20.0


def max_message(max_job):
    """The longest body that is read whole: the job and 44 bytes, rounded up to a multiple of 4."""
    return (max_job + 44 + 3) // 4 * 4


def word(value):
    return struct.pack("<I", value)


def block(data):
    """A byte block: its length, its bytes, zero bytes up to a multiple of 4."""
    return word(len(data)) + data + bytes(-len(data) % 4)


def framed(body):
    return word(len(body)) + body


def command(tag, cmd, args=b"", flags=0):
    return framed(word(tag) + word(cmd) + word(flags) + args)


def no_op(tag):
    return command(tag, NO_OP)


def see_job(tag, world, job):
    return command(tag, SEE_JOB, word(world) + block(job))


def get_published_object(tag, name):
    return command(tag, GET_PUBLISHED_OBJECT, block(name))


def reply(tag, cmd, body=b"", status=0, flags=0):
    return framed(word(tag) + word(cmd) + word(status) + word(flags) + body)


def job_reply(tag, data):
    return reply(tag, SEE_JOB, block(data))


def error_return(tag, status, info=None):
    if info is None:
        return reply(tag, ERROR_RETURN, status=status)
    return reply(tag, ERROR_RETURN, block(info.encode()), status=status, flags=1)


class Broken(Exception):
    """The peer does not keep to the wire."""


class Closed(Exception):
    """The peer closed the connection."""


class Reply:
    """One reply, taken apart as strictly as the description allows."""

    def __init__(self, body):
        if len(body) < 16:
            raise Broken(f"a reply of {len(body)} bytes; its smallest body is 16")
        self.tag, self.cmd, self.status, flags = struct.unpack_from("<IIII", body)
        rest = body[16:]
        self.info = self.data = self.object = None
        if flags & ~1:
            raise Broken(f"reply flags {flags:#x}; only bit 0 is defined")
        if (self.cmd == ERROR_RETURN) == (self.status == OK):
            raise Broken(f"cmd {self.cmd} with status {self.status}: not OK is ErrorReturn, ErrorReturn is not OK")
        if flags & 1:
            info, rest = unblock(rest)
            self.info = info.decode()
        if self.cmd == SEE_JOB:
            self.data, rest = unblock(rest)
        elif self.cmd == GET_PUBLISHED_OBJECT:
            if len(rest) < 4:
                raise Broken("a reply to GetPublishedObject without an object")
            (self.object,), rest = struct.unpack_from("<I", rest), rest[4:]
        elif self.cmd not in (ERROR_RETURN, NO_OP):
            raise Broken(f"a reply to cmd {self.cmd}")
        if rest:
            raise Broken(f"{len(rest)} bytes left over at the end of a reply")

    def __repr__(self):
        name = STATUS.get(self.status, hex(self.status))
        data = "" if self.data is None else f" data={len(self.data)} bytes"
        return f"<tag={self.tag} cmd={self.cmd} {name}{data} info={self.info!r}>"


def unblock(data):
    """Takes a byte block off the front: its bytes, and what follows it."""
    if len(data) < 4:
        raise Broken("a byte block without its length")
    (length,) = struct.unpack_from("<I", data)
    end = 4 + length
    padded = end + (-length % 4)
    if padded > len(data):
        raise Broken(f"a byte block of {length} bytes in {len(data) - 4}")
    if any(data[end:padded]):
        raise Broken("padding that is not zero")
    return data[4:end], data[padded:]


class Connection:
    """A connection to anything that speaks the wire: `unix:PATH` or `tcp:HOST:PORT`."""

    def __init__(self, target):
        kind, _, address = target.partition(":")
        if kind == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """The next reply."""
        (length,) = struct.unpack("<I", self.exactly(4))
        if length > MIB_16:
            raise Broken(f"a reply of {length} bytes")
        return Reply(self.exactly(length))

    def exactly(self, count):
        while len(self.buffer) < count:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed(f"closed with {len(self.buffer)} of {count} bytes received")
            self.buffer += more
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def ask(self, data):
        self.send(data)
        return self.receive()

    def until_closed(self):
        """Everything that still comes, up to the end of the stream."""
        replies = []
        try:
            while True:
                replies.append(self.receive())
        except Closed:
            return replies

    def world(self, name, tag=0xABCD):
        answer = self.ask(get_published_object(tag, name.encode()))
        if answer.status != OK:
            raise AssertionError(f"the world {name!r} is not published: {answer}")
        return answer.object


class Checks:
    """Runs checks one by one, prints each with its result, and remembers whether all held."""

    def __init__(self):
        self.failed = []
        self.passed = 0

    def run(self, name, check, *arguments):
        try:
            check(*arguments)
        except Exception as error:  # Whatever went wrong, the other checks are still worth running.
            self.failed.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
        else:
            self.passed += 1
            print(f"ok      {name}")

    def end(self):
        print(f"{self.passed} checks passed, {len(self.failed)} failed")
        for name in self.failed:
            print(f"  failed: {name}")
        return 1 if self.failed or not self.passed else 0


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def expect_error(answer, tag, status, info=None):
    expect(answer.tag == tag, f"wanted the answer to tag {tag}, got {answer}")
    expect(answer.cmd == ERROR_RETURN and answer.status == status, f"wanted {STATUS[status]}, got {answer}")
    if info is not None:
        expect(answer.info == info, f"wanted errorinfo {info!r}, got {answer}")
