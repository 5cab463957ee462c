//! The named policies (`ssh.algorithms`) of what a tunnel may be made with, and the one table that says it.
//!
//! [`connect`](super::connect) offers a server what the policy allows and nothing else. The floor for keys is the same under
//! every policy, and is asked of each key that comes in: identities, pinned host keys, those that a server shows, and the
//! authorities that sign certificates. `docs/algorithms.md` is written from this table.

use std::fmt;
use std::str::FromStr;

use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{cipher, kex, mac};

/// What a tunnel may be made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithms {
    /// What is thought strong today, post-quantum key exchange first.
    #[default]
    Modern,
    /// Of that, what the FIPS publications approve. It says which algorithms are used, not that the code that computes them is a
    /// validated module: it is none.
    Fips,
}

/// The shortest RSA key that is taken, in bits: 128 bits of strength (NIST SP 800-57 part 1, table 2).
pub(super) const MIN_RSA_BITS: usize = 3072;

/// One algorithm that the modern policy allows.
struct Rule<N> {
    name: N,
    /// Whether the policy `fips` allows it too.
    fips: bool,
    /// Why it is there, and what approves it or why nothing does.
    why: &'static str,
}

const fn rule<N>(name: N, fips: bool, why: &'static str) -> Rule<N> {
    Rule { name, fips, why }
}

/// In the order of preference. No finite-field Diffie-Hellman: the SSH library computes it in time that depends on the secret.
const KEY_EXCHANGES: &[Rule<kex::Name>] = &[
    rule(
        kex::MLKEM768X25519_SHA256,
        false,
        "ML-KEM-768 (FIPS 203) and X25519 together: safe as long as one of the two is. X25519 is in no FIPS publication",
    ),
    rule(kex::CURVE25519, false, "X25519 (RFC 8731); in no FIPS publication"),
    rule(kex::CURVE25519_PRE_RFC_8731, false, "the same under its older name"),
    rule(kex::ECDH_SHA2_NISTP256, true, "ECDH on P-256 (SP 800-56A rev. 3, SP 800-186)"),
    rule(kex::ECDH_SHA2_NISTP384, true, "ECDH on P-384 (SP 800-56A rev. 3, SP 800-186)"),
    rule(kex::ECDH_SHA2_NISTP521, true, "ECDH on P-521 (SP 800-56A rev. 3, SP 800-186)"),
];

/// What every key exchange is offered with: the server's signature algorithms, and strict key exchange, without which packets
/// can be cut out of the handshake ("Terrapin", CVE-2023-48795).
const EXTENSIONS: [kex::Name; 2] = [kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

/// For host keys and identities, and for the authorities that sign their certificates. An RSA key signs with either hash.
const SIGNATURES: &[Rule<Algorithm>] = &[
    rule(Algorithm::Ed25519, true, "Ed25519 (RFC 8709; approved by FIPS 186-5, section 7)"),
    rule(
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        true,
        "ECDSA on P-256 with SHA-256 (FIPS 186-5, section 6; SP 800-186)",
    ),
    rule(
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        true,
        "ECDSA on P-384 with SHA-384 (FIPS 186-5, section 6; SP 800-186)",
    ),
    rule(
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        true,
        "ECDSA on P-521 with SHA-512 (FIPS 186-5, section 6; SP 800-186)",
    ),
    rule(
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        true,
        "RSA of 3072 bits or more with SHA-512 (RFC 8332; FIPS 186-5, section 5)",
    ),
    rule(
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        true,
        "RSA of 3072 bits or more with SHA-256 (RFC 8332; FIPS 186-5, section 5)",
    ),
];

/// The fastest first, where the processor has instructions for AES. The last is for servers that have none of the others.
const CIPHERS: &[Rule<cipher::Name>] = &[
    rule(cipher::AES_128_GCM, true, "AES-128 in GCM (FIPS 197, SP 800-38D)"),
    rule(cipher::AES_256_GCM, true, "AES-256 in GCM (FIPS 197, SP 800-38D)"),
    rule(
        cipher::CHACHA20_POLY1305,
        false,
        "the first where the processor has no instructions for AES; in no FIPS publication",
    ),
    rule(cipher::AES_256_CTR, true, "AES-256 in counter mode (FIPS 197, SP 800-38A), with one of the MACs"),
];

/// For ciphers that do not authenticate by themselves; of the ciphertext only.
const MACS: &[Rule<mac::Name>] = &[
    rule(mac::HMAC_SHA256_ETM, true, "HMAC with SHA-256 of the ciphertext (FIPS 198-1, FIPS 180-4)"),
    rule(mac::HMAC_SHA512_ETM, true, "HMAC with SHA-512 of the ciphertext (FIPS 198-1, FIPS 180-4)"),
];

/// A kind of algorithm, and those of it that a policy allows, in the order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What they are for.
    pub kind: &'static str,
    /// Each by its name on the wire, and why it is allowed.
    pub algorithms: Vec<(String, &'static str)>,
}

impl Algorithms {
    /// Every policy.
    pub const ALL: [Self; 2] = [Self::Modern, Self::Fips];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Fips => "fips",
        }
    }

    /// All that it allows.
    pub fn allowed(self) -> Vec<Allowed> {
        let of = |kind, algorithms| Allowed { kind, algorithms };
        vec![
            of("key exchange", self.named(KEY_EXCHANGES)),
            of("host keys and identities", self.named(SIGNATURES)),
            of("cipher", self.named(CIPHERS)),
            of("MAC", self.named(MACS)),
        ]
    }

    /// Key exchanges, with the extensions that go with them.
    pub(super) fn key_exchanges(self) -> Vec<kex::Name> {
        self.names(KEY_EXCHANGES).chain(EXTENSIONS).collect()
    }

    /// What a host key may sign with, and so may an identity.
    pub(super) fn signatures(self) -> Vec<Algorithm> {
        self.names(SIGNATURES).collect()
    }

    /// Ciphers, in the order in which this processor likes them.
    pub(super) fn ciphers(self) -> Vec<cipher::Name> {
        let mut ciphers: Vec<_> = self.names(CIPHERS).collect();
        if !has_aes() {
            ciphers.sort_by_key(|name| *name != cipher::CHACHA20_POLY1305);
        }
        ciphers
    }

    /// MACs.
    pub(super) fn macs(self) -> Vec<mac::Name> {
        self.names(MACS).collect()
    }

    fn rules<N>(self, rules: &'static [Rule<N>]) -> impl Iterator<Item = &'static Rule<N>> {
        rules.iter().filter(move |rule| rule.fips || self == Self::Modern)
    }

    fn names<N: Clone>(self, rules: &'static [Rule<N>]) -> impl Iterator<Item = N> {
        self.rules(rules).map(|rule| rule.name.clone())
    }

    fn named<N: AsRef<str>>(self, rules: &'static [Rule<N>]) -> Vec<(String, &'static str)> {
        self.rules(rules).map(|rule| (rule.name.as_ref().to_owned(), rule.why)).collect()
    }
}

impl fmt::Display for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no policy of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no policy for algorithms; it is \"modern\" or \"fips\"")]
pub struct AlgorithmsError {
    given: String,
}

impl FromStr for Algorithms {
    type Err = AlgorithmsError;

    fn from_str(given: &str) -> Result<Self, AlgorithmsError> {
        let named = Self::ALL.into_iter().find(|policy| policy.name() == given);
        named.ok_or_else(|| AlgorithmsError { given: given.to_owned() })
    }
}

fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    has_aes
}

/// What speaks against a key, of whomever it is; `None`: it is strong enough, and of a type that is known.
pub(super) fn objection(key: &KeyData) -> Option<String> {
    if key.is_certificate() {
        return Some("it is a certificate, where a key is asked for".to_owned());
    }
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => None,
        Algorithm::Rsa { .. } => {
            let bits = key.rsa().map_or(0, rsa_bits);
            (bits < MIN_RSA_BITS)
                .then(|| format!("it is an RSA key of {bits} bits, and below {MIN_RSA_BITS} bits none is taken"))
        }
        other => Some(format!("keys of the type {} are not taken; Ed25519, ECDSA and RSA keys are", other.as_str())),
    }
}

/// The modulus's length; the library's own `key_size` rounds up to whole bytes.
fn rsa_bits(key: &RsaPublicKey) -> usize {
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    modulus.len() * 8 - leading
}

/// Whether a signature of this algorithm is taken: SHA-1 is not, nor what nobody knows.
pub(super) fn is_signature_allowed(policy: Algorithms, algorithm: &str) -> bool {
    policy.rules(SIGNATURES).any(|rule| rule.name.as_str() == algorithm)
}

#[cfg(test)]
mod tests {
    use russh::keys::PublicKey;
    use russh::keys::ssh_key::Mpint;

    use super::*;

    /// An RSA key whose modulus has this many bits. Nobody can sign with it.
    fn rsa(bits: usize) -> PublicKey {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
        let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&modulus)).expect("a key");
        PublicKey::new(KeyData::Rsa(key), "")
    }

    #[test]
    fn rsa_keys_are_long_enough_or_not_taken() {
        for (bits, is_taken) in [(1024, false), (2048, false), (3071, false), (3072, true), (3073, true), (4096, true)]
        {
            let objection = objection(rsa(bits).key_data());
            assert_eq!(objection.is_none(), is_taken, "{bits}: {objection:?}");
            assert!(objection.is_none_or(|said| said.contains(&format!("{bits} bits"))));
        }
    }

    #[test]
    fn keys_that_need_a_finger_or_are_outdated_are_not_taken() {
        // A FIDO key and a DSA key, made by OpenSSH's tools.
        let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=";
        let key = PublicKey::from_openssh(sk).expect("a key");
        assert!(objection(key.key_data()).expect("not taken").contains("sk-ssh-ed25519"));
    }

    #[test]
    fn no_policy_has_what_is_broken() {
        for policy in Algorithms::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
            for (name, why) in policy.allowed().into_iter().flat_map(|kind| kind.algorithms) {
                for broken in ["sha1", "-cbc", "ssh-rsa", "ssh-dss", "arcfour", "3des", "none", "group"] {
                    assert!(!name.contains(broken), "{policy}: {name}");
                }
                assert!(!why.is_empty());
            }
            let exchanges = policy.key_exchanges();
            assert!(exchanges.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT), "strict key exchange is offered");
            assert!(is_signature_allowed(policy, "rsa-sha2-256") && !is_signature_allowed(policy, "ssh-rsa"));
        }
        assert_eq!("FIPS".parse::<Algorithms>().expect_err("no name").to_string().matches('"').count(), 6);
    }

    #[test]
    fn fips_has_nothing_that_is_not_in_a_publication_and_modern_begins_with_post_quantum() {
        assert_eq!(Algorithms::default(), Algorithms::Modern);
        assert_eq!(Algorithms::Modern.key_exchanges()[0], kex::MLKEM768X25519_SHA256);
        assert_eq!(Algorithms::Modern.ciphers().len(), 4);
        for (name, _) in Algorithms::Fips.allowed().into_iter().flat_map(|kind| kind.algorithms) {
            assert!(!name.contains("25519-sha256") && !name.contains("chacha"), "{name}");
        }
        assert_eq!(Algorithms::Fips.ciphers(), [cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::AES_256_CTR]);
        assert_eq!(Algorithms::Fips.key_exchanges()[0], kex::ECDH_SHA2_NISTP256);
    }
}
