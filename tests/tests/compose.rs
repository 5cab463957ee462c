//! The Compose file: read by a real docker-compose, closed as it says it is, and its commands run as plain processes with its own
//! configuration files. What no test here does is run it in containers: that takes a container engine.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use seeway_tests::{
    machine::seeway,
    ports,
    process::Process,
    prometheus::Prometheus,
    repository::{read, root},
    turn::Turn,
    wait,
};
use serde_json::Value;
use tempfile::TempDir;

/// The file as docker-compose understands it: short forms written out, anchors put in.
fn compose() -> Value {
    let file = root().join("deploy/compose/compose.yaml");
    let config = Command::new("docker-compose").arg("-f").arg(&file).arg("config").output();
    let config =
        config.unwrap_or_else(|error| panic!("docker-compose: {error}; install Debian's package docker-compose"));
    assert!(config.status.success(), "docker-compose refuses the file:\n{}", String::from_utf8_lossy(&config.stderr));
    from_yaml(&config.stdout)
}

/// YAML, read by the library that docker-compose itself is made with.
fn from_yaml(text: &[u8]) -> Value {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("file.yaml");
    fs::write(&file, text).expect("the temporary folder can be written");
    let program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let json = Command::new("/usr/bin/python3").args(["-c", program]).arg(&file).output().expect("Python runs");
    assert!(json.status.success(), "{}", String::from_utf8_lossy(&json.stderr));
    serde_json::from_slice(&json.stdout).expect("JSON")
}

fn services(compose: &Value) -> &serde_json::Map<String, Value> {
    compose["services"].as_object().expect("services")
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().map(|words| words.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn every_container_is_closed_and_every_file_is_there() {
    let compose = compose();
    let mut published = Vec::new();
    for (name, service) in services(&compose) {
        let user = service["user"].as_str().unwrap_or_else(|| panic!("{name} has no user"));
        assert!(
            user.split(':').next().and_then(|number| number.parse().ok()).is_some_and(|number: u32| number > 0),
            "{name}: {user}"
        );
        assert_eq!(service["read_only"], true, "{name}: its root file system is read only");
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["privileged"].is_null() && service["cap_add"].is_null(), "{name}");
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag"));
        let is_pinned = tag.trim_start_matches('v').split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 3;
        assert!(is_pinned || service["build"].is_object(), "{name}: {image} is built here, or of one version");
        published.extend(words(&service["ports"]).into_iter().map(str::to_owned));
        for volume in words(&service["volumes"]) {
            let (from, mode) = (volume.split(':').next().expect("a source"), volume.rsplit(':').next());
            if from.starts_with('/') {
                assert!(Path::new(from).exists(), "{name}: nothing is at {from}");
                assert_eq!(mode, Some("ro"), "{name}: {volume}");
            } else {
                assert!(compose["volumes"].get(from).is_some(), "{name}: there is no volume {from}");
            }
        }
        // Whoever sends jobs without an end is well as long as it runs.
        assert!(service["healthcheck"]["test"].is_array() || name.starts_with("callers-"), "{name} has a health check");
    }
    published.sort();
    assert_eq!(published, ["127.0.0.1:3000:3000/tcp", "127.0.0.1:9090:9090/tcp"], "on loopback, one port each");
    assert_eq!(compose["networks"]["machines"]["internal"], true);
}

#[test]
fn grafana_finds_its_data_and_its_dashboard() {
    let compose = compose();
    let grafana = &compose["services"]["grafana"];
    let provisioned = |file: &str| from_yaml(read(&format!("deploy/grafana/provisioning/{file}")).as_bytes());
    let source = &provisioned("datasources/prometheus.yml")["datasources"][0];
    // Prometheus shares the gateway's network, so it is there under the gateway's name.
    assert_eq!(compose["services"]["prometheus"]["network_mode"], "service:gateway");
    assert_eq!(source["url"], "http://gateway:9090");
    assert_eq!((&source["type"], &source["isDefault"]), (&Value::from("prometheus"), &Value::from(true)));
    assert!(read("deploy/prometheus/prometheus.yml").contains("scrape_interval: 5s"));
    assert_eq!(source["jsonData"]["timeInterval"], "5s", "as Prometheus scrapes");
    let folder =
        provisioned("dashboards/seeway.yml")["providers"][0]["options"]["path"].as_str().expect("a path").to_owned();
    let dashboard = format!("{folder}/seeway.json");
    assert!(
        words(&grafana["volumes"])
            .iter()
            .any(|volume| volume.ends_with(&format!("/deploy/grafana/seeway.json:{dashboard}:ro")))
    );
    assert_eq!(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"], dashboard.as_str());
}

/// The containers' names and paths, and what stands for them here.
struct Here {
    folder: TempDir,
    replaced: BTreeMap<String, String>,
}

impl Here {
    fn new() -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let mut replaced = BTreeMap::new();
        for name in ["hsm-a", "hsm-b", "seeway"] {
            let place = folder.path().join(name);
            fs::create_dir(&place).expect("the temporary folder can be written");
            replaced.insert(format!("/run/{name}"), place.display().to_string());
        }
        for address in ["hsm-a:2222", "hsm-b:2222", "127.0.0.1:50051", "127.0.0.1:9464"] {
            let port = ports::free(Ipv4Addr::LOCALHOST.into());
            replaced.insert(address.to_owned(), format!("127.0.0.1:{port}"));
        }
        let file = folder.path().join("seeway.toml");
        replaced.insert("/etc/seeway/seeway.toml".to_owned(), file.display().to_string());
        let here = Self { folder, replaced };
        fs::write(&file, here.translated("gateway", &read("deploy/compose/seeway.toml"))).expect("it can be written");
        here
    }

    fn translated(&self, service: &str, text: &str) -> String {
        // Each HSM's address is the same within its own container.
        let own = self.replaced.get(&format!("{service}:2222"));
        let text = own.map_or(text.to_owned(), |own| text.replace("0.0.0.0:2222", own).replace("127.0.0.1:2222", own));
        self.replaced.iter().fold(text, |text, (there, here)| text.replace(there, here))
    }

    /// A service's command, or its health check's.
    fn command(&self, service: &str, words: &[&str]) -> Command {
        let mut command = seeway();
        command.args(words.iter().map(|word| self.translated(service, word))).current_dir(self.folder.path());
        command
    }

    fn start(&self, compose: &Value, service: &str) -> Process {
        let of = &compose["services"][service];
        assert_eq!(words(&of["entrypoint"]), ["/usr/bin/seeway"]);
        Process::start(service, &mut self.command(service, &words(&of["command"])))
    }

    /// Runs a service's health check until it is content.
    fn until_healthy(&self, compose: &Value, service: &str) {
        let test = words(&compose["services"][service]["healthcheck"]["test"]);
        let ["CMD", "/usr/bin/seeway", arguments @ ..] = &test[..] else { panic!("{service}: {test:?}") };
        wait::until(&format!("{service} is healthy"), wait::BOUND, || {
            let mut command = self.command(service, arguments);
            let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the binary runs");
            ended.success().then_some(())
        });
    }
}

#[test]
fn its_commands_carry_jobs_at_both_listeners_and_prometheus_sees_them() {
    let _turn = Turn::beside_others();
    let compose = compose();
    let here = Here::new();
    let machines = ["hsm-a", "hsm-b"].map(|name| {
        let machine = here.start(&compose, name);
        here.until_healthy(&compose, name);
        machine
    });
    let mut gateway = here.start(&compose, "gateway");
    gateway.line("ready ");
    here.until_healthy(&compose, "gateway");
    let callers = ["callers-hardserver", "callers-grpc"].map(|name| here.start(&compose, name));
    let prometheus = Prometheus::start(here.replaced["127.0.0.1:9464"].parse().expect("an address"));
    for world in ["payments", "ledger"] {
        let replied = format!("rate(seeway_jobs_total{{world=\"{world}\",outcome=\"replied\"}}[10s]) > 0");
        wait::until(&format!("jobs of {world} are replied to"), wait::BOUND, || {
            (!prometheus.query(&replied).is_empty()).then_some(())
        });
    }
    for mut process in machines.into_iter().chain(callers).chain([gateway]) {
        assert!(process.try_exit().is_none(), "none has ended by itself:\n{}", process.tail(20));
    }
}
