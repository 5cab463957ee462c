#!/usr/bin/env python3
"""Callers over TLS in another language: grpcio, and the SEEJob wire through the standard library's TLS.

    tls_test.py --grpc localhost:PORT --hardserver localhost:PORT --ca FILE --certificate FILE --key FILE --schema proto/

The gateway asks for certificates; it serves the world `pay` to this one, and has a world `vault` that this one may not use.
"""

import argparse
import pathlib
import socket
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpc_client_test import expect_failure, failure, make_stubs
from seejob import OK, PATIENCE, UNKNOWN_ID, Checks, Closed, Connection, expect, get_published_object, no_op, see_job


class TlsConnection(Connection):
    """A connection to a `tls:` address."""

    def __init__(self, address, context):
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        self.buffer = b""


class Tests:
    def __init__(self, options):
        read = lambda name: pathlib.Path(name).read_bytes()
        self.options = options
        self.messages, self.service = make_stubs(options.schema)
        trusted = read(options.ca)
        self.bare = grpc.ssl_channel_credentials(trusted)
        self.shown = grpc.ssl_channel_credentials(trusted, read(options.key), read(options.certificate))

    def grpc_with_a_certificate(self):
        with grpc.secure_channel(self.options.grpc, self.shown) as channel:
            stub = self.service.SeeJobServiceStub(channel)
            answer = stub.Submit(self.messages.SubmitRequest(world="pay", job=b"over TLS"), timeout=20)
            expect(answer.reply == b"over TLS", f"{answer.reply}")
            worlds = [world.name for world in stub.ListWorlds(self.messages.ListWorldsRequest()).worlds]
            expect(worlds == ["pay"], f"{worlds}")
            hidden = failure(stub.Submit, self.messages.SubmitRequest(world="vault", job=b"x"), timeout=20)
            expect_failure(hidden, grpc.StatusCode.NOT_FOUND, "NO_SUCH_WORLD", "false", "vault")
            health = health_pb2_grpc.HealthStub(channel)
            seen = health.Check(health_pb2.HealthCheckRequest(service="world/pay")).status
            expect(seen == health_pb2.HealthCheckResponse.SERVING, f"{seen}")
            for name in ("world/vault", "world/vaulx"):
                try:
                    health.Check(health_pb2.HealthCheckRequest(service=name))
                    raise AssertionError(f"{name} has a health")
                except grpc.RpcError as error:
                    expect(error.code() == grpc.StatusCode.NOT_FOUND, f"{error}")
                    expect(error.details() == "service not registered", f"{error}")

    def grpc_without(self):
        with grpc.secure_channel(self.options.grpc, self.bare) as channel:
            try:
                stub = self.service.SeeJobServiceStub(channel)
                stub.ListWorlds(self.messages.ListWorldsRequest(), timeout=5)
                raise AssertionError("it was let in")
            except grpc.RpcError as error:
                expect(error.code() == grpc.StatusCode.UNAVAILABLE, f"{error}")

    def context(self, shows):
        context = ssl.create_default_context(cafile=self.options.ca)
        if shows:
            context.load_cert_chain(self.options.certificate, self.options.key)
        return context

    def hardserver_wire_with_a_certificate(self):
        with TlsConnection(self.options.hardserver, self.context(True)) as connection:
            expect(connection.socket.version() == "TLSv1.3", connection.socket.version())
            expect(connection.ask(no_op(1)).status == OK, "NoOp")
            world = connection.world("pay")
            for size in (0, 1, 4096, 262_100):
                job = (bytes(range(256)) * (size // 256 + 1))[:size]
                expect(connection.ask(see_job(7, world, job)).data == job, f"{size} bytes")
            expect(connection.ask(get_published_object(8, b"vault")).status == UNKNOWN_ID, "vault is there")

    def hardserver_wire_without(self):
        try:
            with TlsConnection(self.options.hardserver, self.context(False)) as connection:
                connection.ask(no_op(1))
        except (ssl.SSLError, OSError, Closed):
            return
        raise AssertionError("it was let in")

    def no_tls_before_1_3(self):
        context = self.context(True)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            TlsConnection(self.options.hardserver, context)
        except (ssl.SSLError, OSError):
            return
        raise AssertionError("TLS 1.2 is spoken")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grpc", "hardserver", "ca", "certificate", "key", "schema"):
        parser.add_argument(f"--{name}", required=True)
    tests = Tests(parser.parse_args())
    checks = Checks()
    for check in (
        tests.grpc_with_a_certificate,
        tests.grpc_without,
        tests.hardserver_wire_with_a_certificate,
        tests.hardserver_wire_without,
        tests.no_tls_before_1_3,
    ):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
