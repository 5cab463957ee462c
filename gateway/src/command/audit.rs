//! `seeway audit verify`: whether an audit log is as the gateway wrote it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Failure, write_json};
use crate::audit::{Hash, Report, Verifier, WantedHead};
use crate::config::read_audit_key;

/// Look after an audit log
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway audit verify /var/log/seeway/audit.jsonl")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(VerifyArgs),
}

/// Say whether an audit log is as the gateway wrote it
///
/// Reads the files, oldest first, and checks that each record follows the one before it: a record that was removed, changed, inserted
/// or moved shows, with its line. Prints the head: the last record's number and hash. Records that were cut off the end can't be
/// missed by the log itself: keep a head elsewhere (this command prints it, and the admin port has it at /audit) and give it with --head.
/// Whoever can write the log and has no key to find can make all hashes anew; with audit.key in the configuration nobody can without it.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[command(after_help = "\
Exit status: 0 the chain holds, 1 it does not, or a file can not be read.

Examples:
  seeway audit verify /var/log/seeway/audit.jsonl.1 /var/log/seeway/audit.jsonl
  seeway audit verify audit.jsonl --key /etc/seeway/audit.key --head 4711:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  journalctl --output=cat SYSLOG_IDENTIFIER=seeway-audit | seeway audit verify - --json | jq -r .head")]
pub struct VerifyArgs {
    /// The log's files, oldest first; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A head that was kept elsewhere, as HASH or NUMBER:HASH: it must be among the records
    #[arg(long, value_name = "HEAD", value_parser = parse_head)]
    head: Option<WantedHead>,
    /// The file of the key that the log is written with (audit.key)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_head(text: &str) -> Result<WantedHead, String> {
    let (sequence, hash) = match text.split_once(':') {
        Some((sequence, hash)) => {
            (Some(sequence.parse().map_err(|_| format!("`{sequence}` is not a record's number"))?), hash)
        }
        None => (None, text),
    };
    let hash = hash.parse::<Hash>().map_err(|error| error.to_string())?;
    Ok(WantedHead { sequence, hash })
}

/// Does what is asked for.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Command::Verify(args) = &args.command;
    let key = args.key.as_deref().map(read_audit_key).transpose().map_err(Failure::Failed)?;
    let mut verifier = Verifier::new(key, args.head);
    for path in &args.files {
        let name = path.display().to_string();
        let failed = |error: io::Error| {
            let fix = match error.kind() {
                io::ErrorKind::NotFound => "name the file that audit.to has in the configuration",
                _ => "run it as a user who may, or copy the file",
            };
            Failure::Failed(format!("{name} can not be read: {error}; {fix}"))
        };
        verifier.file(&name, BufReader::with_capacity(1 << 16, open(path).map_err(failed)?)).map_err(failed)?;
    }
    let report = verifier.finish();
    if args.json {
        write_json(out, &as_json(&report))?;
    } else {
        print(&report, out)?;
    }
    if report.holds() { Ok(()) } else { Err(Failure::Said) }
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) })
}

fn as_json(report: &Report) -> serde_json::Value {
    let fault =
        |fault: &crate::audit::Fault| json!({ "file": fault.file, "line": fault.line, "what": fault.what.to_string() });
    json!({
        "holds": report.holds(),
        "records": report.records,
        "first": report.first,
        "head": report.head.map(|head| head.to_string()),
        "goes_on_from": report.goes_on_from.map(|head| head.to_string()),
        "chains": report.chains,
        "torn": report.torn,
        "unfinished_bytes": report.unfinished,
        "has_head": report.has_head,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
        "fault_count": report.fault_count,
    })
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for fault in &report.faults {
        writeln!(out, "{fault}")?;
    }
    let more = report.fault_count.saturating_sub(report.faults.len() as u64);
    if more > 0 {
        writeln!(out, "and {more} more")?;
    }
    if let Some(head) = report.goes_on_from {
        writeln!(out, "goes on from record {}, which is in none of these files", head.sequence)?;
    }
    if report.torn > 0 {
        let torn = report.torn;
        writeln!(out, "{torn} unfinished, of a gateway that was killed while it wrote; the next one has said so")?;
    }
    if let Some(bytes) = report.unfinished {
        writeln!(out, "the last line is unfinished ({bytes} bytes): it is being written, or the gateway was killed")?;
    }
    if report.chains > 1 {
        let chains = report.chains;
        writeln!(out, "{chains} chains, one for each start; what the end of one but the last was can not be known")?;
    }
    match report.has_head {
        Some(false) => {
            writeln!(
                out,
                "the head that was kept elsewhere is not among the records: the log was cut off, or made anew"
            )?;
        }
        Some(true) => writeln!(out, "the head that was kept elsewhere is there")?,
        None => {}
    }
    let verdict = if report.holds() { "the chain holds" } else { "the chain is broken" };
    match report.head {
        Some(head) => {
            writeln!(out, "{verdict}: {} records, {} to {}", report.records, report.first, head.sequence)?;
            writeln!(out, "head {head}")
        }
        None => writeln!(out, "there are no records, and so nothing that holds: is it the right file?"),
    }
}
