//! `seeway check --algorithms`: what each policy of `ssh.algorithms` allows, and why; `docs/algorithms.md` is its output.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use seeway_client::tunnel::Algorithms;
use serde_json::{Value, json};

const INTRODUCTION: &str = "\
# Algorithms towards machines

*Written by `seeway check --algorithms`; a test compares this page with the program's own table.*

`ssh.algorithms` names what tunnels may be made with. A server that has nothing of it is refused, and the error says what it has and what
would do. Each list is in the order of preference; what is not in it is not offered, whatever the server would like.

- `modern` (the default): strong by what is known today, the hybrid post-quantum key exchange first.
- `fips`: of that, what the FIPS publications approve. It says *which* algorithms are used. The code that computes them (aws-lc for
  AES in GCM, RustCrypto's crates for keys, hashes and the rest) is **not a validated module**; where one is required, this is not enough. It has no post-quantum
  key exchange: the one that the SSH library knows has X25519 in it.

Under both:

- Nowhere: SHA-1, CBC, DSA, MACs of the plain text, compression, finite-field Diffie-Hellman.
- RSA keys have 3072 bits or more, or are refused: as identity, as pinned host key, as the key that a server shows, and as the key of an
  authority that signs certificates. Keys that need a finger (`sk-…`) are refused too.
- A signature must be made with one of the algorithms below, whatever was agreed on: a server that proves its RSA key with SHA-1 is left before
  the login, and so is one whose certificate is signed so.
- *Strict key exchange* (`kex-strict-c-v00@openssh.com`, against \"Terrapin\") is always offered, and used where the server knows it.
";

/// The page, in Markdown.
pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let [modern, fips] = Algorithms::ALL.map(Algorithms::allowed);
    for (all, approved) in modern.iter().zip(&fips) {
        let _ = write!(
            page,
            "\n## {}\n\n| algorithm | `modern` | `fips` | |\n| --- | --- | --- | --- |\n",
            title(all.kind)
        );
        for (name, why) in &all.algorithms {
            let is_approved = approved.algorithms.iter().any(|(other, _)| other == name);
            let _ = writeln!(page, "| `{name}` | yes | {} | {why} |", if is_approved { "yes" } else { "no" });
        }
    }
    page.push_str("\nWhere the processor has no instructions for AES, `chacha20-poly1305@openssh.com` stands first among the ciphers of `modern`.\n");
    page
}

/// Names alone, by policy and kind.
pub(super) fn json() -> Value {
    let kinds = |policy: Algorithms| -> BTreeMap<&'static str, Vec<String>> {
        let names = |algorithms: Vec<(String, _)>| algorithms.into_iter().map(|(name, _)| name).collect();
        policy.allowed().into_iter().map(|allowed| (allowed.kind, names(allowed.algorithms))).collect()
    };
    json!({ "modern": kinds(Algorithms::Modern), "fips": kinds(Algorithms::Fips) })
}

fn title(kind: &str) -> String {
    let mut letters = kind.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}
