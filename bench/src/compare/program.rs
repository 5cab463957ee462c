//! Where the gateway's program is: beside this one, built first where cargo has started us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// The program `seeway`. Started by cargo, this has cargo build it, in the profile that this program was built in; that does
/// nothing where it is up to date.
pub(crate) fn seeway() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("this program does not know where it is")?;
    let folder = own.parent().context("this program is in no folder")?;
    let program = folder.join("seeway");
    if let Some(cargo) = env::var_os("CARGO") {
        eprintln!("building seeway");
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "seeway", "--bin", "seeway", "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        if folder.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        if let Some(target) = folder.parent() {
            build.arg("--target-dir").arg(target);
        }
        if !build.status().context("cargo does not start")?.success() {
            bail!("cargo could not build seeway");
        }
    }
    if !program.is_file() {
        bail!("there is no {}; build it with `cargo build --release --package seeway`", program.display());
    }
    Ok(program)
}
