//! Makes the configuration of what a text says: the parts that stand alone, and what they must be to each other.
//!
//! Every function notes what is wrong and goes on, with `None` for what could not be made; problems and `None` go together.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::available_parallelism;

use seeway_client::tunnel::{Endpoint, HostKey, Identity};
use seeway_proto::wire;

use super::base::Base;
use super::document::{Document, NAME_LIMIT, Section, is_name, line_of};
use super::doors::Doors;
use super::keys::probably;
use super::kind::{Located, Wrong};
use super::problem::{Gathered, Place};
use super::process::PortsOf;
use super::value::{
    Balance, Circuit, Config, HardserverAddress, Limits, Listen, Machine, NO_MACHINE, Retry, Runtime, Ssh, Whereabouts,
    Wire, World,
};
use super::{address, audit, files, login, permission};
use crate::schedule::Affinity;

/// Makes the configuration. Relative file names are taken from `base`.
pub(super) fn build(document: &Document, base: &Path, gathered: &mut Gathered) -> Option<Config> {
    let base = &Base::new(base);
    let mut build = Build { base, gathered };
    let tls = permission::tls(document.one("tls"), base, build.gathered);
    let management_tls = permission::tls(document.one("management_tls"), base, build.gathered);
    let has_tls = HasTls { front: !matches!(tls, Some(None)), management: !matches!(management_tls, Some(None)) };
    let listen = build.listen(document.one("listen"), has_tls);
    let (machines, machine_names) = build.machines(document);
    let worlds = build.worlds(document, &machine_names);
    // By the names that were written, so that a world with a problem of its own is not missed here as well.
    let world_names: Vec<&str> =
        document.all("world").filter_map(|section| Some(section.text("name")?.value)).collect();
    let permissions = permission::rules(document, &world_names, build.gathered);
    let runtime = runtime(document.one("runtime"));
    let limits = build.limits(document.one("limits"));
    let ssh = build.ssh(document.one("ssh"));
    let retry = retry(document.one("retry"));
    let balance = document.one("balance").duration("slow_start").map(|found| Balance { slow_start: found.value });
    let circuit = build.circuit(document.one("circuit"));
    let wire = build.wire(document.one("wire"));
    let token = build.token(document.one("token"));
    let trace = build.trace(document.one("trace"));
    let audit = audit::build(document.one("audit"), base, build.gathered).ok();
    if let (Some(listen), Some(tls), Some(management_tls), Some(rules)) = (&listen, &tls, &management_tls, &permissions)
    {
        let (tls, management_tls) = (tls.as_ref(), management_tls.as_ref());
        Doors { listen, tls, management_tls, rules }.check(document, build.gathered);
    }
    let needs =
        PortsOf { token: token.as_ref().and_then(Option::as_ref), trace: trace.as_ref().and_then(Option::as_ref) };
    let process = build.process(document.one("process"), machines.as_deref(), listen.as_ref(), &needs);
    Some(Config {
        listen: listen?,
        tls: tls?,
        management_tls: management_tls?,
        permissions: permissions?,
        machines: machines?,
        worlds: worlds?,
        runtime: runtime?,
        limits: limits?,
        ssh: ssh?,
        retry: retry?,
        balance: balance?,
        circuit: circuit?,
        wire: wire?,
        audit: audit?,
        trace: trace?,
        token: token?,
        process: process?,
        files: base.named(),
    })
}

/// What a document says of where its gateway is; nothing where that is wrong.
pub(super) fn whereabouts(document: &Document, base: &Path, gathered: &mut Gathered) -> Option<Whereabouts> {
    let handover = Build { base: &Base::new(base), gathered }.handover(document.one("listen"))?;
    let is_credential = |section: &Section| {
        let mut names =
            ["identity", "identity_passphrase", "certificate"].into_iter().filter_map(|key| section.text(key));
        names.any(|name| login::is_credential(name.value))
    };
    Some(Whereabouts {
        handover,
        has_user: document.one("process").given("user").is_some(),
        has_credentials: document.all("machine").any(is_credential),
    })
}

/// Where TLS is spoken; also where it is meant to be and something is wrong with it.
#[derive(Clone, Copy)]
struct HasTls {
    front: bool,
    management: bool,
}

/// What is shared by all that is made.
pub(super) struct Build<'b> {
    pub(super) base: &'b Base,
    pub(super) gathered: &'b mut Gathered,
}

impl Build<'_> {
    /// Notes what is wrong with a key's value, if anything is.
    pub(super) fn noted<T>(
        &mut self,
        section: &Section,
        key: &str,
        place: &Place,
        result: Result<T, Wrong>,
    ) -> Option<T> {
        result.map_err(|Wrong { what, fix }| self.gathered.add(place, section.path(key), what, fix)).ok()
    }

    /// A text that `read` can make something of.
    pub(super) fn text<T>(
        &mut self,
        section: &Section,
        key: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = section.text(key)?;
        self.noted(section, key, &text.place, read(text.value))
    }

    #[allow(clippy::option_option)] // Nothing where it is wrong, and that there is none where it is not given.
    fn handover(&mut self, section: &Section) -> Option<Option<PathBuf>> {
        match section.given("handover") {
            Some(_) => self.text(section, "handover", |text| address::handover(text, self.base)).map(Some),
            None => Some(None),
        }
    }

    fn listen(&mut self, section: &Section, has_tls: HasTls) -> Option<Listen> {
        let off_or_listener = |has_tls| {
            move |text: &str| if text.is_empty() { Ok(None) } else { address::listener(text, has_tls).map(Some) }
        };
        let grpc = self.text(section, "grpc", off_or_listener(has_tls.front));
        let hardserver = self.hardserver(section, has_tls.front);
        // Where changes come in elsewhere there is nothing at the admin port but pages to read, and probes and Prometheus may come from another computer.
        let has_management = section.given("management").is_some();
        let admin = self.text(section, "admin", |text| match text {
            "" => Ok(None),
            text => address::admin(text, has_management).map(Some),
        });
        let management = match section.given("management") {
            Some(_) => self.management(section, has_tls.management).map(Some),
            None => Some(None),
        };
        let upstream_hardserver = match section.given("upstream_hardserver") {
            Some(_) => {
                let of_hardserver = hardserver.iter().flatten().map(|located| ("hardserver", located.value.clone()));
                let tcp = |address: Option<Option<SocketAddr>>| address.flatten().map(HardserverAddress::Tcp);
                let others = [("grpc", tcp(grpc)), ("admin", tcp(admin)), ("management", management.clone().flatten())];
                let others = others.into_iter().filter_map(|(key, address)| Some((key, address?)));
                self.upstream_hardserver(section, &of_hardserver.chain(others).collect::<Vec<_>>()).map(Some)
            }
            None => Some(None),
        };
        let handover = self.handover(section);
        let socket_mode = self.text(section, "socket_mode", |text| {
            u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777 && mode & 0o222 != 0)
                .ok_or_else(|| Wrong::new(format!("`{text}` is not a mode"), "write it in octal, such as \"0660\""))
        });
        let socket_group = match section.given("socket_group") {
            Some(_) => self.text(section, "socket_group", files::group).map(Some),
            None => Some(None),
        };
        let management_address = management.clone().flatten();
        let listed = hardserver.as_deref().unwrap_or_default();
        let handover_address = handover.clone().flatten().map(HardserverAddress::Unix);
        let others = [("management", management_address), ("handover", handover_address)];
        self.listen_twice(section, grpc.flatten(), listed, admin.flatten(), others);
        Some(Listen {
            grpc: grpc?,
            hardserver: hardserver?.into_iter().map(|located| located.value).collect(),
            upstream_hardserver: upstream_hardserver?,
            admin: admin?,
            management: management?,
            handover: handover?,
            socket_mode: socket_mode?,
            socket_group: socket_group?,
        })
    }

    fn management(&mut self, section: &Section, has_tls: bool) -> Option<HardserverAddress> {
        let base = self.base;
        self.text(section, "management", |text| match address::management(text, base)? {
            HardserverAddress::Tls(_) if !has_tls => Err(without_certificate("[management_tls]")),
            address => Ok(address),
        })
    }

    fn hardserver(&mut self, section: &Section, has_tls: bool) -> Option<Vec<Located<HardserverAddress>>> {
        let list = section.list("hardserver")?;
        let found: Vec<_> = list
            .value
            .iter()
            .filter_map(|text| {
                let read = match address::hardserver(&text.value, self.base) {
                    Ok(HardserverAddress::Tls(_)) if !has_tls => Err(without_certificate("[tls]")),
                    read => read,
                };
                let value = self.noted(section, "hardserver", &text.place, read)?;
                Some(Located { value, place: text.place.clone() })
            })
            .collect();
        (found.len() == list.value.len()).then_some(found)
    }

    /// Where commands go that are not Seeway's. Not to Seeway itself: each connection would open another one, without end.
    fn upstream_hardserver(
        &mut self,
        section: &Section,
        listeners: &[(&'static str, HardserverAddress)],
    ) -> Option<HardserverAddress> {
        let base = self.base;
        self.text(section, "upstream_hardserver", |text| {
            let address = address::upstream_hardserver(text, base)?;
            if let Some((key, listener)) = listeners.iter().find(|(_, listener)| address::leads_to(&address, listener))
            {
                let led = if *listener == address { String::new() } else { format!(" leads to {listener}, which") };
                return Err(Wrong::new(
                    format!("{address}{led} is where Seeway listens itself, as listen.{key}"),
                    "write where the real hardserver listens, and give Seeway another address",
                ));
            }
            Ok(address)
        })
    }

    /// Notes each address that two listeners want.
    fn listen_twice(
        &mut self,
        section: &Section,
        grpc: Option<SocketAddr>,
        hardserver: &[Located<HardserverAddress>],
        admin: Option<SocketAddr>,
        others: [(&'static str, Option<HardserverAddress>); 2],
    ) {
        let single = |key: &'static str, address: Option<SocketAddr>| {
            Some((key, section.text(key)?.place, HardserverAddress::Tcp(address?)))
        };
        let all = single("grpc", grpc)
            .into_iter()
            .chain(hardserver.iter().map(|located| ("hardserver", located.place.clone(), located.value.clone())))
            .chain(single("admin", admin))
            .chain(others.into_iter().filter_map(|(key, address)| Some((key, section.text(key)?.place, address?))));
        let mut unique = Unique::default();
        for (key, place, address) in all {
            // Port 0 is another port for each.
            if !matches!(&address, HardserverAddress::Tcp(tcp) | HardserverAddress::Tls(tcp) if tcp.port() == 0)
                && let Some((first, _)) = unique.before(address::meaning(&address), (key, place.clone()))
            {
                self.gathered.add(
                    &place,
                    section.path(key),
                    format!("{address} is already listen.{first}"),
                    "give each listener an address of its own",
                );
            }
        }
    }

    /// The machines; and the names that worlds may use, each with its position, those of machines with problems too.
    fn machines(&mut self, document: &Document) -> (Option<Vec<Machine>>, BTreeMap<String, usize>) {
        let mut names = BTreeMap::new();
        let mut unique = Unique::default();
        let mut machines = Vec::new();
        let mut count = 0;
        for (position, section) in document.all("machine").enumerate() {
            count += 1;
            if let Some(name) = self.name(section, &mut unique) {
                self.check_is_machine(section, &name);
                names.entry(name).or_insert(position);
            }
            machines.extend(self.machine(section));
        }
        if count == 0 && !document.lost_section {
            self.gathered.add(&Place::Whole, "machine", "there is no [[machine]]", "add one for each CodeSafe machine");
        }
        ((machines.len() == count).then_some(machines), names)
    }

    /// Metrics have a name for no machine.
    fn check_is_machine(&mut self, section: &Section, name: &str) {
        if name == NO_MACHINE
            && let Some(written) = section.text("name")
        {
            let what = format!("`{name}` is what metrics say of jobs that no machine had");
            self.gathered.add(&written.place, section.path("name"), what, "give the machine another name");
        }
    }

    fn machine(&mut self, section: &Section) -> Option<Machine> {
        let address = self.text(section, "address", address::machine);
        let user = self.text(section, "user", |text| {
            if text.is_empty() || text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
                return Err(Wrong::new(format!("{text:?} is not a login"), "write the login at the SSH server"));
            }
            Ok(text.to_owned())
        });
        let identity = self.identity(section);
        let host_key = self.host_key(section, address.as_ref());
        let seejobs_host = self.text(section, "seejobs_host", |text| {
            if !address::is_host(text) {
                return Err(Wrong::new(
                    format!("`{text}` is neither a host's name nor an IP address"),
                    "write the host as the SSH server sees it, mostly \"127.0.0.1\"",
                ));
            }
            Ok(text.to_owned())
        });
        Some(Machine {
            name: section.text("name")?.value.to_owned(),
            address: address?,
            user: user?,
            identity: identity?,
            host_key: host_key?,
            seejobs_host: seejobs_host?,
            seejobs_port: section.number("seejobs_port")?,
            tunnels: section.number("tunnels")?,
            channels: section.number("channels")?,
            bulk_channels: section.number("bulk_channels")?,
            max_in_flight: section.number("max_in_flight")?,
            is_retired: false,
        })
    }

    /// What a machine is logged in to with.
    fn identity(&mut self, section: &Section) -> Option<Identity> {
        let base = self.base;
        let agent = match section.given("agent") {
            Some(_) => Some(self.text(section, "agent", |text| login::agent(text, base))?),
            None => None,
        };
        let passphrase = match (section.given("identity_passphrase"), &agent) {
            (Some(place), Some(_)) => {
                let what = "is given for a key that an agent has, and which is not read";
                self.gathered.add(place, section.path("identity_passphrase"), what, "take it out, or agent");
                return None;
            }
            (Some(_), None) => Some(self.text(section, "identity_passphrase", |text| login::passphrase(text, base))?),
            (None, _) => None,
        };
        let identity = self.text(section, "identity", |text| match &agent {
            Some(socket) => login::of_agent(text, base, socket),
            None => login::identity(text, base, passphrase.as_ref()),
        })?;
        match section.given("certificate") {
            Some(_) => self.text(section, "certificate", |text| login::certified(text, base, &identity)),
            None => Some(identity),
        }
    }

    fn host_key(&mut self, section: &Section, address: Option<&Endpoint>) -> Option<HostKey> {
        const FIX: &str =
            "write host_key = \"ssh-ed25519 AAAA…\", known_hosts = \"FILE\" or host_ca = \"ssh-ed25519 AAAA…\"";
        let base = self.base;
        let mut given: Vec<_> = ["host_key", "known_hosts", "host_ca"]
            .into_iter()
            .filter_map(|key| section.given(key).map(|place| (place, key)))
            .collect();
        given.sort();
        let Some((_, key)) = given.first() else {
            self.gathered.add(
                &section.place,
                section.path("host_key"),
                "is missing, and known_hosts and host_ca too: nothing says which server is the right one",
                FIX,
            );
            return None;
        };
        for (place, other) in &given[1..] {
            let what = format!("{key} and {other} are both there, the first in {}", line_of(given[0].0));
            self.gathered.add(place, section.path(other), what, "keep one of them");
        }
        match *key {
            "host_key" => self.text(section, "host_key", login::host_key),
            "host_ca" => self.text(section, "host_ca", login::host_ca),
            _ => self.text(section, "known_hosts", |text| {
                let path = files::path(text, base)?;
                match address {
                    Some(address) => login::known_hosts(&path, address).map(Some),
                    // The address's problem is noted already; without it there is no entry to look for.
                    None => Ok(None),
                }
            })?,
        }
    }

    /// The name of a machine or world, noted where it is no name or not the first of its kind.
    fn name(&mut self, section: &Section, unique: &mut Unique<String>) -> Option<String> {
        let name = section.text("name")?;
        if !is_name(name.value) {
            self.gathered.add(
                &name.place,
                section.path("name"),
                format!("{:?} is not a name", name.value),
                format!("write 1 to {NAME_LIMIT} letters, digits or any of . _ - / : @ +"),
            );
            return None;
        }
        if let Some((_, first)) = unique.before(name.value.to_owned(), ("name", name.place.clone())) {
            self.gathered.add(
                &name.place,
                section.path("name"),
                format!("the name `{}` is already taken, in {}", name.value, line_of(first)),
                "give each one a name of its own",
            );
        }
        Some(name.value.to_owned())
    }

    fn worlds(&mut self, document: &Document, machine_names: &BTreeMap<String, usize>) -> Option<Vec<World>> {
        let mut names = Unique::default();
        let mut published = Unique::default();
        let mut worlds = Vec::new();
        let mut count = 0;
        for section in document.all("world") {
            count += 1;
            let name = self.name(section, &mut names);
            let published_as = self.published_as(section, name.as_deref(), &mut published);
            let machines = self.world_machines(section, machine_names, document.lost_section);
            let affinity = self.text(section, "affinity", |text| match text {
                "prefer" => Ok(Affinity::Prefer),
                "strict" => Ok(Affinity::Strict),
                _ => Err(Wrong::new(format!("`{text}` is no affinity"), "write \"prefer\" or \"strict\"")),
            });
            worlds.extend((|| {
                Some(World {
                    name: name?,
                    published_as: published_as?,
                    machines: machines?,
                    idempotent: section.boolean("idempotent")?,
                    affinity: affinity?,
                    is_retired: false,
                })
            })());
        }
        if count == 0 && !document.lost_section {
            self.gathered.add(&Place::Whole, "world", "there is no [[world]]", "add one for each application");
        }
        (worlds.len() == count).then_some(worlds)
    }

    fn published_as(&mut self, section: &Section, name: Option<&str>, unique: &mut Unique<String>) -> Option<String> {
        let key = if section.given("published_as").is_some() { "published_as" } else { "name" };
        let Located { value: published_as, place } = section.text(key)?;
        if key == "name" {
            // A name that is no name has been noted.
            name?;
        }
        if !(1..=255).contains(&published_as.len()) || published_as.contains(char::is_control) {
            let what = format!("{published_as:?} can not be published");
            self.gathered.add(&place, section.path(key), what, "write 1 to 255 bytes of text");
            return None;
        }
        // That two worlds have one name has been noted too.
        if let Some((first, first_place)) = unique.before(published_as.to_owned(), (key, place.clone()))
            && (key, *first) != ("name", "name")
        {
            self.gathered.add(
                &place,
                section.path(key),
                format!("`{published_as}` is already published, by {}", line_of(first_place)),
                "publish each world under a name of its own",
            );
        }
        Some(published_as.to_owned())
    }

    fn world_machines(
        &mut self,
        section: &Section,
        names: &BTreeMap<String, usize>,
        lost_section: bool,
    ) -> Option<Vec<usize>> {
        let list = section.list("machines")?;
        let path = section.path("machines");
        if list.value.is_empty() {
            self.gathered.add(&list.place, path, "is empty", "name at least one machine that runs this world");
            return None;
        }
        let mut machines = Vec::new();
        let mut sound = true;
        for name in list.value {
            let Some(position) = names.get(&name.value) else {
                sound = false;
                // A machine whose header could not be read may well have this name.
                if !lost_section {
                    let fix = match probably(&name.value, names.keys().map(String::as_str)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("add a [[machine]] with name = \"{}\", or take it out", name.value),
                    };
                    self.gathered.add(&name.place, path.clone(), format!("there is no machine `{}`", name.value), fix);
                }
                continue;
            };
            if machines.contains(position) {
                sound = false;
                let what = format!("names the machine `{}` twice", name.value);
                self.gathered.add(&name.place, path.clone(), what, "take one of them out");
            } else {
                machines.push(*position);
            }
        }
        sound.then_some(machines)
    }

    fn limits(&mut self, section: &Section) -> Option<Limits> {
        let max_job_bytes = section.number("max_job_bytes");
        if let Some(max_job_bytes) = max_job_bytes {
            let message = u64::from(wire::Limits { max_job_bytes }.max_message());
            for key in ["caller_buffer_bytes", "channel_buffer_bytes"] {
                if let Some(buffer) = section.integer(key).filter(|buffer| buffer.value < message) {
                    self.gathered.add(
                        &buffer.place,
                        section.path(key),
                        format!(
                            "is {}, too small for one message of {message} bytes, which max_job_bytes = {max_job_bytes} allows",
                            buffer.value
                        ),
                        format!("write {message} or more, or lower max_job_bytes"),
                    );
                }
            }
            for key in ["queue_bytes", "caller_bytes"] {
                if let Some(bytes) = section.integer(key).filter(|bytes| bytes.value < u64::from(max_job_bytes)) {
                    self.gathered.add(
                        &bytes.place,
                        section.path(key),
                        format!("is {}, too small for one job of max_job_bytes = {max_job_bytes}", bytes.value),
                        format!("write {max_job_bytes} or more, or lower max_job_bytes"),
                    );
                }
            }
        }
        Some(Limits {
            max_job_bytes: max_job_bytes?,
            queue: section.number("queue")?,
            queue_bytes: section.number("queue_bytes")?,
            hold: section.duration("hold")?.value,
            default_timeout: section.duration("default_timeout")?.value,
            callers: section.number("callers")?,
            peer_callers: match section.number("peer_callers")? {
                0 => section.number("callers")?,
                callers => callers,
            },
            caller_jobs: section.number("caller_jobs")?,
            caller_queued: section.number("caller_queued")?,
            caller_in_flight: section.number("caller_in_flight")?,
            caller_bytes: section.number("caller_bytes")?,
            caller_buffer_bytes: section.number("caller_buffer_bytes")?,
            connection_buffer_bytes: section.number("connection_buffer_bytes")?,
            channel_buffer_bytes: section.number("channel_buffer_bytes")?,
            message_timeout: section.duration("message_timeout")?.value,
            pipes: section.number("pipes")?,
            bulk_above: section.number("bulk_above")?,
        })
    }

    fn ssh(&mut self, section: &Section) -> Option<Ssh> {
        self.at_least(section, "retry_max", &["connect_retry"]);
        self.at_least(section, "broken_after", &["keepalive_idle", "keepalive"]);
        let algorithms = self.text(section, "algorithms", login::algorithms);
        Some(Ssh {
            connect_timeout: section.duration("connect_timeout")?.value,
            connect_retry: section.duration("connect_retry")?.value,
            retry_max: section.duration("retry_max")?.value,
            refused_retry: section.duration("refused_retry")?.value,
            keepalive_idle: section.duration("keepalive_idle")?.value,
            keepalive: section.duration("keepalive")?.value,
            broken_after: section.duration("broken_after")?.value,
            max_age: section.duration("max_age")?.value,
            connect_pace: section.duration("connect_pace")?.value,
            rekey_bytes: section.number("rekey_bytes")?,
            rekey_after: section.duration("rekey_after")?.value,
            algorithms: algorithms?,
        })
    }

    /// Notes a duration that is shorter than others together.
    pub(super) fn at_least(&mut self, section: &Section, key: &'static str, others: &[&'static str]) {
        let (Some(found), Some(sum)) = (
            section.duration(key),
            others.iter().map(|other| section.duration(other).map(|found| found.value)).sum::<Option<_>>(),
        ) else {
            return;
        };
        if found.value < sum {
            // Where only the other key was written down, that is the one to blame.
            let blamed = std::iter::once(&key).chain(others).find(|key| section.given(key).is_some());
            let place = blamed.and_then(|key| section.given(key)).unwrap_or(&found.place);
            let sum = super::duration_text(sum);
            self.gathered.add(
                place,
                section.path(key),
                format!("is {}, shorter than {} ({sum})", super::duration_text(found.value), others.join(" and ")),
                format!("write {key} = \"{sum}\" or longer"),
            );
        }
    }

    fn circuit(&mut self, section: &Section) -> Option<Circuit> {
        self.at_least(section, "probe_max", &["probe_after"]);
        Some(Circuit {
            failures: section.number("failures")?,
            silent_after: section.duration("silent_after")?.value,
            probe_after: section.duration("probe_after")?.value,
            probe_max: section.duration("probe_max")?.value,
        })
    }

    fn wire(&mut self, section: &Section) -> Option<Wire> {
        let base = self.base;
        if section.given("profile").is_none() {
            return Some(Wire { profile: wire::Profile::open_1() });
        }
        let profile: Option<PathBuf> = self.text(section, "profile", |text| files::path(text, base));
        let place = section.text("profile")?.place;
        let profile = self.noted(section, "profile", &place, files::profile(&profile?))?;
        Some(Wire { profile })
    }
}

fn without_certificate(table: &str) -> Wrong {
    Wrong::new(
        format!("TLS is to be spoken there, and {table} has no certificate"),
        format!("write certificate and key under {table}; `seeway keygen DIR --tls` makes them"),
    )
}

fn runtime(section: &Section) -> Option<Runtime> {
    // A gateway that runs confined can't read any more how much of the computer it may use.
    static AUTO: OnceLock<usize> = OnceLock::new();
    let auto = || *AUTO.get_or_init(auto_shards);
    let shards = if section.is_auto("shards") { Some(auto()) } else { section.number("shards") };
    Some(Runtime {
        shards: shards?,
        drain_timeout: section.duration("drain_timeout")?.value,
        handover_timeout: section.duration("handover_timeout")?.value,
    })
}

fn retry(section: &Section) -> Option<Retry> {
    Some(Retry {
        max_attempts: section.number("max_attempts")?,
        budget_percent: section.number("budget_percent")?,
        reserve: section.number("reserve")?,
    })
}

/// 1 up to 4 cores, a quarter of the cores above that: each shard has tunnels of its own, which every machine has to bear.
fn auto_shards() -> usize {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 4).max(1)
}

/// Finds what stands twice.
struct Unique<T> {
    seen: std::collections::HashMap<T, (&'static str, Place)>,
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self { seen: std::collections::HashMap::new() }
    }
}

impl<T: Eq + Hash> Unique<T> {
    /// Where the same value stood before; `None`, and remembered, if this is its first time.
    fn before(&mut self, value: T, here: (&'static str, Place)) -> Option<&(&'static str, Place)> {
        use std::collections::hash_map::Entry;
        match self.seen.entry(value) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                entry.insert(here);
                None
            }
        }
    }
}
