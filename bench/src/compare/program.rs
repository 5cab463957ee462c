//! Where the programs are that the comparison runs: beside this one, built first where cargo has started us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// A program of this workspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Built {
    pub(super) package: &'static str,
    pub(super) program: &'static str,
}

/// The gateway.
pub(super) const SEEWAY: Built = Built { package: "seeway", program: "seeway" };

/// Finds it. Started by cargo, this has cargo build it, in the profile that this program was built in; that does nothing where it is
/// up to date.
pub(super) fn find(Built { package, program }: Built) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("this program does not know where it is")?;
    let folder = own.parent().context("this program is in no folder")?;
    let path = folder.join(program);
    if let Some(cargo) = env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", package, "--bin", program, "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        if folder.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        if let Some(target) = folder.parent() {
            build.arg("--target-dir").arg(target);
        }
        eprintln!("building {program}");
        if !build.status().context("cargo does not start")?.success() {
            bail!("cargo could not build {program}");
        }
    }
    if !path.is_file() {
        bail!("there is no {}; build it with `cargo build --release --package {package}`", path.display());
    }
    Ok(path)
}
