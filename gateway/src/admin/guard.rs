//! Who may look and who may have something changed, and whether a request is what it seems: a browser sends what any page wants it to.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request, header};
use hyper::body::Incoming as Body;

use super::Control;
use super::server::Operator;
use crate::access::{Action, Means};

/// The header by which the console says that a request is its own. A page of another origin can't send it without asking first,
/// and is never told yes.
const CONSOLE: (HeaderName, &[u8]) = (HeaderName::from_static("x-seeway"), b"console");

/// What a browser says of a request: whether its page is from where it goes, how it came about, and what the answer is for. No page can
/// have it say something else.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether whoever asks may have something changed.
pub(super) fn may_change(operator: &Operator, control: &Control) -> Result<(), String> {
    if !operator.takes_changes {
        return Err("changes are asked for at listen.management; name it with --admin\n".into());
    }
    let identity = operator.actor.identity();
    let config = control.config();
    let (rules, worlds) = (&config.permissions, config.worlds.iter().map(|world| world.name.as_str()));
    let why = if rules.allow(identity, Action::Admin, None).is_none() {
        "no [[permission]] gives it `admin`"
    } else if identity.means() == Means::UnixUser && rules.allow_jobs(identity, worlds) {
        // A certificate is one for callers or one for operators, by its authority. A Unix user is the same user everywhere.
        "a [[permission]] lets it use worlds, and who sends jobs changes nothing here; manage as another user"
    } else {
        return Ok(());
    };
    Err(format!("{identity} may not do this: {why}\n"))
}

/// Whether a request to change something comes from a program on this machine's behalf, or from the console that this gateway has
/// sent, and not from another page in somebody's browser: that names where it comes from (`Origin`, `Sec-Fetch-Site`), or it was led
/// here by a name that its author gave this address (`Host`).
pub(super) fn from_here(request: &Request<Body>, operator: &Operator) -> Result<(), String> {
    let elsewhere = "only this gateway's own console may change it from a browser\n";
    if request.headers().get_all(FETCH_SITE).iter().any(|site| site != "same-origin") {
        return Err(elsewhere.into());
    }
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => {}
        (Some(origin), None) if is_console(request, operator, origin) => {}
        (Some(_), _) => return Err(elsewhere.into()),
    }
    is_named_by_address(request, operator)
}

/// Whether whoever looks has named this gateway as nobody else can have named it for them, and no other page in their browser asks in
/// their place: it could not read the answer, and would still take places and make work.
pub(super) fn by_address(request: &Request<Body>, operator: &Operator) -> Result<(), String> {
    if request.headers().get_all(FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none") {
        return Err("only this gateway's own console may look from a browser; open it, or type this address\n".into());
    }
    is_named_by_address(request, operator)
}

/// The same for the console's own files: a link on another page may lead to them, since they say nothing of the gateway.
pub(super) fn may_open(request: &Request<Body>, operator: &Operator) -> Result<(), String> {
    let says = |name: HeaderName, wanted: &str| request.headers().get(name).is_some_and(|said| said == wanted);
    if says(FETCH_MODE, "navigate") && says(FETCH_DESTINATION, "document") {
        return is_named_by_address(request, operator);
    }
    by_address(request, operator)
}

fn is_named_by_address(request: &Request<Body>, operator: &Operator) -> Result<(), String> {
    if operator.actor.identity().means() != Means::Anonymous {
        // Over TLS the name is one that the certificate has; and no browser speaks to a Unix socket.
        return Ok(());
    }
    let asked = request.uri().authority().map(Authority::host);
    let named = host(request).and_then(|host| host.parse::<Authority>().ok());
    let is_here = |host: &str| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    };
    let hosts = [named.as_ref().map(Authority::host), asked];
    if named.is_some() && hosts.into_iter().flatten().all(is_here) {
        return Ok(());
    }
    Err("ask by an IP address or as localhost: another name may be a browser's\n".into())
}

/// Whether a request is the console's: from a page that came from where the request goes, with a header that other pages can't send.
fn is_console(request: &Request<Body>, operator: &Operator, origin: &HeaderValue) -> bool {
    let (Ok(origin), Some(host)) = (origin.to_str(), host(request)) else { return false };
    let scheme = if operator.is_tls { "https" } else { "http" };
    let (name, value) = CONSOLE;
    let mut marks = request.headers().get_all(name).iter();
    let is_marked = marks.next().is_some_and(|mark| mark.as_bytes() == value) && marks.next().is_none();
    is_marked && origin.eq_ignore_ascii_case(&format!("{scheme}://{host}"))
}

/// What a request calls this gateway, where it says one thing.
fn host(request: &Request<Body>) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}
