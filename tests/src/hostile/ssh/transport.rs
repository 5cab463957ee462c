//! SSH packets, plain and encrypted, and the exchange of keys, from the server's side.

use std::io;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keys::{Agreed, mpint, public_blob, sha256, string, take_string};

/// Numbers of messages.
pub(super) mod message {
    pub(in super::super) const IGNORE: u8 = 2;
    pub(in super::super) const SERVICE_REQUEST: u8 = 5;
    pub(in super::super) const SERVICE_ACCEPT: u8 = 6;
    pub(in super::super) const KEXINIT: u8 = 20;
    pub(in super::super) const NEWKEYS: u8 = 21;
    pub(in super::super) const ECDH_INIT: u8 = 30;
    pub(in super::super) const ECDH_REPLY: u8 = 31;
    pub(in super::super) const USERAUTH_REQUEST: u8 = 50;
    pub(in super::super) const USERAUTH_SUCCESS: u8 = 52;
    pub(in super::super) const USERAUTH_BANNER: u8 = 53;
    pub(in super::super) const GLOBAL_REQUEST: u8 = 80;
    pub(in super::super) const REQUEST_FAILURE: u8 = 82;
    pub(in super::super) const CHANNEL_OPEN: u8 = 90;
    pub(in super::super) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub(in super::super) const WINDOW_ADJUST: u8 = 93;
    pub(in super::super) const CHANNEL_DATA: u8 = 94;
    pub(in super::super) const CHANNEL_EOF: u8 = 96;
    pub(in super::super) const CHANNEL_CLOSE: u8 = 97;
}

const VERSION: &[u8] = b"SSH-2.0-hostile";
const TAG: usize = 16;

/// One direction's key, and the number of its next packet.
struct Cipher {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl Cipher {
    fn new(key: &[u8], start: &[u8]) -> Self {
        let key = UnboundKey::new(&AES_128_GCM, &key[..16]).expect("a key of its length");
        let (fixed, counter) = start[..12].split_first_chunk::<4>().expect("twelve");
        let counter = u64::from_be_bytes(counter.try_into().expect("eight"));
        Self { key: LessSafeKey::new(key), fixed: *fixed, counter }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.fixed);
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A connection.
pub(super) struct Transport {
    pub(super) stream: TcpStream,
    inbox: Vec<u8>,
    outgoing: Option<Cipher>,
    incoming: Option<Cipher>,
    session: Option<Vec<u8>>,
    version: Vec<u8>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Transport {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, inbox: Vec::new(), outgoing: None, incoming: None, session: None, version: Vec::new() }
    }

    /// Both ends say what they are.
    pub(super) async fn greet(&mut self) -> io::Result<()> {
        self.stream.write_all(&[VERSION, b"\r\n"].concat()).await?;
        let end = loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            self.read().await?;
        };
        self.version = self.inbox[..end].trim_ascii_end().to_vec();
        self.inbox.drain(..=end);
        Ok(())
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.inbox).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next message. May be dropped while it waits.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((head, _)) = self.inbox.split_first_chunk::<4>() else { return Ok(None) };
        let (head, length) = (*head, u32::from_be_bytes(*head) as usize);
        let tag = if self.incoming.is_some() { TAG } else { 0 };
        let whole = 4 + length + tag;
        if self.inbox.len() < whole {
            return Ok(None);
        }
        let mut packet: Vec<u8> = self.inbox.drain(..whole).skip(4).collect();
        if let Some(cipher) = &mut self.incoming {
            let nonce = cipher.nonce();
            cipher
                .key
                .open_in_place(nonce, Aad::from(head), &mut packet)
                .map_err(|_| broken("a packet can't be read"))?;
        }
        packet.truncate(length);
        let padding = usize::from(*packet.first().ok_or_else(|| broken("an empty packet"))?);
        let end =
            packet.len().checked_sub(padding).filter(|end| *end > 1).ok_or_else(|| broken("nothing but padding"))?;
        Ok(Some(packet[1..end].to_vec()))
    }

    /// A message as it goes out.
    pub(super) fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let counted = if self.outgoing.is_some() { 1 } else { 5 };
        let mut padding = 16 - (counted + message.len()) % 16;
        if padding < 4 {
            padding += 16;
        }
        let length = u32::try_from(1 + message.len() + padding).expect("a packet's length fits").to_be_bytes();
        let mut body = vec![u8::try_from(padding).expect("below 32")];
        body.extend_from_slice(message);
        body.resize(body.len() + padding, 0);
        if let Some(cipher) = &mut self.outgoing {
            let nonce = cipher.nonce();
            cipher.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut body).expect("sealed");
        }
        [&length[..], &body].concat()
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let packet = self.seal(message);
        self.stream.write_all(&packet).await
    }

    /// This end's offer of algorithms: one of each.
    pub(super) fn offer() -> Vec<u8> {
        let mut offer = vec![message::KEXINIT];
        offer.extend_from_slice(&[7; 16]);
        for names in [
            "curve25519-sha256",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
            "aes128-gcm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-256",
            "none",
            "none",
            "",
            "",
        ] {
            string(&mut offer, names.as_bytes());
        }
        offer.extend_from_slice(&[0; 5]);
        offer
    }

    /// Agrees on keys, the first ones or others. What else comes meanwhile goes to `aside`. `theirs` is the other end's offer, where that
    /// has come already.
    pub(super) async fn exchange(
        &mut self,
        key: &Ed25519KeyPair,
        theirs: Option<Vec<u8>>,
        aside: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let ours = Self::offer();
        self.send(&ours).await?;
        let theirs = match theirs {
            Some(theirs) => theirs,
            None => self.receive_kind(message::KEXINIT, aside).await?,
        };
        let begin = self.receive_kind(message::ECDH_INIT, aside).await?;
        let their_point = take_string(&mut &begin[1..]).ok_or_else(|| broken("no point"))?.to_vec();
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).expect("a key");
        let point = private.compute_public_key().expect("a point").as_ref().to_vec();
        let secret =
            agree_ephemeral(private, UnparsedPublicKey::new(&X25519, &their_point), broken("no secret"), |secret| {
                Ok(mpint(secret))
            })?;
        let host_key = public_blob(key.public_key().as_ref());
        let mut said = Vec::new();
        for part in [&self.version[..], VERSION, &theirs, &ours, &host_key, &their_point, &point] {
            string(&mut said, part);
        }
        said.extend_from_slice(&secret);
        let hash = sha256(&said);
        let mut signature = Vec::new();
        string(&mut signature, b"ssh-ed25519");
        string(&mut signature, key.sign(&hash).as_ref());
        let mut reply = vec![message::ECDH_REPLY];
        for part in [&host_key, &point, &signature] {
            string(&mut reply, part);
        }
        self.send(&reply).await?;
        self.send(&[message::NEWKEYS]).await?;
        let session = self.session.get_or_insert_with(|| hash.clone()).clone();
        let agreed = Agreed { secret, hash, session };
        self.outgoing = Some(Cipher::new(&agreed.derive(b'D'), &agreed.derive(b'B')));
        self.receive_kind(message::NEWKEYS, aside).await?;
        self.incoming = Some(Cipher::new(&agreed.derive(b'C'), &agreed.derive(b'A')));
        Ok(())
    }

    async fn receive_kind(&mut self, kind: u8, aside: &mut Vec<Vec<u8>>) -> io::Result<Vec<u8>> {
        loop {
            let message = self.receive().await?;
            if message[0] == kind {
                return Ok(message);
            }
            aside.push(message);
        }
    }
}
