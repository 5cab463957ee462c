//! A hardserver as it might stand behind Seeway: commands that Seeway has never heard of, and objects that belong to one
//! connection each. It does what it is told, bad things too.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use seeway_proto::wire::Profile;

/// Its own commands: numbers that `open-1` does not have.
pub mod cmd {
    /// Answers with the command's flags and arguments, under flags that `open-1` does not have.
    pub const ECHO: u32 = 100;
    /// Makes an object of the argument's bytes; answers with its handle.
    pub const CREATE: u32 = 101;
    /// Answers with the bytes of the object whose handle is the argument.
    pub const READ: u32 = 102;
    /// Is answered like an echo, as soon as [`release`](super::Hardserver::release) is called.
    pub const HOLD: u32 = 103;
    /// Closes the connection.
    pub const DIE: u32 = 104;
    /// Is answered under another tag: its own and 1.
    pub const STRAY: u32 = 105;
    /// Is answered with a length that no message has.
    pub const GARBAGE: u32 = 106;
    /// Sets the next handle to the argument.
    pub const NEXT_HANDLE: u32 = 107;
    /// Is answered with a message whose `length` is the argument.
    pub const LONG: u32 = 108;
}

/// The flags of an [`cmd::ECHO`]'s reply.
pub const ECHO_FLAGS: u32 = 0x8000_0006;

/// The name under which it publishes an object of its own.
pub const PUBLISHED: &str = "an object of the hardserver's";

/// Where it listens.
enum Way {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A running hardserver; it ends when this is dropped.
pub struct Hardserver {
    way: Way,
    shared: Arc<Shared>,
    is_up: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    is_stalled: bool,
    releases: u64,
    connections: BTreeMap<u64, Stream>,
    connected: u64,
    commands: u64,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    fn shut_down(&self) {
        // Whoever it was may have closed it already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hardserver {
    /// One that listens on a Unix socket.
    pub fn on_unix(path: &Path) -> Self {
        let mut server = Self::off(path);
        server.start();
        server
    }

    /// One that will listen on a Unix socket once it is [started](Self::start).
    pub fn off(path: &Path) -> Self {
        Self { way: Way::Unix(path.to_owned()), shared: Arc::default(), is_up: false }
    }

    /// One that listens on a TCP port that the system chooses.
    pub fn on_tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = Self { way: Way::Tcp(address), shared: Arc::default(), is_up: true };
        let shared = server.shared.clone();
        thread::spawn(move || accept(&shared, || listener.accept().map(|(stream, _)| Stream::Tcp(stream))));
        server
    }

    /// Its address, as `listen.upstream_hardserver` takes it.
    pub fn address(&self) -> String {
        match &self.way {
            Way::Unix(path) => format!("unix:{}", path.display()),
            Way::Tcp(address) => format!("tcp:{address}"),
        }
    }

    /// Listens, on a Unix socket. Numbers begin anew, as after a restart.
    pub fn start(&mut self) {
        let Way::Unix(path) = &self.way else { panic!("a TCP port is listened on once") };
        self.shared = Arc::default();
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let shared = self.shared.clone();
        thread::spawn(move || accept(&shared, || listener.accept().map(|(stream, _)| Stream::Unix(stream))));
        self.is_up = true;
    }

    /// Stops listening, and closes every connection.
    pub fn stop(&mut self) {
        if !std::mem::take(&mut self.is_up) {
            return;
        }
        self.shared.lock().is_stopping = true;
        self.release();
        self.stall(false);
        self.close_connections();
        // The acceptor looks up when somebody comes.
        match &self.way {
            Way::Unix(path) => {
                let _ = UnixStream::connect(path);
                let _ = fs::remove_file(path);
            }
            Way::Tcp(address) => {
                let _ = TcpStream::connect(address);
            }
        }
    }

    /// Closes every connection, and goes on listening.
    pub fn close_connections(&self) {
        self.shared.lock().connections.values().for_each(Stream::shut_down);
    }

    /// Answers what is [held](cmd::HOLD).
    pub fn release(&self) {
        self.shared.lock().releases += 1;
        self.shared.changed.notify_all();
    }

    /// Whether it reads no more commands.
    pub fn stall(&self, is_stalled: bool) {
        self.shared.lock().is_stalled = is_stalled;
        self.shared.changed.notify_all();
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many connections were ever opened.
    pub fn connected(&self) -> u64 {
        self.shared.lock().connected
    }

    /// How many commands have come.
    pub fn commands(&self) -> u64 {
        self.shared.lock().commands
    }
}

impl Drop for Hardserver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, accept: impl Fn() -> io::Result<Stream>) {
    loop {
        let stream = accept().expect("a listener goes on");
        let mut state = shared.lock();
        if state.is_stopping {
            return;
        }
        state.connected += 1;
        let number = state.connected;
        state.connections.insert(number, stream.try_clone().expect("there is a file descriptor left"));
        drop(state);
        let shared = shared.clone();
        thread::spawn(move || {
            // An error is a peer that has gone.
            let _ = Connection::new(&stream, shared.clone()).and_then(Connection::serve);
            stream.shut_down();
            shared.lock().connections.remove(&number);
        });
    }
}

struct Connection {
    profile: Arc<Profile>,
    shared: Arc<Shared>,
    input: BufReader<Stream>,
    output: Arc<Mutex<Stream>>,
    objects: HashMap<u32, Vec<u8>>,
    next_handle: u32,
}

impl Connection {
    fn new(stream: &Stream, shared: Arc<Shared>) -> io::Result<Self> {
        let input = BufReader::new(stream.try_clone()?);
        let output = Arc::new(Mutex::new(stream.try_clone()?));
        let profile = Profile::open_1();
        Ok(Self { profile, shared, input, output, objects: HashMap::new(), next_handle: 1 })
    }

    fn serve(mut self) -> io::Result<()> {
        loop {
            let message = read_message(&mut self.input)?;
            let mut state = self.shared.lock();
            state.commands += 1;
            while state.is_stalled {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if !self.answer(&message)? {
                return Ok(());
            }
        }
    }

    /// Returns whether the connection goes on.
    fn answer(&mut self, command: &[u8]) -> io::Result<bool> {
        let [tag, number, flags] = [4, 8, 12].map(|at| word_at(command, at));
        let args = &command[16..];
        let arg = if args.len() >= 4 { word_at(args, 0) } else { 0 };
        let commands = &self.profile.commands;
        match number {
            cmd::ECHO => self.say(&echo(command))?,
            cmd::HOLD => self.hold(echo(command)),
            cmd::DIE => return Ok(false),
            cmd::STRAY => self.say(&reply(tag + 1, number, 0, 0, &[]))?,
            cmd::GARBAGE => self.say(&[3, 0, 0, 0, 1])?,
            cmd::NEXT_HANDLE => {
                self.next_handle = arg;
                self.say(&reply(tag, number, 0, 0, &[]))?;
            }
            cmd::LONG => self.say(&reply(tag, number, 0, 0, &vec![7; arg as usize - 16]))?,
            cmd::CREATE => {
                let handle = self.create(args[4..4 + arg as usize].to_vec());
                self.say(&reply(tag, number, 0, 0, &handle.to_le_bytes()))?;
            }
            cmd::READ => match self.objects.get(&arg) {
                Some(object) => self.say(&reply(tag, number, 0, 0, &block(object)))?,
                None => self.say(&no_such_object(tag))?,
            },
            _ if number == commands.get_published_object => {
                if flags == 0 && args == block(PUBLISHED.as_bytes()) {
                    let handle = self.create(PUBLISHED.as_bytes().to_vec());
                    self.say(&reply(tag, number, 0, 0, &handle.to_le_bytes()))?;
                } else {
                    self.say(&no_such_object(tag))?;
                }
            }
            _ if number == commands.see_job => match self.objects.get(&arg) {
                Some(_) => self.say(&reply(tag, number, 0, 0, &args[4..]))?,
                None => self.say(&no_such_object(tag))?,
            },
            _ => self.say(&reply(tag, commands.error_return, self.profile.statuses.unknown_command, 0, &[]))?,
        }
        Ok(true)
    }

    fn create(&mut self, value: Vec<u8>) -> u32 {
        let handle = self.next_handle;
        self.next_handle = handle.wrapping_add(1);
        self.objects.insert(handle, value);
        handle
    }

    fn say(&self, message: &[u8]) -> io::Result<()> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).write_all(message)
    }

    fn hold(&self, reply: Vec<u8>) {
        let (shared, output) = (self.shared.clone(), self.output.clone());
        let before = shared.lock().releases;
        thread::spawn(move || {
            let state = shared.lock();
            drop(shared.changed.wait_while(state, |state| state.releases == before));
            // An error is a peer that has gone.
            let _ = output.lock().unwrap_or_else(PoisonError::into_inner).write_all(&reply);
        });
    }
}

/// Reads one message, its length word included.
pub fn read_message(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    input.read_exact(&mut message)?;
    let length = word_at(&message, 0) as usize;
    message.resize(4 + length, 0);
    input.read_exact(&mut message[4..])?;
    Ok(message)
}

/// A command's bytes, its length word included.
pub fn command(tag: u32, number: u32, flags: u32, args: &[u8]) -> Vec<u8> {
    message(&[tag, number, flags], args)
}

/// A reply's bytes, its length word included.
pub fn reply(tag: u32, number: u32, status: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    message(&[tag, number, status, flags], body)
}

/// What the hardserver says to an [`cmd::ECHO`] or a [`cmd::HOLD`].
pub fn echo(command: &[u8]) -> Vec<u8> {
    let [tag, number] = [4, 8].map(|at| word_at(command, at));
    reply(tag, number, 0, ECHO_FLAGS, &command[12..])
}

/// What the hardserver says of a handle or a name that is none.
pub fn no_such_object(tag: u32) -> Vec<u8> {
    let profile = Profile::open_1();
    let info = block(b"the hardserver has none");
    let (error, status) = (profile.commands.error_return, profile.statuses.unknown_id);
    reply(tag, error, status, profile.reply_flags.errorinfo, &info)
}

/// A byte block.
pub fn block(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("blocks are small");
    let mut block = length.to_le_bytes().to_vec();
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
    block
}

/// The word at this place.
pub fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn message(head: &[u32], rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(head.len() * 4 + rest.len()).expect("messages are small");
    let mut message = length.to_le_bytes().to_vec();
    for word in head {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(rest);
    message
}
