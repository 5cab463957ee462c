//! Completion scripts and manual pages, in the hands of the programs that they are for: bash, zsh, fish, and man's formatter.

use std::path::Path;
use std::process::{Command, Output};

fn seeway(arguments: &[&str]) -> String {
    said(Command::new(env!("CARGO_BIN_EXE_seeway")).args(arguments).env_remove("SEEWAY_LOG"))
}

/// What a program says on stdout; it has to succeed and to complain about nothing.
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| {
        panic!("{} does not run ({error}): tests/run installs it", command.get_program().display())
    });
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success() && err.is_empty(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// A folder with a shell's script.
fn script(shell: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("_seeway"), seeway(&["completions", shell])).expect("written");
    folder
}

#[test]
fn bash_completes_a_command_and_an_option() {
    let folder = script("bash");
    let complete = |words: &str, at: usize| {
        let text = format!(
            "set -u; source {}/_seeway; COMP_WORDS=({words}); COMP_CWORD={at}; _seeway seeway \"${{COMP_WORDS[at]:-}}\" x; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            folder.path().display()
        );
        said(Command::new("bash").args(["--norc", "--noprofile", "-c", &format!("at={at}; {text}")]))
    };
    assert_eq!(complete("seeway che", 1), "check\n");
    assert_eq!(complete("seeway audit ver", 2), "verify\n");
    assert_eq!(complete("seeway check --conn", 2), "--connect\n");
    assert_eq!(complete("seeway completions f", 2), "fish\n");
}

#[test]
fn fish_completes_a_command_and_an_option() {
    let folder = script("fish");
    let complete = |line: &str| {
        let text = format!("source {}/_seeway; complete --do-complete '{line}'", folder.path().display());
        let out = said(Command::new("fish").args(["--no-config", "-c", &text]).env("HOME", folder.path()));
        out.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("seeway che"), ["check"]);
    assert_eq!(complete("seeway audit ver"), ["verify"]);
    assert_eq!(complete("seeway check --conn"), ["--connect"]);
}

/// Only a zsh at a terminal completes: one is started at a pseudo-terminal, a line is typed with Tab in it, and a function in the
/// program's place says what was completed.
#[test]
fn zsh_completes_a_command_and_an_option() {
    let folder = script("zsh");
    let complete = |line: &str| {
        let text = format!(
            r#"zmodload zsh/zpty
cd "$1"
zpty typed zsh -f -i
zpty -w typed "unset zle_bracketed_paste; PROMPT=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -d $1/dump"
zpty -w typed "seeway() {{ print -r -- \"GOT:\$*:\"END }}; print REA''DY"
zpty -r typed said '*READY*'
zpty -w -n typed $'{line}\t\n'
zpty -r typed said '*GOT:*:END*'
zpty -d typed
print -r -- ${{${{said##*GOT:}}%%:END*}}"#
        );
        said(
            Command::new("timeout")
                .args(["60", "zsh", "-f", "-c", &text, "zsh"])
                .arg(folder.path())
                .env("HOME", folder.path())
                .env("TERM", "dumb"),
        )
    };
    assert_eq!(complete("seeway che").trim(), "check");
    assert_eq!(complete("seeway audit ver").trim(), "audit verify");
    assert_eq!(complete("seeway check --conn").trim(), "check --connect");
}

#[test]
fn the_formatter_has_no_complaint_about_any_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().join("pages");
    seeway(&["man", "--output", &name.display().to_string()]);
    let mut pages: Vec<_> =
        std::fs::read_dir(&name).expect("the pages").map(|entry| entry.expect("readable").path()).collect();
    pages.sort();
    let has = |page: &str| pages.iter().any(|path| path.ends_with(page));
    assert!(has("seeway.1") && has("seeway-check.1") && has("seeway-audit-verify.1"), "{pages:?}");
    for page in &pages {
        let out = said(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-Kutf8"]).arg(page));
        assert!(out.len() > 500, "{}: {out}", page.display());
        let man = said(&mut man(page));
        assert!(man.contains("\nSYNOPSIS\n"), "{}: {man}", page.display());
    }
    let check = said(&mut man(&name.join("seeway-check.1")));
    assert!(check.contains("seeway check --config seeway.toml --json | jq '.problems[].line'"), "{check}");
    assert_eq!(seeway(&["man", "check"]).into_bytes(), std::fs::read(name.join("seeway-check.1")).expect("there"));
}

/// `man` itself, with every warning that it has.
fn man(page: &Path) -> Command {
    let mut command = Command::new("man");
    command.args(["--warnings=w", "--encoding=UTF-8", "--local-file"]).arg(page);
    command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "120").env("MANPAGER", "cat");
    command
}
