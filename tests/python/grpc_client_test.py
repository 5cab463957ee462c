#!/usr/bin/env python3
"""A gRPC client in another language: grpcio, with stubs made from the schema when the test runs.

    grpc_client_test.py --grpc 127.0.0.1:PORT --schema proto/

The gateway serves these worlds: `echo`; `slow`, whose machine replies after 1.5 s and has at most 4 jobs in flight; `dark`, whose
machine can't be reached; `faulty`, whose machine dies holding every job. Its `hold` is 1 s and its `queue` is 256.
"""

import argparse
import os
import pathlib
import queue
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc_tools
from google.protobuf import descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

from seejob import MAX_JOB, Checks, Reply, expect, no_op

SERVICE = "seeway.v1.SeeJobService"
SLOW_REPLY = 1.5


def make_stubs(schema):
    """Compiles the schema with protoc's Python plug-ins, and imports what comes out."""
    folder = tempfile.mkdtemp(prefix="seeway-stubs-")
    files = [str(path.relative_to(schema)) for path in sorted(pathlib.Path(schema).glob("seeway/v1/*.proto"))]
    expect(files, f"there is no schema in {schema}")
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{schema}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    expect(protoc.main(arguments) == 0, "protoc failed")
    sys.path.insert(0, folder)
    import seeway.v1.see_job_service_pb2 as messages
    import seeway.v1.see_job_service_pb2_grpc as service

    return messages, service


class Failed(Exception):
    """A call's status, with the details that came with it."""

    def __init__(self, error):
        super().__init__(f"{error.code()}: {error.details()}")
        self.code = error.code()
        self.info = self.retry = None
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                self.info = error_details_pb2.ErrorInfo()
                detail.Unpack(self.info)
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                self.retry = error_details_pb2.RetryInfo()
                detail.Unpack(self.retry)


def failure(call, *arguments, **options):
    """The failure that the call must end with."""
    try:
        answer = call(*arguments, **options)
    except grpc.RpcError as error:
        return Failed(error)
    raise AssertionError(f"the call should have failed, and gave {len(answer.reply)} bytes")


def expect_failure(failed, code, reason, may_have_run, world, retry=False):
    expect(failed.code == code, f"wanted {code}, got {failed}")
    expect(failed.info is not None, f"{failed} has no ErrorInfo")
    expect(failed.info.domain == "seeway", f"the domain is {failed.info.domain!r}")
    expect(failed.info.reason == reason, f"wanted {reason}, got {failed.info.reason}")
    metadata = dict(failed.info.metadata)
    expect(metadata.get("may_have_run") == may_have_run, f"metadata {metadata}")
    expect(metadata.get("world") == world, f"metadata {metadata}")
    expect((failed.retry is not None) == retry, f"RetryInfo: {failed.retry}")
    if retry:
        wait = failed.retry.retry_delay
        expect(wait.seconds or wait.nanos, "RetryInfo without a delay")


class Tests:
    def __init__(self, address, schema):
        self.m, service = make_stubs(schema)
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=limits)
        grpc.channel_ready_future(self.channel).result(timeout=20)
        self.stub = service.SeeJobServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def submit(self, world, job, timeout=20, **fields):
        return self.stub.Submit(self.m.SubmitRequest(world=world, job=job, **fields), timeout=timeout)

    def stream(self, requests, timeout=60):
        """Everything that comes back, by id; each id once."""
        answers = {}
        for answer in self.stub.Stream(iter(requests), timeout=timeout):
            expect(answer.id not in answers, f"two answers to id {answer.id}")
            answers[answer.id] = answer
        return answers

    def request(self, id, world, job, seconds=None):
        timeout = None if seconds is None else duration_pb2.Duration(nanos=int(seconds * 1e9))
        return self.m.StreamRequest(id=id, submit=self.m.SubmitRequest(world=world, job=job), timeout=timeout)

    # --- Submit

    def submits(self):
        for size in (0, 1, 1_000, MAX_JOB):
            job = os.urandom(size)
            answer = self.submit("echo", job)
            expect(answer.reply == job, f"{size} bytes came back as {len(answer.reply)}")
            expect(answer.machine == "hsm-echo", f"the machine is {answer.machine!r}")
            for name in ("queue_time", "machine_time"):
                expect(answer.HasField(name), f"{name} is missing")
            expect(0 < answer.machine_time.ToNanoseconds() < 20e9, f"machine_time is {answer.machine_time}")

    def submits_with_options(self):
        for priority in self.m.Priority.values():
            answer = self.submit("echo", b"x", priority=priority, idempotent=True, affinity_key="a customer")
            expect(answer.reply == b"x", f"priority {priority}")

    def measures_the_machine(self):
        answer = self.submit("slow", b"x")
        took = answer.machine_time.ToNanoseconds() / 1e9
        expect(SLOW_REPLY <= took < 20, f"the machine took {took} s")

    def submits_from_threads(self):
        def one(number):
            job = b"job %d" % number
            return self.submit("echo", job).reply == job

        with ThreadPoolExecutor(16) as threads:
            right = list(threads.map(one, range(1_000)))
        expect(all(right), f"{right.count(False)} wrong replies")

    def no_such_world(self):
        for world in ("nowhere", "", "Echo"):
            failed = failure(self.submit, world, b"x")
            expect_failure(failed, grpc.StatusCode.NOT_FOUND, "NO_SUCH_WORLD", "false", world)

    def too_large(self):
        for size in (MAX_JOB + 1, 1_000_000, 3_000_000):
            failed = failure(self.submit, "echo", bytes(size))
            expect_failure(failed, grpc.StatusCode.OUT_OF_RANGE, "JOB_TOO_LARGE", "false", "echo")

    def nowhere_to_go(self):
        started = time.monotonic()
        failed = failure(self.submit, "dark", b"x")
        expect_failure(failed, grpc.StatusCode.UNAVAILABLE, "NOT_SENT", "false", "dark", retry=True)
        expect(time.monotonic() - started > 0.9, "the job was not held for a machine to come back")

    def machine_dies(self):
        failed = failure(self.submit, "faulty", b"x")
        expect_failure(failed, grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN", "true", "faulty")
        expect(failed.info.metadata["machine"] == "hsm-faulty", f"metadata {dict(failed.info.metadata)}")

    def idempotent_job_fails_in_the_end(self):
        failed = failure(self.submit, "faulty", b"x", idempotent=True)
        expect_failure(failed, grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN", "true", "faulty")

    def deadline(self):
        started = time.monotonic()
        failed = failure(self.submit, "slow", b"x", timeout=0.3)
        expect(failed.code == grpc.StatusCode.DEADLINE_EXCEEDED, f"{failed}")
        expect(time.monotonic() - started < SLOW_REPLY, "the deadline was not kept")
        # The server's own account may lose the race against the client's clock; where it came, it is right.
        if failed.info:
            expect_failure(failed, grpc.StatusCode.DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", "true", "slow")

    def cancelled(self):
        call = self.stub.Submit.future(self.m.SubmitRequest(world="slow", job=b"x"), timeout=20)
        call.cancel()
        expect(call.cancelled(), "the call is not cancelled")
        expect(self.submit("echo", b"after").reply == b"after", "the connection does not go on")

    def queue_full(self):
        """4 in flight and 256 that wait are the most; each of those refused did certainly not run."""
        request = self.m.SubmitRequest(world="slow", job=b"x")
        calls = [self.stub.Submit.future(request, timeout=60) for _ in range(300)]
        refused = queue.Queue()
        for call in calls:
            call.add_done_callback(lambda call: refused.put(call))
        failed = [Failed(call) for call in (refused.get(timeout=20) for _ in range(8)) if call.code() != grpc.StatusCode.OK]
        expect(failed, "no job was refused")
        for one in failed:
            expect_failure(one, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "false", "slow", retry=True)
        for call in calls:
            call.cancel()
        expect(self.submit("slow", b"after", timeout=60).reply == b"after", "cancelled jobs keep their places")

    # --- Stream

    def streams(self):
        # The caller keeps at most as many unanswered as the queue is long; it is its own brake.
        count, room = 5_000, threading.Semaphore(200)

        def requests():
            for id in range(count):
                room.acquire(timeout=60)
                # Only the first names the world.
                yield self.request(id, "" if id else "echo", b"job %d" % id)

        seen = set()
        for answer in self.stub.Stream(requests(), timeout=60):
            room.release()
            expect(answer.id not in seen, f"two answers to id {answer.id}")
            expect(answer.reply.reply == b"job %d" % answer.id, f"{answer.id}: {answer}")
            seen.add(answer.id)
        expect(len(seen) == count, f"{len(seen)} answers to {count} jobs")

    def streams_any_id(self):
        ids = [0, 1, 2**32, 2**64 - 1]
        answers = self.stream(self.request(id, "echo", b"%d" % id) for id in ids)
        expect({id: answer.reply.reply for id, answer in answers.items()} == {id: b"%d" % id for id in ids}, f"{answers}")

    def streams_overtake(self):
        """A quick job does not wait behind a slow one."""
        order = [answer.id for answer in self.stub.Stream(iter([self.request(1, "slow", b"x"), self.request(2, "echo", b"x")]), timeout=20)]
        expect(order == [2, 1], f"the answers came in order {order}")

    def failures_do_not_end_the_stream(self):
        answers = self.stream(
            [
                self.request(1, "nowhere", b"x"),
                self.request(2, "echo", bytes(MAX_JOB + 1)),
                self.request(3, "dark", b"x"),
                self.request(4, "faulty", b"x"),
                self.request(5, "slow", b"x", seconds=0.3),
                self.request(6, "dark", b"x", seconds=0.2),
                self.m.StreamRequest(id=7),
                self.request(8, "echo", b"the last"),
            ]
        )
        code = grpc.StatusCode
        expected = {
            1: (code.NOT_FOUND, "NO_SUCH_WORLD", False),
            2: (code.OUT_OF_RANGE, "JOB_TOO_LARGE", False),
            3: (code.UNAVAILABLE, "NOT_SENT", False),
            4: (code.UNKNOWN, "OUTCOME_UNKNOWN", True),
            5: (code.DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", True),
            6: (code.DEADLINE_EXCEEDED, "NOT_SENT", False),
            7: (code.INVALID_ARGUMENT, "MALFORMED", False),
        }
        for id, (code, reason, may_have_run) in expected.items():
            expect(id in answers, f"no answer to id {id}")
            got = answers[id].failure
            wanted = (code.value[0], reason, may_have_run)
            expect((got.code, got.reason, got.may_have_run) == wanted, f"id {id}: wanted {wanted}, got {got}")
            expect(got.message, f"id {id} has no message")
        expect(answers[8].reply.reply == b"the last", f"{answers[8]}")

    def first_job_without_a_world(self):
        answers = self.stream([self.request(1, "", b"x"), self.request(2, "echo", b"x")])
        expect(answers[1].failure.reason in ("NO_SUCH_WORLD", "MALFORMED"), f"{answers[1]}")
        expect(not answers[1].failure.may_have_run, f"{answers[1]}")
        expect(answers[2].reply.reply == b"x", f"{answers[2]}")

    # --- ListWorlds, health, reflection

    def list_worlds(self):
        worlds = {world.name: world for world in self.stub.ListWorlds(self.m.ListWorldsRequest(), timeout=20).worlds}
        expect(sorted(worlds) == ["dark", "echo", "faulty", "slow"], f"{sorted(worlds)}")
        ready = {name: world.ready for name, world in worlds.items()}
        expect(ready == {"dark": False, "echo": True, "faulty": True, "slow": True}, f"ready: {ready}")
        echo = worlds["echo"]
        expect(list(echo.machines) == ["hsm-echo"], f"{echo}")
        expect(echo.published_as == "the echo world" and echo.max_job_bytes == MAX_JOB, f"{echo}")
        expect(worlds["slow"].published_as == "slow", "published_as is the name by default")

    def health_check(self):
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        names = {"": serving, SERVICE: serving, "world/echo": serving, "world/slow": serving, "world/dark": not_serving}
        for name, wanted in names.items():
            status = self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status
            expect(status == wanted, f"{name!r} is {status}")
        for name in ("world/nowhere", "seeway.v1.NoSuchService"):
            try:
                self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
                raise AssertionError(f"{name} has a health")
            except grpc.RpcError as error:
                expect(error.code() == grpc.StatusCode.NOT_FOUND, f"{name}: {error.code()}")

    def health_watch(self):
        for name, wanted in (("world/echo", health_pb2.HealthCheckResponse.SERVING), ("world/dark", health_pb2.HealthCheckResponse.NOT_SERVING)):
            watch = self.health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20)
            expect(next(watch).status == wanted, f"{name}")
            watch.cancel()

    def reflection(self):
        # The messages of v1 are those of v1alpha under another package; only the method's name tells them apart.
        reflect = self.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        listed, described = list(reflect(iter(asked), timeout=20))
        services = {service.name for service in listed.list_services_response.service}
        expect({SERVICE, "grpc.health.v1.Health"} <= services, f"services: {services}")
        files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in described.file_descriptor_response.file_descriptor_proto]
        methods = {method.name for file in files for service in file.service if service.name == "SeeJobService" for method in service.method}
        expect(methods == {"Submit", "Stream", "Pipe", "ListWorlds"}, f"methods: {methods}")

    # --- Pipe

    def pipe(self, port, chunks, world="echo"):
        """Everything that a port inside the machine answers to these chunks and the end after them."""
        opening = self.m.PipeRequest(open=self.m.PipeOpen(world=world, port=port))
        requests = iter([opening, *(self.m.PipeRequest(data=chunk) for chunk in chunks)])
        return b"".join(answer.data for answer in self.stub.Pipe(requests, timeout=60))

    def pipe_to_seejobs(self):
        """Port 0 is the machine's SEEJobs port: its own protocol through a plain pipe."""
        answers = queue.Queue()
        requests = queue.Queue()
        requests.put(self.m.PipeRequest(open=self.m.PipeOpen(world="echo")))
        requests.put(self.m.PipeRequest(data=no_op(7)))
        call = self.stub.Pipe(iter(requests.get, None), timeout=20)

        def read():
            received = b""
            while len(received) < 20:
                received += next(call).data
            answers.put(received)

        threading.Thread(target=read, daemon=True).start()
        answer = Reply(answers.get(timeout=20)[4:])
        expect(answer.tag == 7 and answer.status == 0, f"{answer}")
        requests.put(None)
        expect(list(call) == [], "the pipe does not end")

    def pipe_both_ways(self):
        """5 MiB each way through a server that is no machine at all, and half-close passes through in both directions."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            stream, _ = listener.accept()
            received = b"".join(iter(lambda: stream.recv(1 << 16), b""))
            stream.sendall(received[::-1])
            stream.close()

        threading.Thread(target=serve, daemon=True).start()
        data = os.urandom(5 << 20)
        chunks = [data[start : start + 50_000] for start in range(0, len(data), 50_000)]
        answer = self.pipe(listener.getsockname()[1], chunks)
        expect(answer == data[::-1], f"{len(data)} bytes came back as {len(answer)}, or not as they were")

    def pipe_fails(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()[1]
        for port, world, code in (
            (closed, "echo", grpc.StatusCode.FAILED_PRECONDITION),
            (0, "nowhere", grpc.StatusCode.NOT_FOUND),
            (0, "dark", grpc.StatusCode.UNAVAILABLE),
        ):
            try:
                self.pipe(port, [], world)
                raise AssertionError(f"a pipe to port {port} of {world}")
            except grpc.RpcError as error:
                expect(error.code() == code, f"port {port} of {world}: {error.code()}: {error.details()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--schema", required=True)
    arguments = parser.parse_args()

    tests = Tests(arguments.grpc, arguments.schema)
    checks = Checks()
    for check in (
        tests.submits,
        tests.submits_with_options,
        tests.measures_the_machine,
        tests.submits_from_threads,
        tests.no_such_world,
        tests.too_large,
        tests.nowhere_to_go,
        tests.machine_dies,
        tests.idempotent_job_fails_in_the_end,
        tests.deadline,
        tests.cancelled,
        tests.streams,
        tests.streams_any_id,
        tests.streams_overtake,
        tests.failures_do_not_end_the_stream,
        tests.first_job_without_a_world,
        tests.list_worlds,
        tests.health_check,
        tests.health_watch,
        tests.reflection,
        tests.pipe_to_seejobs,
        tests.pipe_both_ways,
        tests.pipe_fails,
        tests.queue_full,
    ):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
