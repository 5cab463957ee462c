//! The gateway under test: `seeway serve`, its addresses, and what it says of itself on its admin port.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use seeway_bench::Target;
use tempfile::TempDir;

use crate::{
    Config,
    machine::{field, seeway},
    ports,
    process::Process,
    wait,
};

/// A running gateway.
pub struct Gateway {
    process: Process,
    grpc: SocketAddr,
    admin: SocketAddr,
    hardserver: Vec<Target>,
    /// Where legacy callers speak TLS, and where changes come in, as they are written.
    tls: Option<String>,
    management: Option<String>,
    folder: TempDir,
    filter: Option<String>,
    /// Where it listens over TCP; empty where the kernel chose.
    ports: Vec<u16>,
    /// What its processes before this one logged.
    earlier_log: String,
}

impl Gateway {
    /// Starts one, and waits until it listens. Its machines may not be reached yet.
    pub fn start(config: &Config) -> Self {
        Self::start_logging(config, None)
    }

    /// Starts one that logs what this filter, `SEEWAY_LOG`, lets through.
    pub fn start_logging(config: &Config, filter: Option<&str>) -> Self {
        Self::launch(config, filter, Vec::new())
    }

    /// Starts one on TCP ports that stay the same when it is started again.
    pub fn start_on_fixed_ports(config: &Config, filter: Option<&str>) -> Self {
        let ports = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::LOCALHOST.into(),
        ];
        Self::launch(config, filter, ports.into_iter().map(ports::free).collect())
    }

    fn launch(config: &Config, filter: Option<&str>, ports: Vec<u16>) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        write_config(folder.path(), config, &ports);
        let (process, ready) = serve(folder.path(), filter);
        let address = |key| field(&ready, key).parse().unwrap_or_else(|error| panic!("{key} in {ready:?}: {error}"));
        let all = field(&ready, "hardserver").split(',');
        let tls = all.clone().find_map(|target| target.strip_prefix("tls:")).map(str::to_owned);
        let management = ready.contains(" management=").then(|| field(&ready, "management").to_owned());
        let hardserver = all
            .filter(|target| !target.starts_with("tls:"))
            .map(|target| target.parse().unwrap_or_else(|error| panic!("hardserver in {ready:?}: {error}")))
            .collect();
        let filter = filter.map(str::to_owned);
        let (grpc, admin, earlier_log) = (address("grpc"), address("admin"), String::new());
        Self { process, grpc, admin, hardserver, tls, management, folder, filter, ports, earlier_log }
    }

    /// Starts it again where it listened before, after it has ended. It must have been started on fixed ports.
    pub fn start_again(&mut self) {
        assert!(!self.ports.is_empty(), "this gateway's ports were chosen by the kernel and may be taken by now");
        assert!(self.process.try_exit().is_some(), "the gateway still runs");
        self.earlier_log += &self.process.log();
        (self.process, _) = serve(self.folder.path(), self.filter.as_deref());
    }

    /// Starts another one of the same configuration file that takes over from it; this is that one from then on. Gives the one before, which
    /// ends by itself.
    pub fn upgrade(&mut self) -> Process {
        let mut command = seeway();
        command.args(["serve", "--take-over", "--config"]).arg(self.folder.path().join("seeway.toml"));
        command.envs(self.filter.as_deref().map(|filter| ("SEEWAY_LOG", filter)));
        let mut process = Process::start("the next gateway", &mut command);
        let ready = process.line("ready ");
        assert_eq!(field(&ready, "grpc"), self.grpc.to_string(), "the kernel's choice of ports is taken over, too");
        std::mem::replace(&mut self.process, process)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts one, and waits until each of its machines can take a job.
    pub fn ready(config: &Config) -> Self {
        let gateway = Self::start(config);
        gateway.until_up(config.machines());
        gateway
    }

    /// Waits until each of these machines can take a job.
    pub fn until_up<S: AsRef<str>>(&self, machines: &[S]) {
        for machine in machines {
            let machine = machine.as_ref();
            let channels = || self.metrics().sum_where("seeway_channels", &format!("machine=\"{machine}\""));
            wait::until(&format!("{machine} has a channel"), wait::BOUND, || (channels() > 0.5).then_some(()));
        }
    }

    /// Waits until no caller is connected and no job is anywhere in it.
    pub fn until_idle(&self, bound: Duration) {
        wait::until("the gateway is idle", bound, || self.metrics().is_idle().then_some(()));
    }

    /// The folder that holds its configuration and its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("seeway.toml")
    }

    /// Its gRPC front end.
    pub fn grpc(&self) -> Target {
        Target::Grpc(self.grpc.to_string())
    }

    /// Its hardserver Unix socket.
    pub fn unix(&self) -> Target {
        self.hardserver_where("a Unix socket", |target| matches!(target, Target::Unix(_)))
    }

    /// Its hardserver TCP port over IPv4.
    pub fn tcp4(&self) -> Target {
        self.hardserver_where(
            "a TCP port over IPv4",
            |target| matches!(target, Target::Tcp(address) if !address.starts_with('[')),
        )
    }

    /// Its hardserver TCP port over IPv6.
    pub fn tcp6(&self) -> Target {
        self.hardserver_where(
            "a TCP port over IPv6",
            |target| matches!(target, Target::Tcp(address) if address.starts_with('[')),
        )
    }

    /// Its hardserver port where TLS is spoken, as `host:port`.
    pub fn tls(&self) -> &str {
        self.tls.as_deref().expect("it has a tls: address")
    }

    /// Where changes come in, as `--admin` takes it.
    pub fn management(&self) -> String {
        self.management.clone().expect("listen.management is set")
    }

    fn hardserver_where(&self, what: &str, wanted: impl Fn(&Target) -> bool) -> Target {
        let found = self.hardserver.iter().find(|target| wanted(target));
        found.unwrap_or_else(|| panic!("the gateway does not listen on {what}: {:?}", self.hardserver)).clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Files, sockets and pipes that it holds open.
    pub fn open_files(&self) -> usize {
        self.process.open_files()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        format!("{}{}", self.earlier_log, self.process.log())
    }

    /// Writes its configuration file anew. Nothing happens until it is told to reload.
    pub fn rewrite(&self, config: &Config) {
        write_config(self.folder.path(), config, &self.ports);
    }

    /// Writes any text into its configuration file.
    pub fn rewrite_as(&self, text: &str) {
        fs::write(self.config_file(), text).expect("the temporary folder can be written");
    }

    /// Asks it to reload, as a service manager does.
    pub fn hang_up(&mut self) {
        self.process.signal(Signal::HUP);
    }

    /// Its admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks it to drain, as a service manager does.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it ends.
    pub fn exit(&mut self, bound: Duration) -> ExitStatus {
        self.process.exit(bound)
    }

    /// Its metrics, as they are now.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "/metrics says {status}:\n{body}");
        Metrics::parse(&body)
    }

    /// Status and body of a page on the admin port; status 0 when there is none.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, &format!("Host: {}\r\n", self.admin))
    }

    /// Asks the admin port for a change; status and body of the answer.
    pub fn post(&self, path: &str) -> (u16, String) {
        self.ask("POST", path, &format!("Host: {}\r\nContent-Length: 0\r\n", self.admin))
    }

    /// Sends the admin port a request with these header lines; status and body of the answer, status 0 when there is none.
    pub fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut answer = String::new();
        let asked = TcpStream::connect(self.admin).and_then(|mut stream| {
            write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        if asked.is_err() {
            return (0, answer);
        }
        let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }
}

fn write_config(folder: &Path, config: &Config, ports: &[u16]) {
    let socket = folder.join("nserver");
    let mut text = config.text(socket.to_str().expect("the temporary folder's name is UTF-8"));
    if let [grpc, tcp4, tcp6, admin] = ports {
        let pairs = [
            (r#"grpc = "127.0.0.1:0""#, format!(r#"grpc = "127.0.0.1:{grpc}""#)),
            ("tcp:127.0.0.1:0", format!("tcp:127.0.0.1:{tcp4}")),
            ("tcp:[::1]:0", format!("tcp:[::1]:{tcp6}")),
            (r#"admin = "127.0.0.1:0""#, format!(r#"admin = "127.0.0.1:{admin}""#)),
        ];
        for (any, fixed) in pairs {
            text = text.replacen(any, &fixed, 1);
        }
    }
    fs::write(folder.join("seeway.toml"), text).expect("the temporary folder can be written");
}

/// Its process, and what it says when it is ready.
fn serve(folder: &Path, filter: Option<&str>) -> (Process, String) {
    let mut command = seeway();
    command.arg("serve").arg("--config").arg(folder.join("seeway.toml"));
    command.envs(filter.map(|filter| ("SEEWAY_LOG", filter)));
    let mut process = Process::start("the gateway", &mut command);
    let ready = process.line("ready ");
    (process, ready)
}

/// The samples of one page of metrics.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// Whether no caller is connected, and no job waits or is in flight.
    pub fn is_idle(&self) -> bool {
        ["seeway_callers", "seeway_jobs_queued", "seeway_jobs_in_flight"].iter().all(|name| self.sum(name).abs() < 0.5)
    }

    /// The sum over all series of this name. Panics when there is none: a metric that is gone must not pass for one that is zero.
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, "")
    }

    /// The sum over the series of this name of which the labels contain `label`, such as `machine="hsm-a"`.
    pub fn sum_where(&self, name: &str, label: &str) -> f64 {
        let of_name =
            |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let named: Vec<_> = self.0.iter().filter(|(series, _)| of_name(series)).collect();
        assert!(!named.is_empty(), "there is no metric {name} among {:?}", self.0.keys());
        named.into_iter().filter(|(series, _)| series.contains(label)).map(|(_, value)| value).sum()
    }

    /// The sum over the series of this name that have all of these labels, whatever others they have. Panics when there is none.
    pub fn sum_of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of_name = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let has_all =
            |series: &str| labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")));
        let found: Vec<_> = self.0.iter().filter(|(series, _)| of_name(series) && has_all(series)).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?} among {:?}", self.0.keys());
        found.into_iter().map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_series_of_one_name() {
        let page = "# TYPE jobs gauge\njobs{world=\"a\"} 2\njobs{world=\"b\"} 3\njobs_total 100\nplain 1\n";
        let metrics = Metrics::parse(page);
        assert!((metrics.sum("jobs") - 5.0).abs() < f64::EPSILON);
        assert!((metrics.sum_where("jobs", "world=\"b\"") - 3.0).abs() < f64::EPSILON);
        assert!((metrics.sum("plain") - 1.0).abs() < f64::EPSILON);
        assert!((metrics.sum_of("jobs", &[("world", "b")]) - 3.0).abs() < f64::EPSILON);
    }
}
