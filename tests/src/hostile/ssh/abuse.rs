//! What the server, and the machine behind it, do to whoever connects.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Profile, reply_job, reply_no_op};
use tokio::io::AsyncWriteExt;

use super::keys::{string, take_string, take_u32};
use super::transport::{Transport, message};
use crate::hostile::{Pace, Tally};

/// How it misbehaves. Where nothing else is said it does so a thousand times a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Noise where the version should be, 4 MB a second.
    Garbage,
    /// Lines before the version, without end.
    Banner,
    /// A version line without end.
    Version,
    /// Says nothing at all.
    Silence,
    /// Offers algorithms over and over.
    Offers,
    /// Messages to be ignored, before there are keys.
    Ignores,
    /// A packet of 4 GiB.
    Giant,
    /// Agrees on keys and says nothing any more.
    SilentLogin,
    /// Texts to be shown to whoever logs in, without end.
    LoginBanners,
    /// Data beyond what the channel's window allows: 12 MiB at once, and then 16 MB a second.
    PastWindow,
    /// Data for channels that there are not.
    NoSuchChannel,
    /// Opens channels that nobody asked for.
    Opens,
    /// Agrees on other keys over and over, a hundred times a second.
    Rekeys,
    /// Begins to agree on other keys, never goes on, and sends data meanwhile.
    HalfRekey,
    /// Requests that want an answer.
    Requests,
    /// Messages to be ignored.
    LateIgnores,
    /// Opens its window wider than there are numbers for.
    Windows,
    /// A reply of 16 MiB, of which a byte comes every 20 ms.
    SlowReply,
    /// Bytes without end where a reply should be, 16 MB a second.
    EndlessReply,
    /// Replies that nobody asked for.
    Strays,
    /// Each reply twice.
    Twice,
    /// Nothing: it echoes, like the machine that behaves.
    None,
}

/// Does it. Ends where the gateway ends the connection.
pub(super) async fn commit(mut to: Transport, key: &Ed25519KeyPair, abuse: Abuse, tally: &Tally) -> io::Result<()> {
    match abuse {
        Abuse::Garbage => return pour(&mut to, &[0xa5; 4096], tally).await,
        Abuse::Banner => return pour(&mut to, b"Welcome! You are not there yet.\r\n", tally).await,
        Abuse::Version => {
            to.stream.write_all(b"SSH-2.0-").await?;
            return pour(&mut to, &[b'x'; 64], tally).await;
        }
        Abuse::Silence => {
            tally.add(1);
            return until_closed(&mut to).await;
        }
        _ => to.greet().await?,
    }
    match abuse {
        Abuse::Offers => {
            let offer = to.seal(&Transport::offer());
            return pour(&mut to, &offer, tally).await;
        }
        Abuse::Ignores => {
            let ignore = to.seal(&[&[message::IGNORE][..], &[0, 0, 0, 200], &[7; 200]].concat());
            return pour(&mut to, &ignore, tally).await;
        }
        Abuse::Giant => {
            to.stream.write_all(&u32::MAX.to_be_bytes()).await?;
            return pour(&mut to, &[0; 4096], tally).await;
        }
        _ => to.exchange(key, None, &mut Vec::new()).await?,
    }
    if abuse == Abuse::SilentLogin {
        tally.add(1);
        return until_closed(&mut to).await;
    }
    let mut server = Server { to, key, abuse, channels: HashMap::new(), tally };
    server.run().await
}

/// The same again and again.
async fn pour(to: &mut Transport, bytes: &[u8], tally: &Tally) -> io::Result<()> {
    let mut pace = Pace::per_second(1000);
    loop {
        for _ in 0..pace.due().await {
            to.stream.write_all(bytes).await?;
            tally.add(1);
        }
    }
}

async fn until_closed(to: &mut Transport) -> io::Result<()> {
    loop {
        to.receive().await?;
    }
}

struct Channel {
    /// What came of commands that are not whole.
    input: Vec<u8>,
}

struct Server<'a> {
    to: Transport,
    key: &'a Ed25519KeyPair,
    abuse: Abuse,
    /// By the gateway's number, which is used in both directions.
    channels: HashMap<u32, Channel>,
    tally: &'a Tally,
}

impl Server<'_> {
    async fn run(&mut self) -> io::Result<()> {
        let mut pace = Pace::per_second(if self.abuse == Abuse::Rekeys { 100 } else { 1000 });
        let mut has_begun = false;
        loop {
            let is_at_it = !self.channels.is_empty() || self.abuse == Abuse::LoginBanners;
            tokio::select! {
                received = self.to.receive() => self.handle(&received?).await?,
                due = pace.due(), if is_at_it => {
                    if self.abuse == Abuse::HalfRekey && !has_begun {
                        has_begun = true;
                        self.to.send(&Transport::offer()).await?;
                    }
                    if self.abuse == Abuse::PastWindow && !has_begun {
                        has_begun = true;
                        self.burst().await?;
                    }
                    self.blows(due).await?;
                }
            }
        }
    }

    /// More than the window has room for, in one go: the beginning of a message of 16 MiB, which is read and dropped.
    async fn burst(&mut self) -> io::Result<()> {
        let channel = self.channels.keys().next().copied().unwrap_or_default();
        let mut part = vec![0; 32_000];
        part[..4].copy_from_slice(&(16 * 1024 * 1024 - 64_u32).to_le_bytes());
        part[4..8].copy_from_slice(&0x5a5a_0000_u32.to_le_bytes());
        for _ in 0..12 * 1024 * 1024 / 32_000 {
            self.say(channel, &part).await?;
            self.tally.add(1);
            part[..8].fill(0);
        }
        Ok(())
    }

    async fn blows(&mut self, due: u32) -> io::Result<()> {
        let channel = self.channels.keys().next().copied().unwrap_or_default();
        let data = |channel: u32, bytes: &[u8]| {
            let mut message = vec![message::CHANNEL_DATA];
            message.extend_from_slice(&channel.to_be_bytes());
            string(&mut message, bytes);
            message
        };
        let blow = match self.abuse {
            Abuse::LoginBanners => {
                let mut banner = vec![message::USERAUTH_BANNER];
                string(&mut banner, &[b'x'; 1000]);
                string(&mut banner, b"");
                banner
            }
            // What follows is within a message that is skipped.
            Abuse::PastWindow | Abuse::HalfRekey => data(channel, &[0x00; 16_000]),
            Abuse::NoSuchChannel => data(0x7777, &[7; 1000]),
            Abuse::Opens => {
                let mut open = vec![message::CHANNEL_OPEN];
                string(&mut open, b"forwarded-tcpip");
                for number in [4242_u32, 1 << 20, 32_768] {
                    open.extend_from_slice(&number.to_be_bytes());
                }
                for (host, port) in [("localhost", 80_u32), ("localhost", 81)] {
                    string(&mut open, host.as_bytes());
                    open.extend_from_slice(&port.to_be_bytes());
                }
                open
            }
            Abuse::Requests => {
                let mut request = vec![message::GLOBAL_REQUEST];
                string(&mut request, b"tell-me-more@hostile.example");
                request.push(1);
                request
            }
            Abuse::LateIgnores => [&[message::IGNORE][..], &[0, 0, 0, 200], &[7; 200]].concat(),
            Abuse::Windows => {
                let mut adjust = vec![message::WINDOW_ADJUST];
                adjust.extend_from_slice(&channel.to_be_bytes());
                adjust.extend_from_slice(&u32::MAX.to_be_bytes());
                adjust
            }
            Abuse::Strays => {
                let mut reply = WipedBuffer::new();
                reply_job(&Profile::open_1(), &mut reply, 0x5a5a_0000, b"nobody asked for this");
                data(channel, reply.filled())
            }
            Abuse::Rekeys => {
                let mut aside = Vec::new();
                self.to.exchange(self.key, None, &mut aside).await?;
                self.tally.add(1);
                for received in aside {
                    Box::pin(self.handle(&received)).await?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let mut packets = Vec::new();
        for _ in 0..due {
            packets.extend(self.to.seal(&blow));
        }
        self.tally.add(due);
        // It may be read slowly, or not at all.
        tokio::time::timeout(Duration::from_secs(20), self.to.stream.write_all(&packets)).await?
    }

    async fn handle(&mut self, received: &[u8]) -> io::Result<()> {
        let (kind, mut rest) = received.split_first().expect("no message is empty");
        let reply = match *kind {
            message::SERVICE_REQUEST => {
                let mut accept = vec![message::SERVICE_ACCEPT];
                string(&mut accept, take_string(&mut rest).unwrap_or_default());
                accept
            }
            // Everybody who shows anything, and does not only ask what could be shown.
            message::USERAUTH_REQUEST if self.abuse != Abuse::LoginBanners => vec![message::USERAUTH_SUCCESS],
            message::GLOBAL_REQUEST => {
                let _ = take_string(&mut rest);
                if rest.first() != Some(&1) {
                    return Ok(());
                }
                vec![message::REQUEST_FAILURE]
            }
            message::CHANNEL_OPEN => {
                let _ = take_string(&mut rest);
                let channel = take_u32(&mut rest).unwrap_or_default();
                self.channels.insert(channel, Channel { input: Vec::new() });
                let mut confirmation = vec![message::CHANNEL_OPEN_CONFIRMATION];
                for number in [channel, channel, 1 << 24, 32_768] {
                    confirmation.extend_from_slice(&number.to_be_bytes());
                }
                confirmation
            }
            message::CHANNEL_DATA => {
                let channel = take_u32(&mut rest).unwrap_or_default();
                let data = take_string(&mut rest).unwrap_or_default();
                return self.commands(channel, data).await;
            }
            message::CHANNEL_EOF | message::CHANNEL_CLOSE => {
                let channel = take_u32(&mut rest).unwrap_or_default();
                if self.channels.remove(&channel).is_none() {
                    return Ok(());
                }
                [&[message::CHANNEL_CLOSE][..], &channel.to_be_bytes()].concat()
            }
            message::KEXINIT if self.abuse != Abuse::HalfRekey => {
                let mut aside = Vec::new();
                self.to.exchange(self.key, Some(received.to_vec()), &mut aside).await?;
                for received in aside {
                    Box::pin(self.handle(&received)).await?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.to.send(&reply).await
    }

    /// The machine's side of a channel.
    async fn commands(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        channel.input.extend_from_slice(data);
        let mut adjust = vec![message::WINDOW_ADJUST];
        adjust.extend_from_slice(&number.to_be_bytes());
        adjust.extend_from_slice(&u32::try_from(data.len()).expect("a packet's length fits").to_be_bytes());
        let profile = Profile::open_1();
        let mut replies = WipedBuffer::new();
        let mut ends = false;
        while let Some((length, rest)) = channel.input.split_first_chunk::<4>()
            && let Some(body) = rest.get(..u32::from_le_bytes(*length) as usize)
        {
            let word =
                |at: usize| body.get(at..at + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().expect("four")));
            let tag = word(0);
            if word(4) == profile.commands.no_op {
                reply_no_op(&profile, &mut replies, tag);
            } else {
                let job = body.get(20..20 + word(16) as usize).unwrap_or_default();
                match self.abuse {
                    Abuse::SlowReply | Abuse::EndlessReply => ends = true,
                    Abuse::Twice => {
                        self.tally.add(1);
                        reply_job(&profile, &mut replies, tag, job);
                        reply_job(&profile, &mut replies, tag, job);
                    }
                    _ => reply_job(&profile, &mut replies, tag, job),
                }
            }
            if ends {
                replies.extend(&(16 * 1024 * 1024 - 64_u32).to_le_bytes());
                replies.extend(&tag.to_le_bytes());
            }
            let whole = 4 + body.len();
            channel.input.drain(..whole);
        }
        self.to.send(&adjust).await?;
        if !replies.is_empty() {
            self.say(number, replies.filled()).await?;
        }
        if ends {
            self.never_end(number).await?;
        }
        Ok(())
    }

    async fn say(&mut self, channel: u32, bytes: &[u8]) -> io::Result<()> {
        let mut message = vec![message::CHANNEL_DATA];
        message.extend_from_slice(&channel.to_be_bytes());
        string(&mut message, bytes);
        self.to.send(&message).await
    }

    /// A reply without end, slow or fast. Whatever else the gateway says meanwhile is not heard.
    async fn never_end(&mut self, channel: u32) -> io::Result<()> {
        let (per_second, bytes): (u32, &[u8]) =
            if self.abuse == Abuse::SlowReply { (50, &[0]) } else { (1000, &[0; 16_000]) };
        let mut pace = Pace::per_second(per_second);
        loop {
            for _ in 0..pace.due().await {
                self.say(channel, bytes).await?;
                self.tally.add(1);
            }
        }
    }
}
