#!/usr/bin/env python3
"""The Helm chart, by real Helm: linted, rendered, and each object compared with Kubernetes' own schemas.

    chart_test.py --helm FILE --chart DIR --alerts FILE… --pod-values FILE --toml FILE

Last it renders the chart with the values in --pod-values and writes the seeway.toml of its ConfigMap to --toml.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

from seejob import Checks, expect

# The oldest version that Chart.yaml allows, and the newest whose schemas are here.
VERSIONS = ("1.30", "1.37")
# Objects of the Prometheus Operator: no schema of Kubernetes' has them.
FOREIGN = "monitoring.coreos.com/"


class Tests:
    def __init__(self, options):
        self.options = options
        self.chart = pathlib.Path(options.chart)
        self.example = self.chart / "ci/example-values.yaml"
        self.home = tempfile.mkdtemp(prefix="seeway-helm-")

    def helm(self, *words, ends_well=True):
        environment = {"HOME": self.home, "PATH": "/usr/bin:/bin"}
        ended = subprocess.run([self.options.helm, *map(str, words)], env=environment, capture_output=True, text=True)
        expect((ended.returncode == 0) == ends_well, f"helm {words} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        return ended.stdout if ends_well else ended.stderr

    def render(self, *words, values=None, version="1.30"):
        text = self.helm("template", "bank", self.chart, "--namespace", "hsm", "--kube-version", version + ".0", "-f", values or self.example, *words)
        objects = [found for found in yaml.safe_load_all(text) if found]
        return {(found["kind"], found["metadata"]["name"]): found for found in objects}

    def lints(self):
        said = self.helm("lint", "--strict", self.chart, "-f", self.example)
        expect("0 chart(s) failed" in said, said)

    def the_default_values_are_those_that_the_schema_accepts(self):
        schema = json.loads((self.chart / "values.schema.json").read_text())
        jsonschema.Draft7Validator.check_schema(schema)
        values = yaml.safe_load((self.chart / "values.yaml").read_text())
        jsonschema.validate(values, schema)
        expect(set(values) | {"global"} == set(schema["properties"]), "a value has no schema, or the other way round")

    def the_readme_has_every_value(self):
        values = yaml.safe_load((self.chart / "values.yaml").read_text())
        readme = (self.chart / "README.md").read_text()
        for name, value in values.items():
            inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) and value and name not in ("resources",) else [name]
            for key in inner:
                expect(f"`{key}`" in readme, f"{key} is not in the table")

    def objects_are_what_kubernetes_takes(self):
        for version in VERSIONS:
            objects = self.render(version=version)
            expect(len(objects) == 9, f"{sorted(objects)}")
            for name, found in objects.items():
                if found["apiVersion"].startswith(FOREIGN):
                    expect(found["spec"], f"{name} is empty")
                else:
                    kubernetes_validate.validate(found, version, strict=True)

    def objects_that_are_wrong_would_be_found(self):
        deployment = self.render()["Deployment", "bank-seeway"]
        deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
        try:
            kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)
        except kubernetes_validate.ValidationError:
            return
        raise AssertionError("a misspelled key is not found")

    def what_must_not_change(self):
        objects = self.render()
        deployment = objects["Deployment", "bank-seeway"]["spec"]
        expect(deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}, "an upgrade takes no gateway away first")
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        expect(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "it is confined")
        expect(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}, "it is confined")
        expect(not pod["automountServiceAccountToken"], "it has no business with Kubernetes")
        drain, pause = 30, container["lifecycle"]["preStop"]["sleep"]["seconds"]
        expect(pod["terminationGracePeriodSeconds"] > pause + drain + 4, "a drain has its time")
        longer = self.render("--set", "drainTimeoutSeconds=120")
        expect(longer["Deployment", "bank-seeway"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause + 120 + 4, "a longer one, too")
        expect('drain_timeout = "120s"' in longer["ConfigMap", "bank-seeway"]["data"]["seeway.toml"], "the gateway knows it")
        template = lambda objects: objects["Deployment", "bank-seeway"]["spec"]["template"]["metadata"]["annotations"]
        expect(template(longer) != template(objects), "another configuration makes other pods")
        # Every object finds the pods that the Deployment makes.
        labels = deployment["template"]["metadata"]["labels"]
        for kind, selector in (("Service", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            found = objects[kind, "bank-seeway"]["spec"][selector]
            found = found.get("matchLabels", found)
            expect(found.items() <= labels.items(), f"{kind} selects {found}")
        monitored = objects["ServiceMonitor", "bank-seeway"]["spec"]["selector"]["matchLabels"]
        services = [name for (kind, name), found in objects.items() if kind == "Service" and monitored.items() <= found["metadata"]["labels"].items()]
        expect(services == ["bank-seeway-headless"], f"Prometheus finds {services}")
        egress = objects["NetworkPolicy", "bank-seeway"]["spec"]["egress"]
        blocks = {rule["to"][0]["ipBlock"]["cidr"]: rule["ports"][0]["port"] for rule in egress if "ipBlock" in rule["to"][0]}
        expect(blocks == {"10.20.0.0/24": 22, "10.21.0.7/32": 2222}, f"{blocks}")

    def alerts_come_from_their_file(self):
        for alerts in self.options.alerts:
            objects = self.render("--set-file", f"prometheusRule.alerts={alerts}")
            expect(objects["PrometheusRule", "bank-seeway"]["spec"] == yaml.safe_load(pathlib.Path(alerts).read_text()), f"{alerts} is changed")

    def what_is_missing_or_wrong_is_said(self):
        for words, said in (
            (["--set-json", "machines=[]"], "machines is empty"),
            (["--set", "tls.secretName="], "tls.secretName is missing"),
            (["--set", "identity.secretName="], "identity.secretName is missing"),
            (["--set-json", "networkPolicy.machines=[]"], "no gateway could reach a machine"),
            (["--set", "knownHosts.configMapName="], "machine hsm-b has no host_key"),
            (["--set", "prometheusRule.alerts="], "--set-file prometheusRule.alerts"),
            (["--set", "replicas=0"], "replicas"),
            (["--set", "replica=3"], "replica"),
            (["--set", "settings.limitz.queue=1"], "limitz"),
            (["--set", "image.digest=sha256:abc"], "digest"),
        ):
            failed = self.helm("template", "bank", self.chart, "-f", self.example, *words, ends_well=False)
            expect(said in failed, f"{words}: {failed}")
        failed = self.helm("template", "bank", self.chart, "-f", self.example, "--kube-version", "1.29.0", ends_well=False)
        expect("1.29.0" in failed, failed)

    def a_pods_configuration(self):
        objects = self.render(values=self.options.pod_values)
        pathlib.Path(self.options.toml).write_text(objects["ConfigMap", "bank-seeway"]["data"]["seeway.toml"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("helm", "chart", "pod-values", "toml"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--alerts", nargs="+", required=True)
    tests = Tests(parser.parse_args())
    checks = Checks()
    for check in (
        tests.lints,
        tests.the_default_values_are_those_that_the_schema_accepts,
        tests.the_readme_has_every_value,
        tests.objects_are_what_kubernetes_takes,
        tests.objects_that_are_wrong_would_be_found,
        tests.what_must_not_change,
        tests.alerts_come_from_their_file,
        tests.what_is_missing_or_wrong_is_said,
        tests.a_pods_configuration,
    ):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
