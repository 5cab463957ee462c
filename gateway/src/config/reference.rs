//! Writes the reference page of `seeway.toml` from the table of keys.

use std::fmt::Write as _;

use super::keys::{Key, TABLES, Table, Unset};

const INTRODUCTION: &str = "\
# The configuration file

*Written by `seeway check --reference`; a test compares this page with the program's own table of keys.*

`seeway serve --config FILE` reads one TOML file. `seeway check --config FILE` says every problem in it, each with its line, and
`seeway check --config FILE --connect` also tries each machine.

- Unknown keys are errors.
- A duration is a string with a unit: `\"500ms\"`, `\"35s\"`, `\"2m\"`, `\"1h\"`.
- A file's name is taken from the directory of the configuration file, unless it begins with `/`.
- An environment variable overrides a single key: `SEEWAY_TABLE__KEY`, such as `SEEWAY_LISTEN__GRPC=127.0.0.1:50052` or
  `SEEWAY_LIMITS__HOLD=0s`. The tables that may stand many times are counted from 0: `SEEWAY_MACHINE__0__ADDRESS` is the address of
  the first `[[machine]]`. A list's elements are split by commas. A variable changes a section that the file has; it adds none.

- `seeway config example` prints a file with every key. `seeway config schema > seeway.schema.json` writes a schema for editors: those that
  use taplo (Even Better TOML) complete and check the file whose first line is `#:schema ./seeway.schema.json`.

The smallest file that works:

";

/// The smallest file that works: one machine, one world.
pub const SMALLEST: &str = "\
[[machine]]
name     = \"hsm-a\"
address  = \"hsm-a.example:22\"
identity = \"/etc/seeway/id_ed25519\"
host_key = \"ssh-ed25519 AAAA…\"

[[world]]
name     = \"signer\"
machines = [\"hsm-a\"]
";

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = format!("{INTRODUCTION}```toml\n{SMALLEST}```\n");
    for table in TABLES {
        write_table(&mut page, table).expect("a string takes all that is written to it");
    }
    page
}

fn write_table(page: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(page, "\n## `{}`\n\n{}\n", table.header(), table.doc)?;
    writeln!(page, "| key | value | default | what it is |\n| --- | --- | --- | --- |")?;
    for key in table.keys {
        writeln!(page, "| `{}` | {} | {} | {} |", key.name, key.kind.name(), default(key), key.doc)?;
    }
    Ok(())
}

fn default(key: &Key) -> String {
    match key.unset {
        Unset::Required => "**required**".to_owned(),
        Unset::Optional(meaning) => meaning.to_owned(),
        Unset::Default(text) => format!("`{}`", key.kind.as_toml(text)),
    }
}
