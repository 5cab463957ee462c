#!/usr/bin/env python3
"""A legacy client written from the wire's description alone, which tries every row of its table of bad input.

    wire_test.py --gateway unix:PATH --gateway tcp:127.0.0.1:PORT … --machine tcp:127.0.0.1:PORT … \\
                 --world ECHO --slow-world SLOW --slow-machine tcp:127.0.0.1:PORT [--max-job BYTES]

Each --gateway is a hardserver socket that publishes the worlds ECHO (replies with the job) and SLOW (the same, later).
Each --machine is the SEEJobs port of a machine that echoes, --slow-machine of one that does so later.
"""

import argparse
import os
import sys

from seejob import *  # noqa: F403 - the module is this script's other half


class Peer:
    """Where the checks are run: a gateway's socket or a machine's port."""

    def __init__(self, target, max_job, echo=None, slow=None, slow_target=None):
        self.target, self.max_job, self.echo_name, self.slow_name = target, max_job, echo, slow
        self.slow_target = slow_target or target
        self.is_gateway = echo is not None

    def connect(self):
        return Connection(self.target)

    def echo(self):
        """A connection, and the handle for jobs that come back."""
        connection = self.connect()
        return connection, connection.world(self.echo_name) if self.is_gateway else 0

    def slow(self):
        """The same for jobs that come back later."""
        connection = Connection(self.slow_target)
        return connection, connection.world(self.slow_name) if self.is_gateway else 0


def still_works(connection, tag=0x7777):
    answer = connection.ask(no_op(tag))
    expect(answer.tag == tag and answer.cmd == NO_OP and answer.status == OK, f"the connection does not go on: {answer}")


# --- what the description gives byte by byte


def vectors(_):
    """Our own encoder and decoder against the printed vectors, before anybody else is judged with them."""
    unhex = lambda text: bytes.fromhex(text.replace(" ", ""))
    expect(no_op(7) == unhex("0c000000 07000000 01000000 00000000"), "the NoOp")
    hello = unhex("1c000000 01000000 02000000 00000000 00000000 05000000 68656c6c6f000000")
    expect(see_job(1, 0, b"hello") == hello, "the SEEJob")
    expect(Reply(hello[4:]).data == b"hello", "the SEEJob's reply")
    error = unhex("24000000 09000000 00000000 04000000 01000000 0d000000 6e6f2073756368 20776f726c64 000000")
    expect(error_return(9, UNKNOWN_ID, "no such world") == error, "the ErrorReturn")
    expect(Reply(error[4:]).info == "no such world", "the ErrorReturn, decoded")


def no_op_vector(peer):
    with peer.connect() as connection:
        connection.send(bytes.fromhex("0c000000070000000100000000000000"))
        expected = bytes.fromhex("1000000007000000010000000000000000000000")
        received = connection.exactly(len(expected))
        expect(received == expected, f"received {received.hex()}")


def job_vector(peer):
    """The job `hello` with tag 1; towards a gateway the handle stands where the vector has worldid 0."""
    connection, handle = peer.echo()
    with connection:
        connection.send(bytes.fromhex("1c000000010000000200000000000000") + word(handle) + bytes.fromhex("0500000068656c6c6f000000"))
        expected = bytes.fromhex("1c00000001000000020000000000000000000000" + "0500000068656c6c6f000000")
        received = connection.exactly(len(expected))
        expect(received == expected, f"received {received.hex()}")


# --- sizes, and how bytes arrive


def sizes(peer):
    connection, handle = peer.echo()
    with connection:
        for size in (0, 1, 2, 3, 4, 5, 255, 256, 4095, 65_535, 65_536, 262_099, 262_100):
            if size > peer.max_job:
                continue
            job = os.urandom(size)
            answer = connection.ask(see_job(size, handle, job))
            expect(answer.tag == size and answer.data == job, f"a job of {size} bytes came back as {answer}")


def largest_job(peer):
    connection, handle = peer.echo()
    with connection:
        job = os.urandom(peer.max_job)
        answer = connection.ask(see_job(1, handle, job))
        expect(answer.data == job, f"a job of exactly {peer.max_job} bytes: {answer}")


def one_byte_too_large(peer):
    connection, handle = peer.echo()
    with connection:
        answer = connection.ask(see_job(2, handle, bytes(peer.max_job + 1)))
        expect_error(answer, 2, BUFFER_FULL)
        still_works(connection)


def too_large_but_within_max_message(peer):
    """The message fits, the job in it is larger than the limit on jobs."""
    connection, handle = peer.echo()
    with connection:
        message = see_job(3, handle, bytes(max_message(peer.max_job) - 20))
        expect(len(message) == max_message(peer.max_job) + 4, "the check is wrong about its own message")
        expect_error(connection.ask(message), 3, BUFFER_FULL)
        still_works(connection)


def byte_by_byte(peer):
    connection, handle = peer.echo()
    with connection:
        message = no_op(1) + see_job(2, handle, b"split to bits") + no_op(3)
        for index in range(len(message)):
            connection.send(message[index : index + 1])
        answers = {answer.tag: answer for answer in (connection.receive() for _ in range(3))}
        expect(sorted(answers) == [1, 2, 3], f"answers to {sorted(answers)}")
        expect(answers[2].data == b"split to bits", f"{answers[2]}")


def cut_in_the_middle(peer):
    """A large job in two writes, for every awkward place of the cut."""
    connection, handle = peer.echo()
    with connection:
        job = os.urandom(min(70_001, peer.max_job))
        message = see_job(1, handle, job)
        for cut in (1, 3, 4, 5, 11, 12, 15, 16, 23, 24, 25, len(message) // 2, len(message) - 1):
            connection.send(message[:cut])
            connection.send(message[cut:])
            expect(connection.receive().data == job, f"cut at {cut}")


def many_in_one_write(peer):
    connection, handle = peer.echo()
    with connection:
        count = 1_000
        connection.send(b"".join(see_job(tag, handle, b"job %d" % tag) for tag in range(count)))
        answers = {}
        for _ in range(count):
            answer = connection.receive()
            expect(answer.tag not in answers, f"tag {answer.tag} was answered twice")
            answers[answer.tag] = answer
        wrong = [answer for tag, answer in answers.items() if answer.data != b"job %d" % tag]
        expect(not wrong, f"{len(wrong)} wrong replies, such as {wrong[:1]}")


def any_tag(peer):
    connection, handle = peer.echo()
    with connection:
        for tag in (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF):
            answer = connection.ask(see_job(tag, handle, b"x"))
            expect(answer.tag == tag and answer.data == b"x", f"tag {tag:#x}: {answer}")


# --- the table of bad input


def oversized(peer, length):
    with peer.connect() as connection:
        body = word(0x51) + word(SEE_JOB) + bytes(length - 8)
        expect_error(connection.ask(framed(body)), 0x51, BUFFER_FULL)
        still_works(connection)


def oversized_between_jobs(peer):
    """The jobs before and after an oversized message are not disturbed, and nothing of its body is taken for a message."""
    connection, handle = peer.echo()
    with connection:
        inner = no_op(0xBAD) * ((max_message(peer.max_job) + 1_000) // 16)
        connection.send(see_job(1, handle, b"before") + framed(word(2) + inner) + see_job(3, handle, b"after"))
        answers = {answer.tag: answer for answer in (connection.receive() for _ in range(3))}
        expect(sorted(answers) == [1, 2, 3], f"answers to {sorted(answers)}")
        expect(answers[1].data == b"before" and answers[3].data == b"after", f"{answers}")
        expect_error(answers[2], 2, BUFFER_FULL)


def closes(peer, length):
    with peer.connect() as connection:
        connection.send(word(length))
        replies = connection.until_closed()
        expect(not replies, f"answers before the end: {replies}")
    with peer.connect() as another:
        still_works(another)


def closes_after_jobs(peer):
    """What stood before the bad length was good, and has been handed over."""
    with peer.connect() as connection:
        connection.send(no_op(1) + word(MIB_16 + 1))
        replies = connection.until_closed()
        expect([answer.tag for answer in replies] in ([], [1]), f"{replies}")


MALFORMED_BODIES = {
    "a SEEJob without arguments": word(SEE_JOB) + word(0),
    "a SEEJob with half a worldid": word(SEE_JOB) + word(0) + b"\0\0",
    "a SEEJob without a block": word(SEE_JOB) + word(0) + word(0),
    "a block longer than the message": word(SEE_JOB) + word(0) + word(0) + word(100) + b"short",
    "a block of 4 GiB": word(SEE_JOB) + word(0) + word(0) + word(0xFFFF_FFFF),
    "a block of 4 GiB less its padding": word(SEE_JOB) + word(0) + word(0) + word(0xFFFF_FFFD) + bytes(8),
    "padding that is missing": word(SEE_JOB) + word(0) + word(0) + word(5) + b"hello",
    "padding that is not zero": word(SEE_JOB) + word(0) + word(0) + word(5) + b"hello\0\0\1",
    "bytes left over after a SEEJob": word(SEE_JOB) + word(0) + word(0) + block(b"hello") + b"\0\0\0\0",
    "bytes left over after a NoOp": word(NO_OP) + word(0) + b"\0",
}

MALFORMED_FOR_A_GATEWAY = {
    "GetPublishedObject without a name": word(GET_PUBLISHED_OBJECT) + word(0),
    "GetPublishedObject with a name that is not UTF-8": word(GET_PUBLISHED_OBJECT) + word(0) + block(b"\xff\xfe\xfd"),
    "bytes left over after GetPublishedObject": word(GET_PUBLISHED_OBJECT) + word(0) + block(b"a") + word(0),
}


def malformed(peer, body):
    with peer.connect() as connection:
        expect_error(connection.ask(framed(word(0x61) + body)), 0x61, MALFORMED)
        still_works(connection)


def unknown_command(peer, cmd, args=b""):
    with peer.connect() as connection:
        expect_error(connection.ask(command(0x71, cmd, args)), 0x71, UNKNOWN_COMMAND)
        still_works(connection)


def flags_set(peer, flags):
    connection, handle = peer.echo()
    with connection:
        expect_error(connection.ask(command(0x72, NO_OP, flags=flags)), 0x72, INVALID_PARAMETER)
        job = word(handle) + block(b"not to run")
        expect_error(connection.ask(command(0x73, SEE_JOB, job, flags=flags)), 0x73, INVALID_PARAMETER)
        still_works(connection)


def tag_in_use(peer):
    connection, handle = peer.slow()
    with connection:
        second = see_job(5, handle, b"the second")
        connection.send(see_job(5, handle, b"the first") + second + no_op(5))
        for _ in range(2):
            expect_error(connection.receive(), 5, INVALID_PARAMETER, "tag in use")
        first = connection.receive()
        expect(first.tag == 5 and first.data == b"the first", f"the first job was disturbed: {first}")
        again = connection.ask(second)
        expect(again.data == b"the second", f"a tag that was answered can be used again: {again}")


def handle_not_given(peer):
    with peer.connect() as connection:
        for handle in (0, 1, 0x1234_5678, 0xFFFF_FFFF):
            if handle or peer.is_gateway:
                expect_error(connection.ask(see_job(handle, handle, b"x")), handle, UNKNOWN_ID)
        still_works(connection)


def handle_of_another_connection(peer):
    connection, handle = peer.echo()
    with connection, peer.connect() as another:
        expect_error(another.ask(see_job(1, handle, b"x")), 1, UNKNOWN_ID)
        expect(connection.ask(see_job(1, handle, b"x")).data == b"x", "the handle's own connection")


def world_not_published(peer):
    with peer.connect() as connection:
        for name in (b"", b"no such world", peer.echo_name.encode() + b" ", b"x" * min(5_000, peer.max_job)):
            expect_error(connection.ask(get_published_object(0x81, name)), 0x81, UNKNOWN_ID)
        still_works(connection)


def world_asked_twice(peer):
    connection, handle = peer.echo()
    with connection:
        again = connection.world(peer.echo_name)
        for either in (handle, again):
            expect(connection.ask(see_job(1, either, b"x")).data == b"x", f"handle {either:#x}")


def half_close(peer, trailing):
    """The caller has gone: the connection ends, in a bounded time, and nobody else notices."""
    connection, handle = peer.slow()
    with connection:
        connection.send(see_job(1, handle, b"nobody waits for this") + trailing)
        connection.socket.shutdown(1)
        replies = connection.until_closed()
        expect(all(answer.tag == 1 for answer in replies), f"{replies}")
    with peer.connect() as another:
        still_works(another)


def random_bytes(peer):
    """Whatever comes, it is answered or closed, and the next connection is served."""
    for _ in range(50):
        with peer.connect() as connection:
            try:
                connection.send(os.urandom(300))
                connection.socket.shutdown(1)
                connection.until_closed()
            except (ConnectionResetError, BrokenPipeError):
                pass  # Closed before all of it was written: as good an end as any.
    with peer.connect() as connection:
        still_works(connection)


def checks_of(peer, checks):
    def run(name, check, *arguments):
        checks.run(f"{peer.target}: {name}", check, peer, *arguments)

    limit = max_message(peer.max_job)
    run("the NoOp vector", no_op_vector)
    run("the SEEJob vector", job_vector)
    run("jobs of many sizes", sizes)
    run("a job of exactly the limit", largest_job)
    run("a job one byte past the limit", one_byte_too_large)
    run("a job past the limit in a message within it", too_large_but_within_max_message)
    run("a message byte by byte", byte_by_byte)
    run("a message cut in two", cut_in_the_middle)
    run("1000 messages in one write", many_in_one_write)
    run("tags from 0 to 0xffffffff", any_tag)
    for length in (limit + 1, limit + 4, 1_000_000, MIB_16):
        run(f"an oversized message of {length} bytes", oversized, length)
    run("an oversized message between jobs", oversized_between_jobs)
    for length in (MIB_16 + 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 0, 4, 11):
        run(f"a length of {length} closes", closes, length)
    run("a bad length after a good message closes", closes_after_jobs)
    for name, body in MALFORMED_BODIES.items():
        run(f"malformed: {name}", malformed, body)
    for cmd in (ERROR_RETURN, 4, 0xFFFF_FFFF):
        run(f"unknown command {cmd:#x}", unknown_command, cmd)
        run(f"unknown command {cmd:#x} with arguments", unknown_command, cmd, os.urandom(33))
    for flags in (1, 0x8000_0000, 0xFFFF_FFFF):
        run(f"flags {flags:#x}", flags_set, flags)
    run("a tag in use", tag_in_use)
    run("a handle that was not given", handle_not_given)
    run("half-close between messages", half_close, b"")
    run("half-close within a length", half_close, b"\x0c")
    run("half-close within a message", half_close, see_job(2, 0, b"the end is missing")[:-6])
    run("random bytes", random_bytes)
    if peer.is_gateway:
        for name, body in MALFORMED_FOR_A_GATEWAY.items():
            run(f"malformed: {name}", malformed, body)
        run("a handle of another connection", handle_of_another_connection)
        run("a world that is not published", world_not_published)
        run("a world asked for twice", world_asked_twice)
    else:
        run("GetPublishedObject is unknown to a machine", unknown_command, GET_PUBLISHED_OBJECT, block(b"world"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", action="append", default=[])
    parser.add_argument("--machine", action="append", default=[])
    parser.add_argument("--world", default="echo")
    parser.add_argument("--slow-world", default="slow")
    parser.add_argument("--slow-machine")
    parser.add_argument("--max-job", type=int, default=MAX_JOB)
    arguments = parser.parse_args()

    checks = Checks()
    checks.run("the printed vectors", vectors, None)
    for target in arguments.gateway:
        checks_of(Peer(target, arguments.max_job, echo=arguments.world, slow=arguments.slow_world), checks)
    for target in arguments.machine:
        checks_of(Peer(target, arguments.max_job, slow_target=arguments.slow_machine), checks)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
