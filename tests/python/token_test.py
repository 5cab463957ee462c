#!/usr/bin/env python3
"""Callers that show a token, in another language: grpcio's own call credentials.

    token_test.py --grpc localhost:PORT --ca FILE --token FILE --expired FILE --schema proto/

The gateway asks for no certificate; whoever has the token may use the world `pay`, and not `vault`.
"""

import argparse
import pathlib
import sys

import grpc

from grpc_client_test import expect_failure, failure, make_stubs
from seejob import Checks, expect


class Tests:
    def __init__(self, options):
        self.options = options
        self.messages, self.service = make_stubs(options.schema)

    def stub(self, token):
        trusted = grpc.ssl_channel_credentials(pathlib.Path(self.options.ca).read_bytes())
        if token is not None:
            shown = grpc.access_token_call_credentials(pathlib.Path(token).read_text().strip())
            trusted = grpc.composite_channel_credentials(trusted, shown)
        return self.service.SeeJobServiceStub(grpc.secure_channel(self.options.grpc, trusted))

    def with_a_token(self):
        stub = self.stub(self.options.token)
        request = self.messages.SubmitRequest(world="pay", job=b"with a token")
        expect(stub.Submit(request, timeout=20).reply == b"with a token", "another reply")
        worlds = [world.name for world in stub.ListWorlds(self.messages.ListWorldsRequest()).worlds]
        expect(worlds == ["pay"], f"{worlds}")
        hidden = failure(stub.Submit, self.messages.SubmitRequest(world="vault", job=b"x"), timeout=20)
        expect_failure(hidden, grpc.StatusCode.NOT_FOUND, "NO_SUCH_WORLD", "false", "vault")

    def refused(self, token, word):
        try:
            self.stub(token).ListWorlds(self.messages.ListWorldsRequest(), timeout=20)
        except grpc.RpcError as error:
            expect(error.code() == grpc.StatusCode.UNAUTHENTICATED, f"{error}")
            expect(word in error.details(), error.details())
            return
        raise AssertionError("it was let in")

    def with_a_token_that_has_expired(self):
        self.refused(self.options.expired, "expired")

    def with_none(self):
        self.refused(None, "token")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grpc", "ca", "token", "expired", "schema"):
        parser.add_argument(f"--{name}", required=True)
    tests = Tests(parser.parse_args())
    checks = Checks()
    for check in (tests.with_a_token, tests.with_a_token_that_has_expired, tests.with_none):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
