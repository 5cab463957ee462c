#!/usr/bin/env python3
"""A machine that misbehaves in every way it can, and a caller who checks that what it is told about its jobs is honest.

    bad_machine_test.py --listen 127.0.0.1:PORT --gateway unix:PATH --world NAME

The machine listens on PORT, which is the SEEJobs port of the one machine of world NAME, behind a real SSH server. The
gateway's `default_timeout` must be 3 s, its `hold` 2 s, its `retry_max` well below both, with one tunnel of one channel.
"""

import argparse
import socket
import struct
import sys
import threading
import time

from seejob import *  # noqa: F403 - the module is this script's other half

APPLICATION_STATUS = 0x0001_0007
# "Nothing ran": the job must not have reached the machine.
NOT_RUN = (QUEUE_FULL, NOT_AVAILABLE, BUFFER_FULL)
# "The outcome is unknown."
MAY_HAVE_RUN = (NETWORK_ERROR, WORLD_FAILED)


class Machine:
    """Answers NoOps as a machine does, and hands each job to `behave`, which may do to its stream whatever it likes."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.listener = socket.create_server((host, int(port)), backlog=16)
        self.behave = echo
        self.received = []  # every job that arrived whole
        self.closed_by_gateway = 0  # streams that the gateway ended
        self.changed = threading.Condition()
        threading.Thread(target=self.accept, daemon=True).start()

    def stop_listening(self):
        # Closing alone would leave one more connection to the thread that waits for it.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return  # It listens no more.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(Stream(stream, self),), daemon=True).start()

    def serve(self, stream):
        try:
            while True:
                body = stream.message()
                tag, cmd, _ = struct.unpack_from("<III", body)
                if cmd == NO_OP:
                    stream.send(reply(tag, NO_OP))
                    continue
                job, rest = unblock(body[16:])
                expect(cmd == SEE_JOB and not rest, f"the gateway sent a malformed command: {body[:64].hex()}")
                expect(body[8:16] == bytes(8), "flags and worldid towards a machine are 0")
                self.note(job)
                self.behave(stream, tag, job)
        except (Closed, OSError):
            self.stream_ended(stream)
        finally:
            stream.socket.close()

    def note(self, job):
        with self.changed:
            self.received.append(job)
            self.changed.notify_all()

    def stream_ended(self, stream):
        with self.changed:
            self.closed_by_gateway += not stream.gone
            self.changed.notify_all()

    def until(self, what, condition):
        with self.changed:
            expect(self.changed.wait_for(condition, PATIENCE), f"waited {PATIENCE} s in vain until {what}")

    def until_received(self, count, mark):
        self.until(f"{count} jobs {mark} arrive", lambda: sum(mark in job for job in self.received) >= count)


class Stream:
    """One SEEJobs stream, as the machine sees it. Other threads may send on it, too."""

    def __init__(self, stream, machine):
        self.socket, self.machine, self.gone, self.waiting = stream, machine, False, []

    def message(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        return self.exactly(length)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Closed()
            data += more
        return data

    def send(self, data):
        self.socket.sendall(data)

    def die(self):
        self.gone = True
        raise Closed()


# --- what the machine may do with a job


def echo(stream, tag, job):
    stream.send(job_reply(tag, job))


def only_when(mark, misbehave):
    """Jobs with the mark meet the misbehaviour; all others are echoed."""
    return lambda stream, tag, job: (misbehave if mark in job else echo)(stream, tag, job)


def sends(make):
    return lambda stream, tag, job: stream.send(make(tag, job))


def twice(stream, tag, job):
    stream.send(job_reply(tag, job) + job_reply(tag, b"the second reply"))


def dies(stream, tag, job):
    stream.die()


def dies_mid_reply(stream, tag, job):
    stream.send(job_reply(tag, job)[:-3])
    stream.die()


def silent(stream, tag, job):
    stream.waiting.append((tag, job))


def in_reverse(count):
    """Keeps jobs until it has `count` of them, and answers the last one first."""

    def behave(stream, tag, job):
        stream.waiting.append((tag, job))
        if len(stream.waiting) == count:
            stream.send(b"".join(job_reply(tag, job) for tag, job in reversed(stream.waiting)))
            stream.waiting.clear()

    return behave


BREAKS_THE_STREAM = {
    "a reply to a tag that is not outstanding": lambda tag, job: job_reply(tag ^ 0x5A5A_0000, job),
    "a reply of 15 bytes": lambda tag, job: framed(job_reply(tag, job)[4:19]),
    "a reply of 4 GiB": lambda tag, job: word(0xFFFF_FFFF) + job,
    "noise": lambda tag, job: framed(b"\xa5" * 64),
    "noise under the right tag": lambda tag, job: framed(word(tag) + b"\xa5" * 60),
    "the reply to another command": lambda tag, job: reply(tag, NO_OP),
    "an object for a job": lambda tag, job: reply(tag, GET_PUBLISHED_OBJECT, word(1)),
    "a status that is not OK in a job's reply": lambda tag, job: reply(tag, SEE_JOB, block(job), status=4),
    "an ErrorReturn whose status is OK": lambda tag, job: reply(tag, ERROR_RETURN),
    "an ErrorReturn with bytes left over": lambda tag, job: reply(tag, ERROR_RETURN, bytes(8), status=4),
    "an errorinfo that is not UTF-8": lambda tag, job: reply(tag, ERROR_RETURN, block(b"\xff\xfe"), status=4, flags=1),
    "reply flags that are not defined": lambda tag, job: reply(tag, SEE_JOB, block(job), flags=2),
    "a reply without its block": lambda tag, job: reply(tag, SEE_JOB),
    "a reply whose padding is missing": lambda tag, job: reply(tag, SEE_JOB, word(5) + b"hello"),
    "a reply whose padding is not zero": lambda tag, job: reply(tag, SEE_JOB, word(5) + b"hello\0\0\1"),
    "a reply with bytes left over": lambda tag, job: reply(tag, SEE_JOB, block(job) + word(0)),
}


class Caller:
    """A caller at the gateway, whose every answer is compared with what the machine received."""

    def __init__(self, machine, target, world):
        self.machine, self.target, self.world_name = machine, target, world
        self.number = 0

    def name(self, mark=b"job"):
        self.number += 1
        return b"%s/%d" % (mark, self.number)

    def submit(self, jobs):
        """Sends the jobs on one connection; gives the connection, on which their tags are 0, 1, …"""
        connection = Connection(self.target)
        handle = connection.world(self.world_name)
        connection.send(b"".join(see_job(tag, handle, job) for tag, job in enumerate(jobs)))
        return connection

    def outcomes(self, jobs):
        """One answer for each job, none of them twice, each honest."""
        with self.submit(jobs) as connection:
            return self.collect(connection, jobs)

    def collect(self, connection, jobs):
        answers = {}
        for _ in jobs:
            answer = connection.receive()
            expect(answer.tag not in answers, f"two answers to tag {answer.tag}: {answers[answer.tag]}, {answer}" if answer.tag in answers else "")
            answers[answer.tag] = answer
        for tag, job in enumerate(jobs):
            expect(tag in answers, f"no answer to tag {tag}")
            self.is_honest(answers[tag], job)
        # Nothing more may come: what follows is the answer to this.
        last = connection.ask(no_op(0xFFFF))
        expect(last.tag == 0xFFFF and last.status == OK, f"an answer too many: {last}")
        return [answers[tag] for tag in range(len(jobs))]

    def is_honest(self, answer, job):
        ran = self.machine.received.count(job)
        expect(ran <= 1, f"{job} was sent {ran} times")
        claims_not_run = answer.status in NOT_RUN or (answer.status == TIMEOUT and answer.info == "not sent")
        expect(not (claims_not_run and ran), f"{answer} for {job}, which the machine has")
        if answer.status == OK:
            expect(ran == 1 and answer.data == job, f"{job} came back as {answer.data}, and arrived {ran} times")
        if answer.status == TIMEOUT:
            expect(answer.info in ("not sent", "outcome unknown"), f"{answer}")

    def works_again(self):
        (answer,) = self.outcomes([self.name(b"after")])
        expect(answer.status == OK, f"the gateway does not come back: {answer}")


# --- the scenarios


def breaks_the_stream(machine, caller, make):
    """The offending job and those that wait on the same stream get an unknown outcome; the next stream is good."""
    machine.behave = only_when(b"offend", lambda stream, tag, job: stream.send(make(tag, job)))
    closed = machine.closed_by_gateway
    (answer,) = caller.outcomes([caller.name(b"offend")])
    expect(answer.status in MAY_HAVE_RUN, f"wanted an unknown outcome, got {answer}")
    machine.until("the gateway closes the broken stream", lambda: machine.closed_by_gateway > closed)
    caller.works_again()


def others_on_the_broken_stream(machine, caller):
    machine.behave = lambda stream, tag, job: (
        stream.send(job_reply(tag ^ 0x5A5A_0000, job)) if b"offend" in job else silent(stream, tag, job)
    )
    waiting = [caller.name(b"waits") for _ in range(10)]
    connection = caller.submit(waiting)
    with connection:
        machine.until_received(10, b"waits")
        (offender,) = caller.outcomes([caller.name(b"offend")])
        answers = caller.collect(connection, waiting)
    for answer in [offender, *answers]:
        expect(answer.status in MAY_HAVE_RUN, f"wanted an unknown outcome, got {answer}")
    machine.behave = echo
    caller.works_again()


def oversized_reply(machine, caller):
    """The job ran and what it said is lost: an unknown outcome. Nothing of the reply is taken for a message."""
    for size in (MAX_JOB + 45, 1_000_000, MIB_16 - 20):
        inner = no_op(0xBAD) * (size // 16)
        machine.behave = only_when(b"oversized", sends(lambda tag, _: job_reply(tag, inner)))
        answers = caller.outcomes([caller.name(b"oversized"), caller.name()])
        expect(answers[0].status in MAY_HAVE_RUN, f"wanted an unknown outcome, got {answers[0]}")
        caller.works_again()


def replies_twice(machine, caller):
    machine.behave = only_when(b"twice", twice)
    closed = machine.closed_by_gateway
    (answer,) = caller.outcomes([caller.name(b"twice")])
    expect(answer.status == OK, f"the first reply is a good one: {answer}")
    machine.until("the gateway closes the stream after the second reply", lambda: machine.closed_by_gateway > closed)
    caller.works_again()


def dies_with_jobs(machine, caller, death):
    machine.behave = only_when(b"kills", death)
    answers = caller.outcomes([caller.name(b"kills")])
    expect(answers[0].status in MAY_HAVE_RUN, f"wanted an unknown outcome, got {answers[0]}")
    caller.works_again()


def passes_statuses_on(machine, caller):
    for status, info in ((APPLICATION_STATUS, "the application's own words"), (0xFFFF_FFFF, None), (UNKNOWN_ID, ""), (ACCESS_DENIED, "é")):
        machine.behave = sends(lambda tag, _: error_return(tag, status, info))
        (answer,) = caller.outcomes([caller.name(b"refused")])
        expect(answer.status == status, f"wanted status {status:#x} passed on, got {answer}")
        expect(not info or info in (answer.info or ""), f"wanted errorinfo {info!r} passed on, got {answer}")
    machine.behave = echo
    caller.works_again()


def out_of_order(machine, caller):
    machine.behave = in_reverse(200)
    answers = caller.outcomes([caller.name() for _ in range(200)])
    expect(all(answer.status == OK for answer in answers), f"{answers}")
    machine.behave = echo


def late_replies(machine, caller):
    """A reply that comes after its job's deadline is dropped: it reaches nobody, least of all the next job's caller."""
    kept = []
    machine.behave = only_when(b"late", lambda stream, tag, job: kept.append((stream, tag, job)))
    jobs = [caller.name(b"late") for _ in range(20)]
    closed = machine.closed_by_gateway
    for answer in caller.outcomes(jobs):
        expect(answer.status == TIMEOUT and answer.info == "outcome unknown", f"wanted Timeout, outcome unknown; got {answer}")
    expect(len(kept) == len(jobs), f"{len(kept)} of {len(jobs)} jobs arrived")
    for stream, tag, job in kept:
        stream.send(job_reply(tag, job + b", too late"))
    caller.works_again()
    expect(machine.closed_by_gateway == closed, "late replies are no reason to close the stream")


def caller_gone(machine, caller):
    """A caller that goes away leaves its replies to nobody, and its tags are taken until they have come."""
    kept = []
    machine.behave = only_when(b"orphan", lambda stream, tag, job: kept.append((stream, tag, job)))
    closed = machine.closed_by_gateway
    connection = caller.submit([caller.name(b"orphan") for _ in range(20)])
    machine.until_received(20, b"orphan")
    connection.socket.close()
    orphaned = {tag for _, tag, _ in kept}
    used = []
    machine.behave = lambda stream, tag, job: (used.append(tag), echo(stream, tag, job))
    answers = caller.outcomes([caller.name() for _ in range(200)])
    expect(all(answer.status == OK for answer in answers), f"{answers}")
    expect(not orphaned & set(used), f"tags {orphaned & set(used)} were used again before their replies came")
    for stream, tag, job in kept:
        stream.send(job_reply(tag, job))
    machine.behave = echo
    caller.works_again()
    expect(machine.closed_by_gateway == closed, "replies to a caller who has gone are no reason to close the stream")


def nobody_listens(machine, caller):
    """No machine takes the stream: jobs are held, then refused as certainly not sent."""
    machine.stop_listening()
    machine.behave = dies
    started = time.monotonic()
    caller.outcomes([caller.name(b"the last to arrive")])
    answers = caller.outcomes([caller.name(b"held") for _ in range(10)])
    for answer in answers:
        expect(answer.status == NOT_AVAILABLE, f"wanted NotAvailable, got {answer}")
    expect(time.monotonic() - started > 1.0, "the jobs were not held at all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--world", required=True)
    arguments = parser.parse_args()

    machine = Machine(arguments.listen)
    caller = Caller(machine, arguments.gateway, arguments.world)
    checks = Checks()
    checks.run("a good machine", caller.works_again)
    for name, make in BREAKS_THE_STREAM.items():
        checks.run(f"breaks the stream: {name}", breaks_the_stream, machine, caller, make)
    checks.run("others on the broken stream", others_on_the_broken_stream, machine, caller)
    checks.run("replies that are larger than max_message", oversized_reply, machine, caller)
    checks.run("replies twice", replies_twice, machine, caller)
    checks.run("dies holding a job", dies_with_jobs, machine, caller, dies)
    checks.run("dies in the middle of a reply", dies_with_jobs, machine, caller, dies_mid_reply)
    checks.run("statuses of the application pass through", passes_statuses_on, machine, caller)
    checks.run("200 replies in reverse order", out_of_order, machine, caller)
    checks.run("late replies", late_replies, machine, caller)
    checks.run("a caller who has gone", caller_gone, machine, caller)
    checks.run("nobody listens", nobody_listens, machine, caller)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
