//! Writes the `seeway.toml` of what was taken over from a hardserver's configuration.

use std::fmt::Write as _;
use std::path::Path;

use super::rules::quoted;
use super::takeover::{Machine, Takeover, World};

/// The file's text. What is to be filled in is marked so that `seeway check` refuses it.
pub(super) fn write(takeover: &Takeover, file: &Path) -> String {
    let mut page = String::new();
    compose(&mut page, takeover, file).expect("a string takes all that is written to it");
    page
}

fn compose(page: &mut String, takeover: &Takeover, file: &Path) -> std::fmt::Result {
    writeln!(page, "# Made by `seeway config import` from {}", comment(&file.display().to_string()))?;
    writeln!(page, "# Keys that are not here have their defaults: `seeway config example` shows them all.\n#")?;
    writeln!(page, "# Fill in, then: seeway check --config THIS-FILE --connect")?;
    writeln!(page, "#   the key to log in with: seeway keygen THE-FOLDER-OF-THIS-FILE")?;
    for (key, what) in &takeover.open {
        writeln!(page, "#   {key}: {what}")?;
    }
    writeln!(page, "\n[listen]")?;
    writeln!(
        page,
        "# The hardserver keeps its socket and its TCP ports. Its legacy clients come here with NFAST_SERVER=/run/seeway/nserver."
    )?;
    writeln!(page, "hardserver = [\"unix:/run/seeway/nserver\"]")?;
    writeln!(page, "# So that a newer gateway can take over from this one, without a lost job.")?;
    writeln!(page, "handover = \"unix:/run/seeway/handover\"")?;
    writeln!(page, "# So that clients can send the hardserver's other commands here too:")?;
    writeln!(page, "# upstream_hardserver = {}", quoted(&takeover.hardserver))?;
    for machine in &takeover.machines {
        write_machine(page, machine)?;
    }
    for world in &takeover.worlds {
        write_world(page, world)?;
    }
    if takeover.worlds.is_empty() {
        let names: Vec<String> = takeover.machines.iter().map(|machine| quoted(&machine.name)).collect();
        writeln!(page, "\n# No entry has a worldid_pubname: name the world that these machines are of.")?;
        writeln!(page, "[[world]]\nname = \"\"\nmachines = [{}]", names.join(", "))?;
    }
    for table in ["limits", "ssh"] {
        let settings: Vec<_> = takeover.settings.iter().filter(|setting| setting.table == table).collect();
        if settings.is_empty() {
            continue;
        }
        writeln!(page, "\n[{table}]")?;
        for setting in settings {
            let remark = if setting.remark.is_empty() { String::new() } else { format!("; {}", setting.remark) };
            writeln!(page, "# line {}: {}{remark}", setting.line, setting.field)?;
            writeln!(page, "{} = {}", setting.key, setting.written)?;
        }
    }
    if !takeover.left.is_empty() {
        writeln!(page, "\n# ---- not taken over")?;
        for left in &takeover.left {
            writeln!(page, "# line {}: {}: {}", left.line, comment(&left.shown()), left.why)?;
        }
    }
    Ok(())
}

fn write_machine(page: &mut String, machine: &Machine) -> std::fmt::Result {
    writeln!(page, "\n# line {}: [codesafe]", machine.line)?;
    writeln!(page, "[[machine]]\nname = {}", quoted(&machine.name))?;
    if let Some((address, line)) = &machine.address {
        let check = "CHECK the port: the machine's SSH server, not the hardserver's";
        writeln!(page, "# line {line}: [nethsm_imports] remote_ip; {check}")?;
        writeln!(page, "address = {}", quoted(address))?;
    } else {
        writeln!(page, "# FILL IN: no entry of [nethsm_imports] has the address of {}", machine.esn)?;
        writeln!(page, "address = \"REPLACE-WITH-THE-ADDRESS-AND-PORT-OF-{}\"", machine.esn)?;
    }
    writeln!(page, "# FILL IN: the login at its SSH server")?;
    writeln!(page, "user = \"REPLACE WITH THE LOGIN AT {}\"", machine.esn)?;
    writeln!(page, "identity = \"id_ed25519\"")?;
    writeln!(page, "# FILL IN: the server's public key, from the HSM's administrator")?;
    writeln!(page, "host_key = \"ssh-ed25519 REPLACE-WITH-THE-HOST-KEY-OF-{}\"", machine.esn)?;
    let (port, line) = machine.seejobs_port;
    match line {
        Some(line) => writeln!(page, "# line {line}: seejobs_port\nseejobs_port = {port}"),
        None => writeln!(page, "#seejobs_port = {port}"),
    }
}

fn write_world(page: &mut String, world: &World) -> std::fmt::Result {
    let machines: Vec<String> = world.machines.iter().map(|name| quoted(name)).collect();
    writeln!(page)?;
    for line in &world.lines {
        writeln!(page, "# line {line}: worldid_pubname")?;
    }
    writeln!(page, "[[world]]\nname = {}", quoted(&world.name))?;
    writeln!(page, "published_as = {}", quoted(&world.published_as))?;
    writeln!(page, "machines = [{}]", machines.join(", "))?;
    writeln!(page, "# true only where a job that ran twice does no harm\n#idempotent = false")
}

/// A text that can stand in a comment, whatever a file may be named.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
