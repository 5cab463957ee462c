//! What a fuzzer begins with. `seeway-seeds FOLDER` writes it down, a folder for each target.

use std::fs;
use std::io;
use std::path::Path;

use crate::TARGETS;

/// Seeds and their names, which have no more than letters, digits and `-`.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// What each seed's file name begins with; what a fuzzer adds to the folder has other names.
pub const PREFIX: &str = "seed-";

/// A named seed.
pub fn seed(name: &str, bytes: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.as_ref().to_vec())
}

/// Scripts for targets that read decisions: any bytes are one, and these are always the same.
pub fn scripts(count: u64, length: usize) -> Seeds {
    (1..=count)
        .map(|number| {
            let mut state = number;
            let mut bytes = Vec::new();
            while bytes.len() < length {
                // SplitMix64.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = state;
                mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                bytes.extend((mixed ^ mixed >> 31).to_le_bytes());
            }
            bytes.truncate(length);
            (format!("script-{number}"), bytes)
        })
        .collect()
}

/// Writes the seeds of every target, each to a file of its own in `folder/TARGET`; those of these names that were there are gone then.
///
/// # Errors
/// A file can not be written.
pub fn write(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in (target.seeds)() {
            fs::write(folder.join(format!("{PREFIX}{name}")), bytes)?;
            count += 1;
        }
    }
    Ok(count)
}
