#!/usr/bin/env python3
"""The Helm chart, by real Helm: linted, rendered, and each object compared with Kubernetes' own schemas.

    chart_test.py --helm FILE --chart DIR --alerts FILE… --pod-values FILE --toml FILE

Last it renders the chart with the values in --pod-values and writes the seeway.toml of its ConfigMap to --toml.
"""

import argparse
import json
import pathlib
import re
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
        self.repository = self.chart.resolve().parents[2]
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

    def settings_are_the_sections_of_the_configuration(self):
        schema = json.loads((self.chart / "values.schema.json").read_text())
        # A test of the gateway's compares this page with the gateway.
        page = (self.repository / "docs/configuration.md").read_text()
        sections = set(re.findall(r"^## `\[(\w+)\]`$", page, re.M))
        accepted = set(schema["properties"]["settings"]["propertyNames"]["enum"])
        expect(accepted == sections, f"only one of both has {accepted ^ sections}")
        # What may stand many times has a value of its own.
        repeated = re.findall(r"^## `\[\[(\w+)\]\]`$", page, re.M)
        expect(repeated and all(f"{name}s" in schema["properties"] for name in repeated), f"{repeated}")
        toml = self.render("--set", "settings.management_tls.handshakes=2")["ConfigMap", "bank-seeway"]["data"]["seeway.toml"]
        expect("[management_tls]\nhandshakes = 2\n" in toml, toml)

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

    def alerts_and_what_they_build_on_come_from_their_files(self):
        read = lambda path: yaml.safe_load(pathlib.Path(path).read_text())["groups"]
        recording = self.repository / "deploy/prometheus/rules.yml"
        needed = set()
        for alerts in self.options.alerts:
            objects = self.render("--set-file", f"prometheusRule.alerts={alerts}", "--set-file", f"prometheusRule.rules={recording}")
            spec = objects["PrometheusRule", "bank-seeway"]["spec"]
            expect(spec == {"groups": read(recording) + read(alerts)}, f"{alerts} is changed")
            names = [group["name"] for group in spec["groups"]]
            expect(len(set(names)) == len(names), f"Prometheus wants each group once: {names}")
            rules = [rule for group in spec["groups"] for rule in group["rules"]]
            recorded = {rule["record"] for rule in rules if "record" in rule}
            # A recorded name has colons; what is in quotes is no name.
            expressions = [re.sub(r'"[^"]*"', "", rule["expr"]) for rule in rules if "alert" in rule]
            asked = {name for expression in expressions for name in re.findall(r"\b[a-zA-Z_]\w*:[\w:]+", expression)}
            expect(asked <= recorded, f"{alerts} needs {asked - recorded}")
            needed |= asked
        expect(needed, "no alert builds on what is recorded: this looked at nothing")
        # Alerts of a site's own that build on nothing need no other file.
        own = {"groups": [{"name": "own", "rules": [{"alert": "Own", "expr": "up == 0"}]}]}
        objects = self.render("--set", "prometheusRule.rules=", "--set-json", f"prometheusRule.alerts={json.dumps(json.dumps(own))}")
        expect(objects["PrometheusRule", "bank-seeway"]["spec"] == own, "alerts without recorded series")

    def alerts_link_to_where_the_runbook_is_shown(self):
        """The book's own pages: that they have these entries is looked at where the book is."""
        book = "https://seeway.example/book/runbook.html"
        folder = self.repository / "deploy/prometheus"
        words = ["--set-file", f"prometheusRule.alerts={folder / 'alerts.yml'}", "--set-file", f"prometheusRule.rules={folder / 'rules.yml'}"]
        spec = self.render(*words, "--set", f"prometheusRule.runbook={book}")["PrometheusRule", "bank-seeway"]["spec"]
        links = {rule["alert"]: rule["annotations"]["runbook_url"] for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
        expect(links and links == {name: f"{book}#{name.lower()}" for name in links}, f"{links}")

    def prometheus_knows_gateways_by_the_job_that_alerts_name(self):
        (endpoint,) = self.render()["ServiceMonitor", "bank-seeway"]["spec"]["endpoints"]
        (relabeling,) = endpoint["relabelings"]
        expect(relabeling == {"targetLabel": "job", "replacement": "seeway"}, f"{relabeling}")
        for name in ("prometheus/alerts.yml", "grafana/seeway.json"):
            text = (self.repository / "deploy" / name).read_text()
            expect(set(re.findall(r'\bjob=~?\\?"([^"\\]*)', text)) == {relabeling["replacement"]}, f"{name} names another job")

    def callers_from_outside_come_in_where_a_service_is_for_them(self):
        networks = ["203.0.113.0/24", "2001:db8::/32"]
        words = ["--set-json", f"networkPolicy.callerNetworks={json.dumps(networks)}"]
        for kind in ("NodePort", "LoadBalancer"):
            for callers in ([], [{"matchLabels": {"caller": "true"}}]):
                objects = self.render("--set", f"service.type={kind}", "--set-json", f"networkPolicy.callers={json.dumps(callers)}", *words)
                policy = objects["NetworkPolicy", "bank-seeway"]
                kubernetes_validate.validate(policy, VERSIONS[0], strict=True)
                (rule,) = [rule for rule in policy["spec"]["ingress"] if any("ipBlock" in source for source in rule["from"])]
                sources = [{"namespaceSelector": caller} for caller in callers] + [{"ipBlock": {"cidr": cidr}} for cidr in networks]
                expect(rule["from"] == sources, f"{rule}")
                expect([port["port"] for port in rule["ports"]] == ["grpc", "hardserver"], f"jobs come in, and nobody reads metrics: {rule}")
        # Nobody may call: then there is no rule, since one without sources would let in everybody.
        nobody = self.render("--set-json", "networkPolicy.callers=[]", "--set-json", "networkPolicy.callerNetworks=[]")
        ports = [port["port"] for rule in nobody["NetworkPolicy", "bank-seeway"]["spec"]["ingress"] for port in rule["ports"]]
        expect(ports == ["metrics"], f"{ports}")
        # Without a policy there is nothing to write.
        self.render("--set", "service.type=NodePort", "--set", "networkPolicy.enabled=false", "--set-json", "networkPolicy.callerNetworks=[]")

    def what_is_missing_or_wrong_is_said(self):
        for words, said in (
            (["--set-json", "machines=[]"], "machines is empty"),
            (["--set", "tls.secretName="], "tls.secretName is missing"),
            (["--set", "identity.secretName="], "identity.secretName is missing"),
            (["--set-json", "networkPolicy.machines=[]"], "no gateway could reach a machine"),
            (["--set", "knownHosts.configMapName="], "machine hsm-b has no host_key"),
            (["--set", "prometheusRule.alerts="], "--set-file prometheusRule.alerts"),
            (["--set", "prometheusRule.alerts=alerts.yml"], "prometheusRule.alerts has no groups"),
            (["--set", "prometheusRule.rules=rules.yml"], "prometheusRule.rules has no groups"),
            (["--set", "prometheusRule.rules="], "world:seeway_jobs:rate5m is not recorded"),
            (["--set", "service.type=LoadBalancer", "--set-json", "networkPolicy.callerNetworks=[]"], "could not come in by a LoadBalancer"),
            (["--set", "service.type=NodePort", "--set-json", "networkPolicy.callerNetworks=[]"], "could not come in by a NodePort"),
            (["--set-json", 'networkPolicy.callerNetworks=["10.30.0.1"]'], "callerNetworks"),
            (["--set", "settings.log.level=info"], "invalid propertyName 'log'"),
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
        tests.settings_are_the_sections_of_the_configuration,
        tests.the_readme_has_every_value,
        tests.objects_are_what_kubernetes_takes,
        tests.objects_that_are_wrong_would_be_found,
        tests.what_must_not_change,
        tests.alerts_and_what_they_build_on_come_from_their_files,
        tests.alerts_link_to_where_the_runbook_is_shown,
        tests.prometheus_knows_gateways_by_the_job_that_alerts_name,
        tests.callers_from_outside_come_in_where_a_service_is_for_them,
        tests.what_is_missing_or_wrong_is_said,
        tests.a_pods_configuration,
    ):
        checks.run(check.__name__.replace("_", " "), check)
    return checks.end()


if __name__ == "__main__":
    sys.exit(main())
