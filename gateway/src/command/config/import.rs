//! `seeway config import`: a `seeway.toml` from a hardserver's configuration, and an account of each line of it: what was taken over,
//! and what was not and why.
//!
//! `takeover` decides, `page` writes the file; this reads, prints and ends.

mod page;
mod rules;
mod takeover;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::check::counted;
use super::super::table::write_table;
use super::super::{Failure, write_json};
use super::hardserver::{self, FILE_LIMIT, PROBLEMS_LIMIT, Problem};
use takeover::{Left, Taken, Takeover};

/// Make a seeway.toml from a hardserver's configuration
///
/// Reads the machines of [codesafe], their HSMs' addresses in [nethsm_imports], and the times and limits of [server_settings]. Prints
/// a seeway.toml in which each value says which line it is from, and at whose end is what could not be taken over, line by line.
///
/// The same account goes to stderr, with what is left to fill in: the hardserver's file knows no login and no host key. `seeway check`
/// names the same places. Nothing but the file is read, and nothing is changed.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 a file was made, 1 the hardserver's file has problems or can not be read.

Examples:
  seeway config import /opt/nfast/kmdata/config/config
  seeway config import /opt/nfast/kmdata/config/config --output seeway.toml
  seeway config import config --json | jq -r '.left[] | \"\\(.line): \\(.field): \\(.why)\"'")]
pub(super) struct Args {
    /// The hardserver's configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the seeway.toml into this file, which must not be there yet; without it, to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object: the account, and the seeway.toml as `toml`
    #[arg(long)]
    json: bool,
}

/// Makes the file, and says what came of it.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes = read(&args.file).map_err(Failure::Failed)?;
    let takeover = match hardserver::parse(&bytes).and_then(|file| Takeover::of(&file)) {
        Ok(takeover) => takeover,
        Err(problems) if args.json => {
            write_json(out, &json!({ "file": args.file, "problems": problems_json(&problems) }))?;
            return Err(Failure::Said);
        }
        Err(problems) => return Err(Failure::Failed(problems_text(&args.file, &problems))),
    };
    let toml = page::write(&takeover, &args.file);
    if let Some(output) = &args.output {
        write_new(output, &toml).map_err(Failure::Failed)?;
    }
    if args.json {
        return write_json(out, &to_json(&takeover, &args.file, &toml));
    }
    if args.output.is_none() {
        write!(out, "{toml}")?;
    }
    out.flush()?;
    let mut account = Vec::new();
    write_account(&mut account, &takeover, args.output.as_deref())?;
    // Nobody can be told that the account can't be written; the file has it too.
    io::stderr().write_all(&account).ok();
    Ok(())
}

/// The bytes of the hardserver's file.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let name = file.display();
    let failed = |error: io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "name the hardserver's configuration, mostly /opt/nfast/kmdata/config/config",
            _ => "run it as a user who may read the file, or copy the file",
        };
        format!("{name} can not be read: {error}; {fix}")
    };
    // Looked at before it is opened: a pipe would wait for somebody to write to it.
    let metadata = std::fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{name} is not a file; name the hardserver's configuration"));
    }
    let mut bytes = Vec::new();
    File::open(file).and_then(|open| open.take(FILE_LIMIT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(format!("{name} has more than {FILE_LIMIT} bytes; name the hardserver's configuration"));
    }
    Ok(bytes)
}

/// Writes a file that is not there yet.
fn write_new(file: &Path, text: &str) -> Result<(), String> {
    let failed = |error: io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::AlreadyExists => "it is never overwritten: move it away, or name another",
            _ => "name a file in a folder that this user may write to",
        };
        format!("{} can not be written: {error}; {fix}", file.display())
    };
    let mut open = OpenOptions::new().write(true).create_new(true).open(file).map_err(failed)?;
    open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).map_err(failed)
}

fn problems_text(file: &Path, problems: &[Problem]) -> String {
    let listed = problems.iter().take(PROBLEMS_LIMIT);
    let mut lines: Vec<String> = vec!["nothing was made of it:".to_owned()];
    lines.extend(listed.map(|Problem { line, what, fix }| format!("{}:{line}: {what}; {fix}", file.display())));
    let count = counted(problems.len(), "problem");
    let more = format!("{count}, of which the first {PROBLEMS_LIMIT} are listed");
    lines.push(if problems.len() > PROBLEMS_LIMIT { more } else { count });
    lines.join("\n")
}

fn problems_json(problems: &[Problem]) -> Value {
    let one = |problem: &Problem| json!({ "line": problem.line, "what": problem.what, "fix": problem.fix });
    problems.iter().take(PROBLEMS_LIMIT).map(one).collect()
}

fn to_json(takeover: &Takeover, file: &Path, toml: &str) -> Value {
    let taken: Vec<Value> = takeover
        .taken
        .iter()
        .map(|taken| {
            let Taken { line, section, field, value, key, written } = taken;
            json!({ "line": line, "section": section, "field": field, "value": value, "key": key, "written": written })
        })
        .collect();
    let left: Vec<Value> = takeover
        .left
        .iter()
        .map(|Left { line, section, field, value, why }| {
            json!({ "line": line, "section": section, "field": field, "value": value, "why": why })
        })
        .collect();
    let open = takeover.open.iter().map(|(key, what)| json!({ "key": key, "what": what }));
    json!({
        "file": file,
        "problems": [],
        "taken": taken,
        "left": left,
        "open": open.collect::<Vec<_>>(),
        "toml": toml,
    })
}

/// Writes what was taken over, what was not, and what is left to do.
fn write_account(out: &mut dyn Write, takeover: &Takeover, output: Option<&Path>) -> Result<(), Failure> {
    let taken: Vec<_> = takeover
        .taken
        .iter()
        .map(|taken| {
            [
                taken.line.to_string(),
                format!("[{}] {}={}", taken.section, taken.field, taken.value),
                format!("{} = {}", taken.key, taken.written),
            ]
        })
        .collect();
    if !taken.is_empty() {
        write_table(out, ["line", "taken over", "as"], &taken)?;
        writeln!(out)?;
    }
    let left: Vec<_> =
        takeover.left.iter().map(|left| [left.line.to_string(), left.shown(), left.why.clone()]).collect();
    if !left.is_empty() {
        write_table(out, ["line", "not taken over", "why"], &left)?;
        writeln!(out)?;
    }
    let open: Vec<_> = takeover.open.iter().map(|(key, what)| [key.clone(), what.clone()]).collect();
    write_table(out, ["to fill in", "with"], &open)?;
    let name = output.map_or_else(|| "the file".to_owned(), |output| output.display().to_string());
    writeln!(out, "\nthen: seeway check --config {name} --connect")?;
    Ok(())
}
