//! Decides what becomes of each line of a hardserver's configuration: a value of `seeway.toml`, or a reason why not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::hardserver::{Entry, Field, File, Problem, Section, Unread};
use super::rules::{
    Address, addresses, hardserver_of, is_for_names, plain, quoted, setting, setting_name, why_no_setting, why_not,
};

/// The SEEJobs port where an entry has none.
const SEEJOBS_PORT: u16 = 8888;
/// The longest serial number that is taken for a name, in bytes.
const ESN_LIMIT: usize = 64;
/// The longest name under which a world can be published, in bytes.
const PUBLISHED_LIMIT: usize = 255;
/// The longest time that is taken over, in seconds: a day. A hardserver's times are minutes at most.
const LONGEST_S: u64 = 86_400;
/// The longest queue that Seeway takes; the keys' table has the same.
const LONGEST_QUEUE: u64 = 1 << 24;

/// What became of a file.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    pub(super) machines: Vec<Machine>,
    pub(super) worlds: Vec<World>,
    /// Values of `[ssh]` and `[limits]`, with the line that each is from.
    pub(super) settings: Vec<Setting>,
    /// Where the hardserver itself listens, as `listen.upstream_hardserver` would have it.
    pub(super) hardserver: String,
    pub(super) taken: Vec<Taken>,
    pub(super) left: Vec<Left>,
    /// What only a person can fill in: the key, and with what.
    pub(super) open: Vec<(String, String)>,
}

/// A machine of an enabled entry of `[codesafe]`.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) esn: String,
    /// The entry's first line.
    pub(super) line: usize,
    /// Its HSM's address and the line that has it.
    pub(super) address: Option<(String, usize)>,
    pub(super) seejobs_port: (u16, Option<usize>),
}

/// A world, with the names of its machines.
#[derive(Debug)]
pub(super) struct World {
    pub(super) name: String,
    pub(super) published_as: String,
    /// Where it is named, once for each machine.
    pub(super) lines: Vec<usize>,
    pub(super) machines: Vec<String>,
}

/// A value of a table that stands once.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    /// As it stands in TOML.
    pub(super) written: String,
    pub(super) line: usize,
    pub(super) field: &'static str,
    /// What its reader has to know; may be empty.
    pub(super) remark: &'static str,
}

/// A line that was taken over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) line: usize,
    pub(super) section: String,
    pub(super) field: String,
    pub(super) value: String,
    /// The key that it became: `ssh.keepalive`.
    pub(super) key: String,
    /// The value that it became, as it stands in TOML.
    pub(super) written: String,
}

/// A line that was not taken over.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) line: usize,
    pub(super) section: String,
    /// Empty where the line is no field.
    pub(super) field: String,
    pub(super) value: String,
    pub(super) why: String,
}

impl Left {
    /// The line as it can be shown.
    pub(super) fn shown(&self) -> String {
        let Self { section, field, value, .. } = self;
        if field.is_empty() { format!("[{section}]") } else { format!("[{section}] {field}={value}") }
    }
}

impl Takeover {
    /// Takes over what can be.
    ///
    /// # Errors
    /// What is wrong with the fields that matter, in the order of their lines.
    pub(super) fn of(file: &File) -> Result<Self, Vec<Problem>> {
        let mut takeover = Self { hardserver: hardserver_of(file), ..Self::default() };
        let mut problems = Vec::new();
        let addresses = addresses(file);
        for section in &file.sections {
            match section.name.as_str() {
                "codesafe" => takeover.codesafe(section, &addresses, &mut problems),
                "server_settings" => takeover.server_settings(section, &mut problems),
                // What is used of it is noted with the machines.
                "nethsm_imports" => {}
                name => takeover.leave_section(section, why_not(name)),
            }
        }
        takeover.leave_imports(file);
        takeover.left.extend(file.unread.iter().map(|Unread { line, section, what }| Left {
            line: *line,
            section: section.clone(),
            field: String::new(),
            value: String::new(),
            why: format!("{what}; {}", why_not(section)),
        }));
        if takeover.machines.is_empty() && problems.is_empty() {
            problems.push(Problem::new(
                1,
                "has no enabled entry in [codesafe]: no machine for Seeway to reach",
                "name the configuration of the hardserver that serves the CodeSafe 5 machines, or begin with: seeway config example",
            ));
        }
        if takeover.worlds.is_empty() {
            takeover
                .open
                .push(("world[0].name".to_owned(), "the name of the world that the machines are of".to_owned()));
        }
        takeover.left.sort_by_key(|left| left.line);
        takeover.taken.sort_by_key(|taken| taken.line);
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(takeover) } else { Err(problems) }
    }

    fn take(&mut self, section: &str, field: &Field, key: String, written: String) {
        self.taken.push(Taken {
            line: field.line,
            section: section.to_owned(),
            field: field.name.clone(),
            value: field.value.clone(),
            key,
            written,
        });
    }

    fn leave(&mut self, section: &str, field: &Field, why: impl Into<String>) {
        self.left.push(Left {
            line: field.line,
            section: section.to_owned(),
            field: field.name.clone(),
            value: field.value.clone(),
            why: why.into(),
        });
    }

    fn leave_section(&mut self, section: &Section, why: &str) {
        for field in section.entries.iter().flat_map(|entry| &entry.fields) {
            self.leave(&section.name, field, why);
        }
    }

    fn codesafe(&mut self, section: &Section, addresses: &BTreeMap<String, Address>, problems: &mut Vec<Problem>) {
        for entry in &section.entries {
            match Wanted::read(entry) {
                Ok(Ok(wanted)) => self.machine(entry, &wanted, addresses),
                Ok(Err(why)) => {
                    for field in &entry.fields {
                        self.leave("codesafe", field, why);
                    }
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
    }

    fn machine(&mut self, entry: &Entry, wanted: &Wanted<'_>, addresses: &BTreeMap<String, Address>) {
        let name = self.free_name(wanted.esn);
        let address = addresses.get(&plain(wanted.esn));
        for field in &entry.fields {
            let key = |key: &str| format!("machine[{name}].{key}");
            match field.name.as_str() {
                "esn" => self.take("codesafe", field, key("name"), quoted(&name)),
                "seejobs_port" => self.take("codesafe", field, key("seejobs_port"), wanted.seejobs_port.to_string()),
                "worldid_pubname" if !field.value.is_empty() => {}
                "worldid_pubname" => {
                    self.leave("codesafe", field, "is empty, so no world has this machine; add it to a [[world]]");
                }
                "enabled" => self.leave("codesafe", field, "only enabled entries become machines"),
                other => {
                    let why = match other {
                        "image_file" => "the hardserver's host goes on loading and starting the machine",
                        "enable_ncoreapi" => "is between the HSM and its machine; nothing to do with jobs",
                        _ => "is not a field that Seeway has something for",
                    };
                    self.leave("codesafe", field, why);
                }
            }
        }
        if let Some(address) = address {
            let written = quoted(&address.written);
            self.take("nethsm_imports", &address.field, format!("machine[{name}].address"), written);
        } else {
            self.open.push((
                format!("machine[{name}].address"),
                "the host and the port of the machine's SSH server".to_owned(),
            ));
        }
        self.open.push((format!("machine[{name}].user"), "the login at the machine's SSH server".to_owned()));
        self.open.push((
            format!("machine[{name}].host_key"),
            "the SSH server's public key, from the HSM's administrator".to_owned(),
        ));
        if let Some(field) = entry.field("worldid_pubname").filter(|field| !field.value.is_empty()) {
            let world = self.world(field, &name);
            self.take("codesafe", field, format!("world[{world}].published_as"), quoted(&field.value));
        }
        self.machines.push(Machine {
            name,
            esn: wanted.esn.to_owned(),
            line: entry.line(),
            address: address.map(|address| (address.written.clone(), address.field.line)),
            seejobs_port: (wanted.seejobs_port, entry.field("seejobs_port").map(|field| field.line)),
        });
    }

    /// A machine's name by its serial number, which a second machine of the same HSM has too.
    fn free_name(&self, esn: &str) -> String {
        unique(esn, |name| self.machines.iter().any(|machine| machine.name == name))
    }

    /// Adds a machine to the world that is published under the field's value; gives the world's name.
    fn world(&mut self, field: &Field, machine: &str) -> String {
        if let Some(world) = self.worlds.iter_mut().find(|world| world.published_as == field.value) {
            world.machines.push(machine.to_owned());
            world.lines.push(field.line);
            return world.name.clone();
        }
        let mut named: String =
            field.value.chars().map(|letter| if is_for_names(letter) { letter } else { '-' }).collect();
        named.truncate(ESN_LIMIT);
        let name = unique(&named, |name| self.worlds.iter().any(|world| world.name == name));
        self.worlds.push(World {
            name: name.clone(),
            published_as: field.value.clone(),
            lines: vec![field.line],
            machines: vec![machine.to_owned()],
        });
        name
    }

    fn server_settings(&mut self, section: &Section, problems: &mut Vec<Problem>) {
        let [first, more @ ..] = section.entries.as_slice() else { return };
        for entry in more {
            problems.push(Problem::new(
                entry.line(),
                "[server_settings] has a second entry, and takes one",
                "take out the line of hyphens above it",
            ));
        }
        let mut seconds = BTreeMap::new();
        for field in &first.fields {
            let Some((table, key, least, remark)) = setting(&field.name) else {
                self.leave("server_settings", field, why_no_setting(&field.name));
                continue;
            };
            let most = if key == "queue" { LONGEST_QUEUE } else { LONGEST_S };
            let Some(number) = field.value.parse::<u64>().ok().filter(|number| *number <= most) else {
                let what = format!("{} is not a whole number up to {most}", field.name);
                problems.push(Problem::new(field.line, what, "write the number that the hardserver is to take"));
                continue;
            };
            if number < least {
                let why = format!("is {number}, and {table}.{key} is at least {least}; it keeps its default");
                self.leave("server_settings", field, why);
                continue;
            }
            if field.name != "connect_maxqueue" {
                seconds.insert(key, number);
            }
            let written = if key == "queue" { number.to_string() } else { format!("\"{number}s\"") };
            self.take("server_settings", field, format!("{table}.{key}"), written.clone());
            let field_name = setting_name(&field.name);
            self.settings.push(Setting { table, key, written, line: field.line, field: field_name, remark });
        }
        self.mend_broken_after(&seconds);
    }

    /// Seeway wants `broken_after` to leave time for one keepalive at least; a hardserver takes any.
    fn mend_broken_after(&mut self, seconds: &BTreeMap<&str, u64>) {
        let of = |key: &str, default: u64| seconds.get(key).copied().unwrap_or(default);
        let least = of("keepalive_idle", 30) + of("keepalive", 10);
        if of("broken_after", 90) >= least {
            return;
        }
        let written = format!("\"{least}s\"");
        let remark = "raised: it has to leave time for ssh.keepalive_idle and ssh.keepalive";
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == "broken_after") {
            setting.written.clone_from(&written);
            setting.remark = remark;
            for taken in self.taken.iter_mut().filter(|taken| taken.key == "ssh.broken_after") {
                taken.written.clone_from(&written);
            }
        } else if let Some(cause) =
            self.settings.iter().find(|setting| ["keepalive_idle", "keepalive"].contains(&setting.key))
        {
            let (line, field) = (cause.line, cause.field);
            self.settings.push(Setting { table: "ssh", key: "broken_after", written, line, field, remark });
        }
    }

    /// The lines of `[nethsm_imports]` that no machine needed.
    fn leave_imports(&mut self, file: &File) {
        let used: BTreeSet<usize> =
            self.taken.iter().filter(|taken| taken.section == "nethsm_imports").map(|taken| taken.line).collect();
        for entry in file.entries("nethsm_imports") {
            let is_used = entry.fields.iter().any(|field| used.contains(&field.line));
            for field in entry.fields.iter().filter(|field| !used.contains(&field.line)) {
                let why = match field.name.as_str() {
                    "remote_ip" if field.value.parse::<IpAddr>().is_err() => {
                        "is no IP address; where an enabled entry of [codesafe] is on this HSM, write machine.address yourself"
                    }
                    "remote_ip" => "no enabled entry of [codesafe] is on this HSM",
                    "remote_esn" if is_used => "said which machine's address remote_ip is",
                    _ => "is the hardserver's own connection to the HSM; it keeps it",
                };
                self.leave("nethsm_imports", field, why);
            }
        }
    }
}

/// What an entry of `[codesafe]` asks for.
struct Wanted<'e> {
    esn: &'e str,
    seejobs_port: u16,
}

impl<'e> Wanted<'e> {
    /// Reads an entry: what it asks for, or why it is none for Seeway; or what is wrong with it.
    fn read(entry: &'e Entry) -> Result<Result<Self, &'static str>, Vec<Problem>> {
        let mut problems = Vec::new();
        let is_enabled = match entry.value("enabled").map(str::to_ascii_lowercase).as_deref() {
            None | Some("yes") => true,
            Some("no") => false,
            Some(_) => {
                let line = entry.field("enabled").map_or(entry.line(), |field| field.line);
                problems.push(Problem::new(line, "enabled is neither yes nor no", "write enabled=yes or enabled=no"));
                false
            }
        };
        let seejobs_port = match entry.field("seejobs_port").filter(|field| !field.value.is_empty()) {
            None => SEEJOBS_PORT,
            Some(field) => field.value.parse().unwrap_or_else(|_| {
                let fix = "write the port that the machine takes SEEJobs at, mostly 8888, or 0 for none";
                problems.push(Problem::new(field.line, "seejobs_port is not a port", fix));
                SEEJOBS_PORT
            }),
        };
        let esn = entry.value("esn").unwrap_or_default();
        let is_esn = (1..=ESN_LIMIT).contains(&esn.len())
            && esn.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_esn && (is_enabled || !esn.is_empty()) {
            let line = entry.field("esn").map_or(entry.line(), |field| field.line);
            let what = if esn.is_empty() { "the entry has no esn" } else { "esn is not a serial number" };
            problems.push(Problem::new(
                line,
                what,
                "write the HSM's electronic serial number, such as esn=1111-2222-3333",
            ));
        }
        let is_no_name = |field: &&Field| field.value.len() > PUBLISHED_LIMIT || field.value.contains('\t');
        if let Some(field) = entry.field("worldid_pubname").filter(is_no_name) {
            let what = format!("worldid_pubname has more than {PUBLISHED_LIMIT} bytes, or a tab");
            problems.push(Problem::new(field.line, what, "write another one, there and in the legacy callers"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if !is_enabled {
            return Ok(Err("its entry is not enabled"));
        }
        if seejobs_port == 0 {
            return Ok(Err("its entry has seejobs_port=0: the machine takes no SEEJobs"));
        }
        Ok(Ok(Self { esn, seejobs_port }))
    }
}

/// A name that is not taken yet: the one that is wanted, or that with the first number that makes it another.
fn unique(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut name = wanted.to_owned();
    let mut count = 1;
    while is_taken(&name) {
        count += 1;
        name = format!("{wanted}.{count}");
    }
    name
}
