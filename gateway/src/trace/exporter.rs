//! Sends spans to the collector: a task of the control plane's, which no shard ever waits for.
//!
//! A request that fails in a way that may pass is tried again a few times, ever later, while further spans wait in the queue or are
//! dropped there. What the collector refuses is not sent again.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};
use zeroize::Zeroizing;

use super::sampler::Random;
use super::span::{Span, cut, text};
use super::{Settings, Shared};
use crate::access::token::SYSTEM_ROOTS;
use crate::config::Config;
use crate::seldom::{Seldom, Tell};

/// How often a batch is tried. With [`FIRST_WAIT`], for a quarter of a minute.
const TRIES: u32 = 5;

/// How long is waited after the first try; after each next one twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest files of certificates, and of a header, in bytes.
const CERTIFICATES_LIMIT: u64 = 16 << 20;
const HEADER_LIMIT: u64 = 16 << 10;

/// The largest answer that is taken, in bytes: it says how many spans were refused, and why.
const ANSWER_LIMIT: usize = 64 << 10;

/// What sends spans.
pub(super) struct Exporter {
    settings: Settings,
    shared: Arc<Shared>,
    config: Arc<RwLock<Arc<Config>>>,
    resource: Vec<KeyValue>,
    /// The connection, once there was one. It comes back by itself.
    client: Option<TraceServiceClient<Channel>>,
    /// Whether the last request failed.
    is_failing: bool,
}

/// Why spans are not with the collector.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// A file that the configuration names can't be used.
    #[error("{0}")]
    File(String),
    /// The address can't be used.
    #[error("the address can not be used: {0}")]
    Address(tonic::transport::Error),
    /// The collector can't be reached, or answers that it can't take them.
    #[error("{}", told(.0))]
    Refused(Box<tonic::Status>),
}

impl ExportError {
    /// Of which kind it is: another one is worth another line.
    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "a file",
            Self::Address(_) => "the address",
            Self::Refused(status) => status.code().description(),
        }
    }

    /// Whether another try may do better, as OTLP's specification has it.
    fn may_pass(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Address(_) => false,
            Self::Refused(status) => matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
                    | Code::ResourceExhausted
            ),
        }
    }
}

/// What a status says, and what lies below it, such as "connection refused": on one line and not for long, since the collector may have
/// written all of it.
fn told(status: &tonic::Status) -> String {
    let first = std::error::Error::source(status);
    let causes = std::iter::successors(first, |error| error.source());
    let causes = causes.map(|cause| format!(": {cause}")).collect::<Vec<_>>().concat();
    let said = format!("{}{causes}", status.message()).escape_debug().to_string();
    cut(&said).to_owned()
}

/// A batch that was taken from the queue and is with nobody yet. Dropping it counts its spans as dropped.
struct Taken<'e> {
    shared: &'e Shared,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.shared.queue.dropped(self.count);
    }
}

impl Exporter {
    pub(super) fn new(settings: Settings, shared: Arc<Shared>, config: Arc<RwLock<Arc<Config>>>) -> Self {
        let instance = format!("{:016x}", u64::from_be_bytes(Random::new().bytes()));
        let resource = vec![
            text("service.name", &settings.service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &instance),
        ];
        Self { settings, shared, config, resource, client: None, is_failing: false }
    }

    /// Sends what there is, until it is told to stop; then what is left, once.
    pub(super) async fn run(mut self, stop: Arc<Notify>) {
        let mut is_last = false;
        while !is_last {
            let shared = self.shared.clone();
            tokio::select! {
                () = tokio::time::sleep(self.settings.interval) => {}
                () = shared.queue.has_batch.notified() => {}
                () = stop.notified() => is_last = true,
            }
            loop {
                let batch = shared.queue.take();
                if batch.is_empty() {
                    break;
                }
                is_last |= self.send(&shared, batch, &stop, is_last).await;
            }
        }
    }

    /// Sends a batch, several times if need be; once where it is the last time. Returns whether it was told to stop meanwhile.
    async fn send(&mut self, shared: &Shared, batch: Vec<Span>, stop: &Notify, is_last: bool) -> bool {
        let mut taken = Taken { shared, count: batch.len() };
        let mut request = Some(self.request(batch));
        let (mut must_stop, mut tries, mut wait) = (is_last, 0, FIRST_WAIT);
        loop {
            tries += 1;
            let is_last_try = must_stop || tries == TRIES;
            // Kept for as long as it may have to be sent again.
            let this = if is_last_try { request.take() } else { request.clone() };
            let Some(this) = this else { return must_stop };
            match self.export(this).await {
                Ok(refused) => {
                    let refused = refused.min(taken.count);
                    shared.queue.exported(taken.count - refused);
                    shared.queue.failed(refused);
                    taken.count = 0;
                    if std::mem::take(&mut self.is_failing) {
                        static AGAIN: Seldom = Seldom::new("the collector takes spans again");
                        if let Some(Tell { untold }) = AGAIN.tell("") {
                            tracing::info!(to = %self.settings.endpoint, untold, "the collector takes spans again");
                        }
                    }
                    return must_stop;
                }
                Err(error) => {
                    static AWAY: Seldom = Seldom::new("spans are not with the collector");
                    self.is_failing = true;
                    // Certificates may have changed.
                    self.client = None;
                    let to = &self.settings.endpoint;
                    if let Some(Tell { untold }) = AWAY.tell(error.kind()) {
                        tracing::warn!(%to, %error, tries, untold, "spans are not with the collector");
                    }
                    if is_last_try || !error.may_pass() {
                        shared.queue.failed(std::mem::take(&mut taken.count));
                        return must_stop;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => wait *= 2,
                        () = stop.notified() => must_stop = true,
                    }
                }
            }
        }
    }

    fn request(&self, batch: Vec<Span>) -> ExportTraceServiceRequest {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let spans = batch.into_iter().map(|span| span.into_otlp(&config)).collect();
        let scope = InstrumentationScope {
            name: "seeway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes: self.resource.clone(), ..Resource::default() });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
        }
    }

    /// Sends a request once; returns how many of its spans the collector has refused.
    async fn export(&mut self, request: ExportTraceServiceRequest) -> Result<usize, ExportError> {
        let mut request = Request::new(request);
        request.set_timeout(self.settings.timeout);
        if let Some(file) = &self.settings.authorization {
            request.metadata_mut().insert("authorization", header(file).await.map_err(ExportError::File)?);
        }
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(client(&self.settings).await?),
        };
        let answer = client.export(request).await.map_err(|status| ExportError::Refused(Box::new(status)))?;
        let Some(partial) = answer.into_inner().partial_success else { return Ok(0) };
        if partial.rejected_spans > 0 {
            static REFUSED: Seldom = Seldom::new("the collector has refused spans");
            let why = cut(&partial.error_message);
            if let Some(Tell { untold }) = REFUSED.tell("") {
                let spans = partial.rejected_spans;
                tracing::warn!(to = %self.settings.endpoint, spans, why, untold, "the collector has refused spans");
            }
        }
        Ok(usize::try_from(partial.rejected_spans).unwrap_or_default())
    }
}

/// A client that connects when it is used.
async fn client(settings: &Settings) -> Result<TraceServiceClient<Channel>, ExportError> {
    let collector = &settings.endpoint;
    let mut endpoint = Endpoint::from_shared(collector.to_string())
        .and_then(|endpoint| endpoint.user_agent(concat!("seeway/", env!("CARGO_PKG_VERSION"))))
        .map_err(ExportError::Address)?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(settings.timeout);
    if collector.is_tls {
        let roots = roots(settings.ca.as_deref()).await.map_err(ExportError::File)?;
        let bare = collector.host.trim_start_matches('[').trim_end_matches(']');
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name(bare);
        endpoint = endpoint.tls_config(tls).map_err(ExportError::Address)?;
    }
    Ok(TraceServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(ANSWER_LIMIT))
}

/// The certificates that the collector's must lead to, in PEM form.
async fn roots(ca: Option<&Path>) -> Result<Vec<u8>, String> {
    if let Some(file) = ca {
        return read(file, CERTIFICATES_LIMIT).await;
    }
    let in_environment = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let of_system = SYSTEM_ROOTS.iter().map(std::path::PathBuf::from);
    let files: Vec<_> = match in_environment {
        Some(file) => vec![file],
        None => of_system.collect(),
    };
    for file in files {
        if let Ok(roots) = read(&file, CERTIFICATES_LIMIT).await {
            return Ok(roots);
        }
    }
    Err("no root certificates could be read; name a file of them with trace.ca".to_owned())
}

/// The header that the collector wants to see, as it stands in a file.
async fn header(file: &Path) -> Result<MetadataValue<Ascii>, String> {
    let bytes = Zeroizing::new(read(file, HEADER_LIMIT).await?);
    let header = std::str::from_utf8(&bytes).ok().and_then(|text| MetadataValue::try_from(text.trim()).ok());
    let mut header = header.ok_or_else(|| {
        format!(
            "{} holds no header; write one line such as `Bearer TOKEN` into it (trace.authorization)",
            file.display()
        )
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// A file's bytes.
async fn read(file: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} can not be read: {error}", file.display());
    let opened = tokio::fs::File::open(file).await.map_err(failed)?;
    let mut bytes = Vec::new();
    opened.take(limit).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::MAX_TEXT;

    #[test]
    fn what_a_collector_says_makes_no_line_of_its_own() {
        let refused = |said: &str| ExportError::Refused(Box::new(tonic::Status::unavailable(said))).to_string();
        assert_eq!(refused("it is full: try again"), "it is full: try again");
        let hostile = "no\n2026-01-01 INFO all is well\u{1b}[2J\u{9b}31m\u{202e}";
        assert_eq!(refused(hostile), "no\\n2026-01-01 INFO all is well\\u{1b}[2J\\u{9b}31m\\u{202e}");
        assert_eq!(refused(&"a".repeat(100_000)).len(), MAX_TEXT);
    }
}
