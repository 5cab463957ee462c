//! A collector of traces: `tests/python/otlp_receiver.py`, with OpenTelemetry's own messages, and what it was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::{authority::Certified, ports, process::Process, python, wait};

/// A running collector.
pub struct Collector {
    process: Process,
    address: SocketAddr,
    arguments: Vec<String>,
}

impl Collector {
    /// Starts one without TLS.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one that speaks TLS with this certificate, and takes nothing from those who do not send this `authorization`.
    pub fn start_with_tls(server: &Certified, authorization: &str) -> Self {
        let path = |path: &std::path::Path| path.to_str().expect("the temporary folder's name is UTF-8").to_owned();
        let (certificate, key) = (path(&server.certificate), path(&server.key));
        Self::start_with(&["--certificate", &certificate, "--key", &key, "--authorization", authorization])
    }

    /// Starts one with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        // It is to come back where it was.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free(Ipv4Addr::LOCALHOST.into())));
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { process: launch(address, &arguments), address, arguments }
    }

    /// Kills it. What it was sent is forgotten.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it listened before.
    pub fn start_again(&mut self) {
        self.process = launch(self.address, &self.arguments);
    }

    /// Its address, for `trace.endpoint`.
    pub fn endpoint(&self) -> String {
        let scheme = if self.arguments.iter().any(|argument| argument == "--certificate") { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// All that it has printed: each request in hexadecimal digits, each span as JSON.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The spans that it was sent.
    pub fn spans(&self) -> Vec<Value> {
        let log = self.log();
        let spans = log
            .lines()
            .filter_map(|line| line.strip_prefix("  span "))
            .map(|span| serde_json::from_str(span).unwrap_or_else(|error| panic!("{error}: {span}")));
        spans.collect()
    }

    /// Waits until it was sent as many spans; gives them.
    pub fn until_spans(&self, count: usize, bound: Duration) -> Vec<Value> {
        wait::until(&format!("the collector has {count} spans"), bound, || {
            let spans = self.spans();
            (spans.len() >= count).then_some(spans)
        })
    }
}

fn launch(address: SocketAddr, arguments: &[String]) -> Process {
    let listen = ["--listen".to_owned(), address.to_string()];
    let mut process = python::start("otlp_receiver.py", listen.iter().chain(arguments));
    process.line("ready ");
    process
}
