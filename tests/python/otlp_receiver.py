#!/usr/bin/env python3
"""A collector of traces in another language: OTLP over gRPC with OpenTelemetry's own messages.

    otlp_receiver.py --listen 127.0.0.1:PORT [--certificate FILE --key FILE] [--authorization TEXT] [--refuse COUNT]

Prints `ready PORT`; then for each request `request HEX`, its bytes as they came, and for each span in it `span JSON`. With
`--refuse COUNT` it says of each request that it has refused so many of its spans.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), f"an attribute is there twice: {pairs}"
    return found


def as_json(span, resource, scope):
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": trace_pb2.Span.SpanKind.Name(span.kind),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes(span.attributes),
        "status": trace_pb2.Status.StatusCode.Name(span.status.code),
        "message": span.status.message,
        "events": [
            {"name": event.name, "time": event.time_unix_nano, "attributes": attributes(event.attributes)}
            for event in span.events
        ],
        "resource": attributes(resource.attributes),
        "scope": scope.name,
    }


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, authorization, refuse):
        self.authorization, self.refuse = authorization, refuse

    def Export(self, request, context):
        if self.authorization:
            sent = dict(context.invocation_metadata()).get("authorization")
            if sent != self.authorization:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "say who you are")
        print("request", request.SerializeToString().hex(), flush=True)
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    print("span", json.dumps(as_json(span, of_resource.resource, of_scope.scope)), flush=True)
        answer = trace_service_pb2.ExportTraceServiceResponse()
        if self.refuse:
            answer.partial_success.rejected_spans = self.refuse
            answer.partial_success.error_message = "too many"
        return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--authorization")
    parser.add_argument("--refuse", type=int, default=0)
    arguments = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    collector = Collector(arguments.authorization, arguments.refuse)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    if arguments.certificate:
        with open(arguments.key, "rb") as key, open(arguments.certificate, "rb") as certificate:
            credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
        port = server.add_secure_port(arguments.listen, credentials)
    else:
        port = server.add_insecure_port(arguments.listen)
    server.start()
    print("ready", port, flush=True)
    server.wait_for_termination()


main()
