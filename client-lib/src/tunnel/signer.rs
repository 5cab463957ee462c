//! Who signs a login: the key that this process has, or the ssh-agent that has it. Called by [`login`](super::login).

use std::path::Path;

use russh::SendError;
use russh::client::Handle;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::handler::Events;

/// Why there is no signature.
#[derive(Debug)]
pub(super) enum SignError {
    /// The tunnel is gone.
    Gone,
    /// The agent did not sign, in words that follow "the ssh-agent at …".
    Agent(String),
    /// The key can not sign; what the library says.
    Key(String),
}

impl From<SendError> for SignError {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

/// Signs with a key that this process has. Only certificates need it: for bare keys the library does this, and for certificates
/// too, but not RSA ones with SHA-2.
pub(super) struct Here<'a>(pub(super) &'a PrivateKey);

impl russh::Signer for Here<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let signed = match self.0.key_data() {
            KeypairData::Rsa(key) => signature::Signer::<Signature>::try_sign(&(key, hash), &to_sign),
            _ => signature::Signer::<Signature>::try_sign(self.0, &to_sign),
        };
        let signed = signed.map_err(|error| SignError::Key(error.to_string()))?;
        let mut encoded = Vec::new();
        signed
            .encode(&mut encoded)
            .and_then(|()| encoded.encode(&mut to_sign))
            .map_err(|error| SignError::Key(error.to_string()))?;
        Ok(to_sign)
    }
}

/// An ssh-agent that has the key. Every question to it ends with the tunnel's time to connect.
pub(super) struct Agent {
    client: AgentClient<UnixStream>,
    key: PublicKey,
    deadline: Instant,
}

impl Agent {
    /// Connects to an agent and asks whether it has the key.
    pub(super) async fn connect(socket: &Path, key: &PublicKey, deadline: Instant) -> Result<Self, String> {
        let stream = in_time(deadline, UnixStream::connect(socket)).await?.map_err(|error| {
            format!("can not be reached ({error}); start it, or correct the socket's name and who may use it")
        })?;
        let mut agent = Self { client: AgentClient::connect(stream), key: key.clone(), deadline };
        match in_time(deadline, agent.client.request_identities()).await? {
            Ok(identities) => {
                if !identities.iter().any(|identity| identity.public_key().key_data() == key.key_data()) {
                    return Err(format!(
                        "has {} keys, but not {}; add it there (ssh-add), or unlock the agent",
                        identities.len(),
                        super::fingerprint(key.key_data())
                    ));
                }
            }
            // It may have keys that nobody here can parse. Whether it has ours shows when it is to sign.
            Err(russh::keys::Error::SshKey(_) | russh::keys::Error::SshEncoding(_)) => {}
            Err(russh::keys::Error::IO(error)) => return Err(format!("hung up ({error})")),
            Err(error) => return Err(format!("is none that is understood ({error}); check the socket's name")),
        }
        Ok(agent)
    }

    /// Tells the agent which server it is to sign for: keys that it may use for some servers only need that. Agents that do not
    /// know the question say no, and sign nevertheless.
    pub(super) async fn bind(&mut self, handle: &Handle<Events>) -> Result<(), String> {
        let Some(binding) = handle.agent_session_binding() else { return Ok(()) };
        match in_time(self.deadline, self.client.bind_session(binding, false)).await? {
            Err(russh::keys::Error::IO(error)) => Err(format!("hung up ({error})")),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl russh::Signer for Agent {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        // Asked for by its key where it goes with a certificate too: an agent need not have that.
        let key = AgentIdentity::from(self.key.clone());
        match in_time(self.deadline, self.client.sign_request(&key, hash, to_sign)).await {
            Ok(Ok(signed)) => Ok(signed),
            Ok(Err(russh::keys::Error::AgentFailure)) => Err(SignError::Agent(
                "refused to sign; it may be locked, ask somebody, or keep the key for other servers".to_owned(),
            )),
            Ok(Err(error)) => Err(SignError::Agent(format!("did not sign ({error})"))),
            Err(why) => Err(SignError::Agent(why)),
        }
    }
}

async fn in_time<T>(deadline: Instant, question: impl Future<Output = T>) -> Result<T, String> {
    let answer = timeout_at(deadline, question).await;
    answer.map_err(|_| "did not answer in time (ssh.connect_timeout); it may wait for somebody to confirm".to_owned())
}
