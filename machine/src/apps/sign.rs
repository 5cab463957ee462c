//! Signs with a key that never leaves the machine.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use crate::runtime::{Application, Job};

/// The job that asks for the public key.
const PUBLIC_KEY_JOB: &[u8] = b"pubkey";

/// The key, as the machine's non-volatile storage holds it.
#[derive(Clone)]
pub(super) struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    pub(super) fn generate() -> Self {
        let key = Ed25519KeyPair::generate().expect("generating a key needs nothing but the system's randomness");
        Self(Arc::new(key))
    }
}

pub(super) struct Sign {
    key: SigningKey,
}

impl Sign {
    pub(super) fn new(key: SigningKey) -> Self {
        Self { key }
    }
}

impl Application for Sign {
    fn run(&self, job: Job) {
        let key = &self.key.0;
        if job.bytes() == PUBLIC_KEY_JOB {
            job.reply(key.public_key().as_ref());
        } else {
            let signature = key.sign(job.bytes());
            job.reply(signature.as_ref());
        }
    }
}
