//! HTTP/2 by hand: frames that no client library would send, in any order and at any rate.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    /// Bytes of a message.
    pub const DATA: u8 = 0;
    /// The beginning of a stream, or its end.
    pub const HEADERS: u8 = 1;
    /// A stream is given up.
    pub const RST_STREAM: u8 = 3;
    /// What one end goes by.
    pub const SETTINGS: u8 = 4;
    /// Is anybody there?
    pub const PING: u8 = 6;
    /// The connection ends.
    pub const GOAWAY: u8 = 7;
    /// More may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The rest of the headers.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    /// SETTINGS and PING: an answer.
    pub const ACK: u8 = 1;
    /// DATA and HEADERS: the last of the stream.
    pub const END_STREAM: u8 = 1;
    /// HEADERS and CONTINUATION: the last of the headers.
    pub const END_HEADERS: u8 = 4;
}

/// `ENHANCE_YOUR_CALM`: what a flood is answered with.
pub const CALM: u32 = 11;
/// `REFUSED_STREAM`: one stream too many.
pub const REFUSED: u32 = 7;
/// `PROTOCOL_ERROR`.
pub const PROTOCOL: u32 = 1;
/// `FLOW_CONTROL_ERROR`.
pub const FLOW_CONTROL: u32 = 3;

/// The method that takes one job.
pub const SUBMIT: &str = "/seeway.v1.SeeJobService/Submit";
/// The method that takes many.
pub const STREAM: &str = "/seeway.v1.SeeJobService/Stream";

/// Appends a frame.
pub fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame's length fits");
    into.extend_from_slice(&length.to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A header as it is, outside every table.
pub fn literal(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    into.push(0);
    for text in [name.as_bytes(), value] {
        integer(into, text.len());
        into.extend_from_slice(text);
    }
}

/// A length of seven bits and as many more as it needs, without the bit for Huffman's code.
fn integer(into: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else {
        into.push(u8::try_from(value).expect("below 127"));
        return;
    };
    into.push(127);
    while rest >= 128 {
        into.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    into.push(u8::try_from(rest).expect("a byte"));
}

/// The headers of a call.
pub fn call(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "gateway"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        literal(&mut block, name, value.as_bytes());
    }
    block
}

/// A message of `Submit`, as it stands in DATA.
pub fn submit_message(world: &str, job: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a];
    varint(&mut message, world.len());
    message.extend_from_slice(world.as_bytes());
    message.push(0x12);
    varint(&mut message, job.len());
    message.extend_from_slice(job);
    in_grpc(&message)
}

/// A message of `Stream`, as it stands in DATA.
pub fn stream_message(id: usize, world: &str, job: &[u8]) -> Vec<u8> {
    let submit = &submit_message(world, job)[5..];
    let mut message = vec![0x08];
    varint(&mut message, id);
    message.push(0x12);
    varint(&mut message, submit.len());
    message.extend_from_slice(submit);
    in_grpc(&message)
}

fn in_grpc(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message's length fits");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

fn varint(into: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        into.push(u8::try_from(value % 128 + 128).expect("a byte"));
        value /= 128;
    }
    into.push(u8::try_from(value).expect("a byte"));
}

/// What the gateway has said.
#[derive(Default)]
pub struct Heard {
    /// GOAWAY's error code, plus one.
    goaway: AtomicU32,
    closed: AtomicBool,
    /// Streams that ended well or badly, but by RST_STREAM.
    ended: AtomicU64,
    /// RST_STREAM frames.
    resets: AtomicU64,
    /// The last one's code.
    reset_code: AtomicU32,
    /// Bytes of DATA.
    data: AtomicU64,
    pongs: AtomicU64,
    /// Bytes of DATA that may be sent, as the gateway says.
    window: AtomicI64,
    has_settings: AtomicBool,
}

impl Heard {
    /// Why the connection ends, if it was said.
    pub fn goaway(&self) -> Option<u32> {
        self.goaway.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Streams that were answered to the end.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Streams that were refused or given up, and the last one's code.
    pub fn resets(&self) -> (u64, u32) {
        (self.resets.load(Ordering::Relaxed), self.reset_code.load(Ordering::Relaxed))
    }

    /// Bytes of replies.
    pub fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// PINGs that were answered.
    pub fn pongs(&self) -> u64 {
        self.pongs.load(Ordering::Relaxed)
    }

    fn note(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let code =
            |at: usize| payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes(code.try_into().expect("four")));
        match kind {
            kind::DATA => _ = self.data.fetch_add(payload.len() as u64, Ordering::Relaxed),
            kind::GOAWAY => self.goaway.store(code(4) + 1, Ordering::Relaxed),
            kind::RST_STREAM => {
                self.reset_code.store(code(0), Ordering::Relaxed);
                self.resets.fetch_add(1, Ordering::Relaxed);
            }
            kind::SETTINGS if flags & flag::ACK == 0 => self.has_settings.store(true, Ordering::Relaxed),
            kind::WINDOW_UPDATE if stream == 0 => _ = self.window.fetch_add(code(0).into(), Ordering::Relaxed),
            kind::PING if flags & flag::ACK != 0 => _ = self.pongs.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && flags & flag::END_STREAM != 0 {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection on which anything can be said.
pub struct Http2 {
    write: OwnedWriteHalf,
    heard: Arc<Heard>,
    /// Answers that the gateway is owed: to SETTINGS and PING.
    owed: mpsc::UnboundedReceiver<Vec<u8>>,
    reader: JoinHandle<()>,
}

impl Http2 {
    /// Connects, and says what every client says first, with these settings.
    pub async fn open(address: &str, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut connection = Self::connect(address).await?;
        let mut hello = PREFACE.to_vec();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        frame(&mut hello, kind::SETTINGS, 0, 0, &settings);
        connection.send(&hello).await?;
        Ok(connection)
    }

    /// Connects and says nothing.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut read, write) = stream.into_split();
        let heard = Arc::new(Heard { window: AtomicI64::new(65_535), ..Heard::default() });
        let (owe, owed) = mpsc::unbounded_channel();
        let noting = heard.clone();
        let reader = tokio::spawn(async move {
            let mut head = [0; 9];
            while read.read_exact(&mut head).await.is_ok() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes(head[5..].try_into().expect("four"));
                if matches!(kind, kind::SETTINGS | kind::PING) && flags & flag::ACK == 0 {
                    let mut answer = Vec::new();
                    frame(&mut answer, kind, flag::ACK, 0, if kind == kind::PING { &payload } else { &[] });
                    // It may have no use for them any more.
                    let _ = owe.send(answer);
                }
                noting.note(kind, flags, stream, &payload);
            }
            noting.closed.store(true, Ordering::Relaxed);
        });
        Ok(Self { write, heard, owed, reader })
    }

    /// What the gateway has said so far.
    pub fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Sends any bytes, and nothing else.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.heard.is_closed() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.write.write_all(bytes).await
    }

    /// Sends a part of a message, when the connection's window has room for it, and what the gateway is owed meanwhile. The stream's window
    /// has to be large enough.
    pub async fn data(&mut self, flags: u8, stream: u32, part: &[u8]) -> io::Result<()> {
        let length = i64::try_from(part.len()).expect("a frame's length fits");
        // The stream's window is as the gateway says only once that was acknowledged.
        self.answer().await?;
        while !self.heard.has_settings.load(Ordering::Relaxed) || self.heard.window.load(Ordering::Relaxed) < length {
            self.send(&[]).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.answer().await?;
        }
        self.heard.window.fetch_sub(length, Ordering::Relaxed);
        let mut bytes = Vec::new();
        frame(&mut bytes, kind::DATA, flags, stream, part);
        self.send(&bytes).await
    }

    /// Sends what the gateway is owed: a client that is well-mannered as far as it goes.
    pub async fn answer(&mut self) -> io::Result<()> {
        while let Ok(answer) = self.owed.try_recv() {
            self.send(&answer).await?;
        }
        Ok(())
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_size() {
        for (value, bytes) in
            [(0, &[0][..]), (126, &[126]), (127, &[127, 0]), (254, &[127, 127]), (255, &[127, 128, 1])]
        {
            let mut written = Vec::new();
            integer(&mut written, value);
            assert_eq!(written, bytes, "{value}");
        }
    }

    #[test]
    fn frames_have_a_head_of_nine_bytes() {
        let mut written = Vec::new();
        frame(&mut written, kind::RST_STREAM, 0, 0x0102_0304, &[0, 0, 0, 8]);
        assert_eq!(written, [0, 0, 4, 3, 0, 1, 2, 3, 4, 0, 0, 0, 8]);
    }
}
