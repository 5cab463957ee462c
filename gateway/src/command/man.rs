//! `seeway man`: a manual page for each command, made from the command line's own help; packages install them.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, Failure};

/// What stands at the bottom of each page.
const SOURCE: &str = concat!("seeway ", env!("CARGO_PKG_VERSION"));
/// What stands at the top of each page.
const MANUAL: &str = "Seeway";
/// The line of a command's further help below which its examples stand.
const EXAMPLES: &str = "Examples:";

/// Print the manual page of a command, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway man check | man -l -
  seeway man audit verify | man -l -
  seeway man --output /usr/share/man/man1")]
pub struct Args {
    /// The command whose page is printed; without one, the page of seeway itself
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Vec<String>,
    /// Write a page for each command into this folder, which is made where it is not there: seeway.1, seeway-check.1, …
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints the page, or writes the pages.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let pages = pages(&whole());
    if let Some(folder) = &args.output {
        fs::create_dir_all(folder)
            .map_err(|error| failed(&folder.display(), &error, "name a folder that can be made"))?;
        for page in pages {
            let file = folder.join(format!("{}.1", page.name));
            fs::write(&file, page.text).map_err(|error| failed(&file.display(), &error, "name a folder that can"))?;
        }
        return Ok(());
    }
    let wanted = std::iter::once("seeway").chain(args.command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let Some(page) = pages.iter().find(|page| page.name == wanted) else {
        let what = args.command.join(" ");
        return Err(Failure::Misused(format!("`{what}` is no command of seeway; see them all with: seeway --help")));
    };
    out.write_all(&page.text)?;
    Ok(())
}

fn failed(name: &dyn std::fmt::Display, error: &io::Error, fix: &str) -> Failure {
    Failure::Failed(format!("{name} can not be written: {error}; {fix}"))
}

/// The command line with all names that its parts have.
fn whole() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// One manual page.
struct Page {
    /// `seeway-audit-verify`.
    name: String,
    /// In the form that man's formatter reads.
    text: Vec<u8>,
}

/// The pages of a command and of all below it.
fn pages(command: &Command) -> Vec<Page> {
    let mut pages: Vec<Page> = vec![page(command)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages.extend(self::pages(below));
    }
    pages
}

fn page(command: &Command) -> Page {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let text = rendered(command, &name).expect("a buffer in memory takes all that is written to it");
    Page { name, text }
}

fn rendered(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let man = Man::new(command.clone()).title(name.to_uppercase()).source(SOURCE).manual(MANUAL);
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let further = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = further.split_once(EXAMPLES).unwrap_or((&further, ""));
    as_it_stands(&mut text, "NOTES", notes)?;
    as_it_stands(&mut text, "EXAMPLES", examples)?;
    if let Some((above, _)) = name.rsplit_once('-') {
        writeln!(text, ".SH \"SEE ALSO\"\n.BR {} (1)", escaped(above))?;
    }
    Ok(text)
}

/// A section whose lines are kept as they are; none where there are none.
fn as_it_stands(text: &mut Vec<u8>, title: &str, lines: &str) -> io::Result<()> {
    let lines = lines.trim_matches('\n').trim_end();
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(text, ".SH {title}\n.nf")?;
    for line in lines.lines() {
        writeln!(text, "{}", escaped(line))?;
    }
    writeln!(text, ".fi")
}

/// A line that the formatter shows as it stands here.
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 8);
    // A line that begins with one of these would be a request to the formatter.
    if line.starts_with(['.', '\'']) {
        escaped.push_str("\\&");
    }
    for letter in line.chars() {
        match letter {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let command = whole();
        let pages = pages(&command);
        let text_of = |name: &str| {
            let page = pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("{name} has no page"));
            String::from_utf8(page.text.clone()).expect("text")
        };
        for below in command.get_subcommands() {
            let text = text_of(&format!("seeway-{}", below.get_name()));
            assert!(text.contains(".SH EXAMPLES"), "{text}");
            assert!(text.contains("\n.BR seeway (1)\n"), "{text}");
        }
        assert!(text_of("seeway-audit-verify").contains("\n.BR seeway\\-audit (1)\n"));
        assert!(text_of("seeway").contains("seeway\\-check(1)"), "{}", text_of("seeway"));
    }

    #[test]
    fn what_the_formatter_would_take_for_its_own_is_escaped() {
        assert_eq!(escaped(".x 'a' \\n -b"), "\\&.x \\(aqa\\(aq \\en \\-b");
        let mut out = Vec::new();
        let args = Args { command: vec!["nonsense".to_owned()], output: None };
        assert!(matches!(run(&args, &mut out), Err(Failure::Misused(what)) if what.contains("nonsense")));
        assert!(out.is_empty());
    }
}
