//! The last step to a tunnel: proves to the server who we are, with the key here or in an agent, and its certificate if it has one.

use std::path::Path;
use std::sync::Arc;

use russh::MethodSet;
use russh::client::{AuthResult, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use tokio::time::timeout_at;

use super::connect::Attempting;
use super::error::TunnelError;
use super::handler::Events;
use super::identity::Holder;
use super::shared::Shared;
use super::signer::{Agent, Here, SignError};

/// What proves who we are; the private key is there, or who has it has been asked.
pub(super) enum Credentials {
    Here(Arc<PrivateKey>),
    Agent(Box<Agent>),
}

impl Attempting<'_> {
    /// Looks whether there is something to log in with, before anyone is bothered.
    pub(super) async fn credentials(&self) -> Result<Credentials, TunnelError> {
        let identity = &self.options.identity;
        if let Some(why) = identity.outdated() {
            return Err(TunnelError::IdentityOutdated { server: self.server.to_string(), why });
        }
        match identity.holder() {
            Holder::Here(key) => Ok(Credentials::Here(Arc::clone(key))),
            Holder::Agent(socket) => {
                let agent = Agent::connect(socket, identity.public(), self.deadline).await;
                Ok(Credentials::Agent(Box::new(agent.map_err(|why| self.agent_error(socket, why))?)))
            }
        }
    }

    /// Logs in.
    pub(super) async fn login(
        &self,
        shared: &Shared,
        handle: &mut Handle<Events>,
        credentials: Credentials,
    ) -> Result<(), TunnelError> {
        let result = timeout_at(self.deadline, self.authenticate(handle, credentials)).await;
        match result.map_err(|_| self.timed_out("the login"))? {
            Ok(AuthResult::Success) => Ok(()),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) if !remaining_methods.is_empty() => {
                let methods = names(&remaining_methods);
                let after = if partial_success { " besides the key, which it accepted" } else { "" };
                Err(self.login_refused(format!("{methods}{after}")))
            }
            Err(SignError::Agent(why)) => {
                let socket = self.options.identity.agent().unwrap_or(Path::new(""));
                Err(self.agent_error(socket, why))
            }
            Err(SignError::Key(why)) => {
                let why = format!("the key can not sign: {why}");
                Err(TunnelError::IdentityOutdated { server: self.server.to_string(), why })
            }
            // No methods: either the server offers none, or it hung up. What it said comes with the end.
            Ok(AuthResult::Failure { .. }) | Err(SignError::Gone) => {
                timeout_at(self.deadline, shared.session_end()).await.map_err(|_| self.timed_out("the login"))?;
                match shared.farewell.get() {
                    Some(farewell) => Err(self.login_refused(format!("nothing else ({farewell})"))),
                    None => Err(shared.closed().await.into()),
                }
            }
        }
    }

    async fn authenticate(
        &self,
        handle: &mut Handle<Events>,
        credentials: Credentials,
    ) -> Result<AuthResult, SignError> {
        let (user, identity) = (self.options.user.clone(), &self.options.identity);
        // An RSA key signs with SHA-2, whatever the server thinks of it.
        let hash = match identity.public().algorithm() {
            Algorithm::Rsa { .. } => {
                let supported = handle.best_supported_rsa_hash().await.ok().flatten().flatten();
                Some(supported.unwrap_or(HashAlg::Sha512))
            }
            _ => None,
        };
        let certificate = identity.certificate().cloned();
        match (credentials, certificate) {
            (Credentials::Here(key), None) => {
                let key = PrivateKeyWithHashAlg::new(key, hash);
                handle.authenticate_publickey(user, key).await.map_err(|_| SignError::Gone)
            }
            (Credentials::Here(key), Some(certificate)) => {
                handle.authenticate_certificate_with(user, certificate, hash, &mut Here(&key)).await
            }
            (Credentials::Agent(mut agent), certificate) => {
                agent.bind(handle).await.map_err(SignError::Agent)?;
                match certificate {
                    None => {
                        let key = identity.public().clone();
                        handle.authenticate_publickey_with(user, key, hash, &mut *agent).await
                    }
                    Some(certificate) => {
                        handle.authenticate_certificate_with(user, certificate, hash, &mut *agent).await
                    }
                }
            }
        }
    }

    fn agent_error(&self, socket: &Path, why: String) -> TunnelError {
        TunnelError::Agent { server: self.server.to_string(), socket: socket.to_owned(), why }
    }

    fn login_refused(&self, offered: String) -> TunnelError {
        let identity = &self.options.identity;
        let certificate = identity.certificate_text();
        let has_certificate = certificate.is_some();
        let with = certificate.map(|text| format!(" with the {text}")).unwrap_or_default();
        TunnelError::LoginRefused {
            server: self.server.to_string(),
            user: self.options.user.clone(),
            key: format!("{}{with}", identity.fingerprint()),
            has_certificate,
            offered,
        }
    }
}

fn names(methods: &MethodSet) -> String {
    let names: Vec<&str> = methods.iter().map(<&str>::from).collect();
    names.join(", ")
}
