//! What the SSH library tells a tunnel while it runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh::client::{DisconnectReason, Handler, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, Error, Names};

use super::error::Lost;
use super::host_key::{self, HostKey, Verdict};
use super::options::Endpoint;
use super::shared::{Negotiated, Shared};
use super::utc;

/// Lives in the SSH library's task; when it is dropped, that task has ended, for whatever reason.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) shared: Arc<Shared>,
    pub(super) host_key: HostKey,
    pub(super) server: Endpoint,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.lose("the SSH connection ended");
        self.shared.session_has_ended();
    }
}

impl Handler for Events {
    type Error = Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let verdict = self.host_key.judge(shown, &self.server, utc::now());
        let is_accepted = verdict == Verdict::Accepted;
        // Asked once: the library does not ask again when keys are exchanged anew.
        self.shared.judged.get_or_init(|| (verdict, host_key::describe(shown)));
        Ok(is_accepted)
    }

    async fn kex_done(&mut self, _secret: Option<&[u8]>, names: &Names, _session: &mut Session) -> Result<(), Error> {
        self.shared.negotiated.get_or_init(|| Negotiated::from(names));
        self.shared.keys_exchanged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Error> {
        // Data may follow at once, before the task that opens the channel has run.
        self.shared.inbox(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Error> {
        if let Some(inbox) = self.shared.known_inbox(id) {
            inbox.deliver(data).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        if let Some(inbox) = self.shared.known_inbox(id) {
            inbox.complete();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        if let Some(inbox) = self.shared.forget_inbox(id) {
            let server = Arc::clone(&self.shared.server);
            inbox.end(Lost { what: "channel", server, why: "the other side closed it".into() });
        }
        Ok(())
    }

    /// OpenSSH's server leaves Nagle on for a connection that only carries forwarded ports, and sends this message in a
    /// write of its own. Its next small packet is then held back until that one is acknowledged, and our kernel, with
    /// nothing to say, would delay the ACK by 40 ms. So the ACK is sent now. (To ask for it after every read cures the
    /// stall too, and costs a fifth of the throughput.)
    async fn window_adjusted(&mut self, _id: ChannelId, _new_size: u32, _session: &mut Session) -> Result<(), Error> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        self.shared.acknowledge();
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let farewell = format!("{} ({:?})", info.message.escape_debug(), info.reason_code);
                self.shared.lose(format!("the server disconnected: {farewell}"));
                self.shared.farewell.get_or_init(|| farewell);
            }
            DisconnectReason::Error(error @ Error::NoAuthMethod) => {
                self.shared.lose(error.to_string());
                self.shared.farewell.get_or_init(|| "no method is left".to_owned());
            }
            DisconnectReason::Error(Error::Disconnect | Error::HUP) => {
                self.shared.lose("the server closed the connection");
            }
            DisconnectReason::Error(Error::IO(error)) if has_hung_up(&error) => {
                self.shared.lose(format!("the server closed the connection ({error})"));
            }
            DisconnectReason::Error(error) => self.shared.lose(error.to_string()),
        }
        Ok(())
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
