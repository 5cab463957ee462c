#!/usr/bin/env python3
"""What HAProxy's and Envoy's configurations must say, whatever else is changed in them: what is sent again, and what the balancer answers by itself.

    balancers_test.py --haproxy FILE --envoy FILE
"""

import argparse
import base64
import pathlib
import re
import sys

import grpc
import yaml
from google.rpc import error_details_pb2, status_pb2

from seejob import Checks, expect

NOT_SENT = (grpc.StatusCode.UNAVAILABLE.value[0], "NOT_SENT", "false")
UNKNOWN = (grpc.StatusCode.UNKNOWN.value[0], "OUTCOME_UNKNOWN", "true")


def said(encoded):
    """Code, reason and may_have_run of a grpc-status-details-bin."""
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    (detail,) = status.details
    info = error_details_pb2.ErrorInfo()
    expect(detail.Unpack(info) and info.domain == "seeway", f"{status}")
    return status.code, info.reason, info.metadata["may_have_run"]


class Tests:
    def __init__(self, options):
        self.haproxy = pathlib.Path(options.haproxy).read_text()
        self.envoy = yaml.safe_load(pathlib.Path(options.envoy).read_text())

    def haproxy_says_what_a_gateway_would(self):
        rules = re.findall(r"set-header (grpc-\S+) \"?(.*?)\"? if \{ status ([\d ]+) \}", self.haproxy)
        by_status = {}
        for name, value, statuses in rules:
            for status in statuses.split():
                by_status.setdefault(status, {})[name] = value
        expect(set(by_status) == {"500", "502", "503", "504"}, f"{by_status}")
        for status, headers in by_status.items():
            wanted = NOT_SENT if status == "503" else UNKNOWN
            expect(int(headers["grpc-status"]) == wanted[0], f"{status}: {headers}")
            expect(said(headers["grpc-status-details-bin"]) == wanted, f"{status}: {headers}")
            expect(re.search(rf"^ *http-error status {status}$", self.haproxy, re.M), f"{status} has a page of HAProxy's own")
        expect(re.search(r"set-status 200 if \{ status 500 502 503 504 \}", self.haproxy), "gRPC's answers are 200")

    def haproxy_sends_nothing_twice(self):
        expect(re.findall(r"^ *retry-on (.*)$", self.haproxy, re.M) == ["conn-failure"], "only what was not sent is sent elsewhere")

    def envoy_says_what_a_gateway_would(self):
        (listener,) = self.envoy["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        lost, unsent = manager["local_reply_config"]["mappers"]
        details = lambda mapper: mapper["headers_to_add"][0]["header"]["value"]
        expect(said(details(lost)) == UNKNOWN and lost["status_code"] == 500, "what may have run is not UNAVAILABLE")
        expect(said(details(unsent)) == NOT_SENT and "status_code" not in unsent, "what was not sent is")
        flags = lambda mapper: set(mapper["filter"]["response_flag_filter"]["flags"])
        expect(flags(lost) >= {"UC", "UR", "UT"} and flags(unsent) == {"UF", "UH", "UO"}, "flags")
        (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
        expect(route["route"]["retry_policy"]["retry_on"] == "connect-failure", "only what was not sent is sent elsewhere")
        expect(route["route"]["timeout"] == "0s", "deadlines are the gateway's matter")

    def envoy_asks_for_health_and_speaks_http2(self):
        (cluster,) = self.envoy["static_resources"]["clusters"]
        expect(cluster["health_checks"][0]["grpc_health_check"]["service_name"] == "seeway.v1.SeeJobService", "health")
        (options,) = cluster["typed_extension_protocol_options"].values()
        expect("http2_protocol_options" in options["explicit_http_config"], "HTTP/2")

    def both_keep_callers_apart(self):
        expect(re.findall(r"^ *http-reuse (.*)$", self.haproxy, re.M) == ["never"], "HAProxy mixes callers on a connection")
        (cluster,) = self.envoy["static_resources"]["clusters"]
        expect(cluster["connection_pool_per_downstream_connection"] is True, "Envoy mixes callers on a connection")
        # Connections that nobody uses any more are not kept for the hour that is Envoy's default.
        (options,) = cluster["typed_extension_protocol_options"].values()
        idle = options["common_http_protocol_options"]["idle_timeout"]
        expect(int(idle.removesuffix("s")) <= 600, idle)

    def envoy_takes_as_much_as_haproxy(self):
        (most,) = re.findall(r"^ *maxconn (\d+)$", self.haproxy, re.M)
        (cluster,) = self.envoy["static_resources"]["clusters"]
        # One for each priority: calls have the default one.
        (thresholds,) = cluster["circuit_breakers"]["thresholds"]
        wanted = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), int(most))
        expect(thresholds == {"priority": "DEFAULT", **wanted}, f"{thresholds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("haproxy", "envoy"):
        parser.add_argument(f"--{name}", required=True)
    tests = Tests(parser.parse_args())
    checks = Checks()
    for check in (
        tests.haproxy_says_what_a_gateway_would,
        tests.haproxy_sends_nothing_twice,
        tests.envoy_says_what_a_gateway_would,
        tests.envoy_asks_for_health_and_speaks_http2,
        tests.both_keep_callers_apart,
        tests.envoy_takes_as_much_as_haproxy,
    ):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
