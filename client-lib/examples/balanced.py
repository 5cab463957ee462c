#!/usr/bin/env python3
"""Jobs to several gateways from a client that chooses among them, with grpcio: no balancer in between.

    pip install grpcio grpcio-tools grpcio-status grpcio-health-checking
    python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. seeway/v1/see_job_service.proto
    balanced.py TARGET WORLD TEXT...

TARGET names all gateways: dns:///seeway-headless.seeway.svc:50051 (every address of the name, as of a headless Service in Kubernetes), or
ipv4:10.0.0.1:50051,10.0.0.2:50051. TLS files are taken from SEEWAY_CA, SEEWAY_CERTIFICATE and SEEWAY_KEY.
"""

import json
import os
import pathlib
import sys
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

SERVICE = "seeway.v1.SeeJobService"


def service_config(idempotent):
    """How grpcio spreads calls, and what it sends again by itself.

    `round_robin` has a connection to each gateway and takes them in turn. `healthCheckConfig` has it ask each gateway whether it is fit, so that one that
    drains gets no more calls.

    grpcio says UNAVAILABLE, too, where a connection is lost on which a call had left: that job may have run. So only a channel for jobs that may run twice
    without harm has a retry policy for UNAVAILABLE. For all others `submit` below looks at what the gateway says. What has not left this computer grpcio
    sends elsewhere in any case.
    """
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}
    if idempotent:
        policy = {
            "maxAttempts": 5,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{"service": SERVICE, "method": "Submit"}], "retryPolicy": policy}]
    return json.dumps(config)


def channel(target, credentials, idempotent=False, options=()):
    """A channel to all gateways that the target names."""
    common = [("grpc.service_config", service_config(idempotent)), ("grpc.enable_retries", 1), *options]
    return grpc.secure_channel(target, credentials, options=common)


def certainly_not_run(error):
    """Whether the gateway, or a balancer in its form, says that the job of this call did not run."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return False
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "seeway":
            return info.metadata["may_have_run"] == "false"
    return False


def submit(stub, request, timeout=30, pause=0.1):
    """The reply to a job, which is sent again, until the time is up, as long as it certainly did not run and the gateway says that it can be tried again
    (UNAVAILABLE)."""
    end = time.monotonic() + timeout
    while True:
        try:
            return stub.Submit(request, timeout=max(0.001, end - time.monotonic()))
        except grpc.RpcError as error:
            again = error.code() == grpc.StatusCode.UNAVAILABLE and certainly_not_run(error)
            if not again or time.monotonic() + pause > end:
                raise
        time.sleep(pause)


def main():
    if len(sys.argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    import seeway.v1.see_job_service_pb2 as messages
    import seeway.v1.see_job_service_pb2_grpc as service

    target, world, *jobs = sys.argv[1:]
    read = lambda name: pathlib.Path(os.environ[name]).read_bytes() if name in os.environ else None
    credentials = grpc.ssl_channel_credentials(read("SEEWAY_CA"), read("SEEWAY_KEY"), read("SEEWAY_CERTIFICATE"))
    with channel(target, credentials) as to_gateways:
        stub = service.SeeJobServiceStub(to_gateways)
        for job in jobs:
            answer = submit(stub, messages.SubmitRequest(world=world, job=job.encode()))
            print(f"{job}: {answer.reply!r} (by {answer.machine})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
