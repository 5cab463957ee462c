#!/usr/bin/env python3
"""Callers that have jobs done until SIGTERM, and write down what they were told of each try: "ID replied", "ID unknown WHY" or "ID not-sent WHY".

    balance_test.py --through HOST:PORT …          one connection to a balancer
    balance_test.py --among ADDR:PORT,ADDR:PORT …  grpcio chooses among gateways, as client-lib/examples/balanced.py has it
"""

import argparse
import importlib.util
import pathlib
import signal
import sys
import threading
import time

import grpc

from grpc_client_test import make_stubs

ATTEMPTS = 500


def example():
    """The example that is shown to users, as a module."""
    path = pathlib.Path(__file__).parent / "../../client-lib/examples/balanced.py"
    spec = importlib.util.spec_from_file_location("balanced", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Callers:
    def __init__(self, options):
        self.balanced = example()
        self.messages, service = make_stubs(options.schema)
        read = lambda name: pathlib.Path(name).read_bytes()
        credentials = grpc.ssl_channel_credentials(read(options.ca), read(options.key), read(options.certificate))
        if options.through:
            self.channel = grpc.secure_channel(options.through, credentials)
        else:
            named = (("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", "localhost"))
            self.channel = self.balanced.channel(f"ipv4:{options.among}", credentials, options.idempotent, named)
        self.idempotent = options.idempotent
        self.stub = service.SeeJobServiceStub(self.channel)
        self.stopped = threading.Event()
        self.ledger = open(options.ledger, "w", encoding="utf-8")
        self.lock = threading.Lock()
        self.failed = []

    def note(self, line):
        with self.lock:
            self.ledger.write(line + "\n")

    def line(self, name):
        try:
            number = 0
            while not self.stopped.is_set():
                number += 1
                self.job(f"{name}/{number}")
        except Exception as error:
            self.failed.append(f"{name}: {error!r}")

    def job(self, name):
        for attempt in range(1, ATTEMPTS):
            ident = f"{name}/{attempt}"
            request = self.messages.SubmitRequest(world="pay", job=ident.encode(), idempotent=self.idempotent)
            try:
                answer = self.stub.Submit(request, timeout=20)
                assert answer.reply == ident.encode(), f"{ident}: {answer.reply}"
                self.note(f"{ident} replied")
                return
            except grpc.RpcError as error:
                why = f"{error.code().name}: {error.details()}".replace("\n", " ")
                if not self.balanced.certainly_not_run(error):
                    self.note(f"{ident} unknown {why}")
                    return
                self.note(f"{ident} not-sent {why}")
            time.sleep(0.01)
        raise AssertionError(f"{name}: no gateway takes it")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ledger", "schema", "ca", "certificate", "key"):
        parser.add_argument(f"--{name}", required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--through")
    where.add_argument("--among")
    parser.add_argument("--lines", type=int, default=8)
    parser.add_argument("--idempotent", action="store_true")
    options = parser.parse_args()
    callers = Callers(options)
    signal.signal(signal.SIGTERM, lambda *_: callers.stopped.set())
    kind = "again" if options.idempotent else "once"
    lines = [threading.Thread(target=callers.line, args=(f"python/{kind}/{line}",)) for line in range(options.lines)]
    for line in lines:
        line.start()
    print("ready", flush=True)
    for line in lines:
        line.join()
    callers.ledger.close()
    for failed in callers.failed:
        print(failed)
    return 1 if callers.failed else 0


if __name__ == "__main__":
    sys.exit(main())
