#!/usr/bin/env python3
"""A gRPC client whose program is traced by OpenTelemetry's own SDK, which also says how a call names its trace.

    traced_client.py --grpc 127.0.0.1:PORT --schema proto/ --world NAME

Prints `traced NAME TRACE SPAN STATE` for each of its own spans within which jobs were sent: `submit`, one unary call; `stream`, a stream
of three jobs; `unsampled`, one of each that it does not record itself. Then `done`.
"""

import argparse

import grpc
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from grpc_client_test import make_stubs


def metadata():
    """What the SDK wants sent with a call, so that whoever answers it knows the trace."""
    carrier = {}
    propagate.inject(carrier)
    assert "traceparent" in carrier, carrier
    # A system of tracing beside it has something to say, too.
    return [*carrier.items(), ("tracestate", "other=1")]


def told(name, span):
    context = span.get_span_context()
    print("traced", name, format(context.trace_id, "032x"), format(context.span_id, "016x"), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--world", required=True)
    arguments = parser.parse_args()
    messages, service = make_stubs(arguments.schema)
    stub = service.SeeJobServiceStub(grpc.insecure_channel(arguments.grpc))

    def submit(job):
        request = messages.SubmitRequest(world=arguments.world, job=job)
        assert stub.Submit(request, metadata=metadata(), timeout=30).reply == job

    def stream(jobs):
        requests = [
            messages.StreamRequest(id=number, submit=messages.SubmitRequest(world=arguments.world, job=job))
            for number, job in enumerate(jobs)
        ]
        answers = list(stub.Stream(iter(requests), metadata=metadata(), timeout=30))
        assert {answer.id: answer.reply.reply for answer in answers} == dict(enumerate(jobs)), answers

    always = TracerProvider(sampler=ParentBased(ALWAYS_ON)).get_tracer("payments")
    never = TracerProvider(sampler=ParentBased(ALWAYS_OFF)).get_tracer("payments")
    with always.start_as_current_span("submit") as span:
        submit(b"one job")
        told("submit", span)
    with always.start_as_current_span("stream") as span:
        stream([b"one", b"two", b"three"])
        told("stream", span)
    with never.start_as_current_span("unsampled") as span:
        assert not span.get_span_context().trace_flags.sampled
        submit(b"unsampled")
        stream([b"unsampled"] * 3)
        told("unsampled", trace.get_current_span())
    print("done", flush=True)


main()
