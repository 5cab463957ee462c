//! Seeway in front of a hardserver: what is not Seeway's goes there and comes back unchanged, over one connection for each
//! caller, and the two never get into each other's way.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use seeway_bench::Target;
use seeway_proto::wire::{Profile, ReplyBody, Statuses, decode_reply};
use seeway_tests::{
    Config, Gateway, Hardserver, Identity, Machine,
    hardserver::{PUBLISHED, block, cmd, command, echo, no_such_object, read_message, reply, word_at},
    python,
    turn::Turn,
    wait,
};
use tempfile::TempDir;

/// A gateway with the worlds `w` and `v`, which echo, and a hardserver behind it.
struct Stage {
    gateway: Gateway,
    hardserver: Hardserver,
    _machine: Machine,
    _identity: Identity,
    _folder: TempDir,
    _turn: Turn,
}

impl Stage {
    fn set() -> Self {
        Self::with(true, "echo", |config| config)
    }

    fn with(is_up: bool, app: &str, further: impl FnOnce(Config) -> Config) -> Self {
        let turn = Turn::beside_others();
        let folder = TempDir::new().expect("the temporary folder can be written");
        let path = folder.path().join("hs");
        let hardserver = if is_up { Hardserver::on_unix(&path) } else { Hardserver::off(&path) };
        Self::before(hardserver, folder, app, turn, further)
    }

    fn before(
        hardserver: Hardserver,
        folder: TempDir,
        app: &str,
        turn: Turn,
        further: impl FnOnce(Config) -> Config,
    ) -> Self {
        let identity = Identity::generate();
        let machine = Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
        let config = Config::new()
            .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
            .world("w", &["hsm"], "")
            .world("v", &["hsm"], "")
            .line("listen", &format!("upstream_hardserver = {:?}", hardserver.address()));
        let gateway = Gateway::ready(&further(config));
        Self { gateway, hardserver, _machine: machine, _identity: identity, _folder: folder, _turn: turn }
    }

    fn caller(&self) -> Caller {
        Caller::to(&self.gateway.unix())
    }

    fn gauge_reaches(&self, name: &str, label: &str, wanted: f64) {
        wait::until(&format!("{name} {label} is {wanted}"), wait::BOUND, || {
            ((self.gateway.metrics().sum_where(name, label) - wanted).abs() < 0.5).then_some(())
        });
    }

    fn commands_ended(&self, outcome: &str) -> f64 {
        self.gateway.metrics().sum_where("seeway_upstream_hardserver_commands_total", &format!("outcome=\"{outcome}\""))
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A legacy caller that sees every byte.
struct Caller(Stream);

impl Read for Caller {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Stream::Unix(stream) => stream.read(into),
            Stream::Tcp(stream) => stream.read(into),
        }
    }
}

impl Caller {
    fn to(target: &Target) -> Self {
        let stream = match target {
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path).expect("accepted")),
            Target::Tcp(address) => Stream::Tcp(TcpStream::connect(address).expect("accepted")),
            Target::Grpc(_) => panic!("gRPC is not the SEEJob wire"),
        };
        let caller = Self(stream);
        caller.patience(wait::BOUND);
        caller
    }

    /// How long it waits for a reply.
    fn patience(&self, patience: Duration) {
        let set = match &self.0 {
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
        };
        set.expect("a time-out above zero");
    }

    fn try_clone(&self) -> Self {
        Self(match &self.0 {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a file descriptor is left")),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a file descriptor is left")),
        })
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
        }
        .expect("the gateway is there");
    }

    /// The next reply, whole.
    fn hear(&mut self) -> Vec<u8> {
        read_message(self).unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    fn ask(&mut self, command: &[u8]) -> Vec<u8> {
        self.send(command);
        self.hear()
    }

    /// Asks for something that fails; returns the status and the errorinfo.
    fn fails(&mut self, command: &[u8]) -> (u32, String) {
        error(&self.ask(command), word_at(command, 4))
    }

    fn object(&mut self, name: &str) -> u32 {
        let reply = self.ask(&get_object(1, name));
        match decode_reply(&Profile::open_1(), &reply[4..]).map(|reply| reply.body) {
            Ok(ReplyBody::Object(handle)) => handle,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// A job comes back from the world of this handle.
    fn job_comes_back(&mut self, handle: u32) {
        let reply = self.ask(&see_job(2, handle, b"a job"));
        assert_eq!(reply, job_reply(2, b"a job"));
    }
}

fn statuses() -> Statuses {
    Profile::open_1().statuses.clone()
}

/// The status and the errorinfo of a reply that is an ErrorReturn with this tag.
fn error(reply: &[u8], wanted_tag: u32) -> (u32, String) {
    let reply = decode_reply(&Profile::open_1(), &reply[4..]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reply.tag, wanted_tag, "{reply:?}");
    let ReplyBody::Error { status, info } = reply.body else { panic!("no error: {reply:?}") };
    (status, info.unwrap_or_default().to_owned())
}

fn no_op(tag: u32) -> Vec<u8> {
    command(tag, Profile::open_1().commands.no_op, 0, &[])
}

fn no_op_reply(tag: u32) -> Vec<u8> {
    reply(tag, Profile::open_1().commands.no_op, 0, 0, &[])
}

fn see_job(tag: u32, handle: u32, job: &[u8]) -> Vec<u8> {
    let args = [&handle.to_le_bytes()[..], &block(job)].concat();
    command(tag, Profile::open_1().commands.see_job, 0, &args)
}

fn job_reply(tag: u32, job: &[u8]) -> Vec<u8> {
    reply(tag, Profile::open_1().commands.see_job, 0, 0, &block(job))
}

fn get_object(tag: u32, name: &str) -> Vec<u8> {
    command(tag, Profile::open_1().commands.get_published_object, 0, &block(name.as_bytes()))
}

fn object_reply(tag: u32, handle: u32) -> Vec<u8> {
    reply(tag, Profile::open_1().commands.get_published_object, 0, 0, &handle.to_le_bytes())
}

/// A command of the hardserver's that takes a word.
fn with_word(tag: u32, number: u32, word: u32) -> Vec<u8> {
    command(tag, number, 0, &word.to_le_bytes())
}

fn create(tag: u32, value: &[u8]) -> Vec<u8> {
    command(tag, cmd::CREATE, 0, &block(value))
}

#[test]
fn what_seeway_does_not_know_comes_back_unchanged() {
    let stage = Stage::set();
    for way in [stage.gateway.unix(), stage.gateway.tcp4(), stage.gateway.tcp6()] {
        let mut caller = Caller::to(&way);
        // The last one's reply is as long as a message may be.
        for (tag, flags, length) in [(0, 0, 0), (u32::MAX, 1, 4), (7, u32::MAX, 3), (8, 2, 10_000), (9, 0, 262_124)] {
            let args: Vec<u8> = (0..length).map(|number: u32| number.to_le_bytes()[0] ^ 0xa5).collect();
            let asked = command(tag, cmd::ECHO, flags, &args);
            assert!(caller.ask(&asked) == echo(&asked), "{length} bytes with the flags {flags:#x}");
        }
        // In pieces, too.
        let asked = command(3, cmd::ECHO, 0, &[9; 100]);
        for byte in &asked {
            caller.send(&[*byte]);
        }
        assert_eq!(caller.hear(), echo(&asked));
        // The hardserver's own "no" is its own.
        let error = reply(4, 0, statuses().unknown_command, 0, &[]);
        assert_eq!(caller.ask(&command(4, 4711, 0, &[])), error);
    }
    assert!((stage.commands_ended("replied") - 21.0).abs() < 0.5);
}

#[test]
fn who_may_not_use_the_hardserver_reaches_it_by_no_command() {
    let me = std::process::Command::new("id").arg("-un").output().expect("id runs").stdout;
    let me = String::from_utf8(me).expect("text").trim().to_owned();
    for (may, is_allowed) in [("submit", false), ("hardserver", true)] {
        let rule = format!("who = [\"user:{me}\"]\nmay = [\"{may}\"]");
        let stage = Stage::with(true, "echo", |config| config.permission(&rule));
        let mut caller = stage.caller();
        let asked = command(7, cmd::ECHO, 0, &[1, 2, 3, 4]);
        if is_allowed {
            assert!(caller.ask(&asked) == echo(&asked));
        } else {
            assert_eq!(caller.fails(&asked), (statuses().access_denied, "not allowed".to_owned()));
            let handle = caller.object("w");
            caller.job_comes_back(handle);
        }
        assert!((stage.commands_ended("replied") - f64::from(u8::from(is_allowed))).abs() < 0.5);
    }
}

#[test]
fn over_tcp() {
    let turn = Turn::beside_others();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let stage = Stage::before(Hardserver::on_tcp(), folder, "echo", turn, |config| config);
    let asked = command(5, cmd::ECHO, 1, b"over TCP");
    assert_eq!(stage.caller().ask(&asked), echo(&asked));
}

#[test]
fn what_is_seeways_stays_with_seeway() {
    let stage = Stage::set();
    let mut caller = stage.caller();
    assert_eq!(caller.ask(&no_op(5)), no_op_reply(5));
    let world = caller.object("w");
    caller.job_comes_back(world);
    let commands = Profile::open_1().commands.clone();
    for number in [commands.no_op, commands.see_job, commands.get_published_object] {
        let (status, _) = caller.fails(&command(6, number, 4, &[]));
        assert_eq!(status, statuses().invalid_parameter, "flags of command {number}");
    }
    let (status, _) = caller.fails(&command(6, commands.see_job, 0, &[1, 2, 3, 4]));
    assert_eq!(status, statuses().malformed);
    assert_eq!(stage.hardserver.connected(), 0, "nobody has needed the hardserver yet");

    assert_eq!(caller.ask(&get_object(7, "nowhere")), no_such_object(7), "the hardserver is asked for other names");
    assert_eq!(stage.hardserver.connected(), 1);
}

#[test]
fn each_callers_objects_are_its_own() {
    let stage = Stage::set();
    let values: [&[u8]; 3] = [b"of the first", b"of the second", b"of the third"];
    let mut callers: Vec<_> = values.iter().map(|_| stage.caller()).collect();
    for (caller, value) in callers.iter_mut().zip(values) {
        assert_eq!(caller.ask(&create(1, value)), reply(1, cmd::CREATE, 0, 0, &1_u32.to_le_bytes()));
    }
    for (caller, value) in callers.iter_mut().zip(values) {
        assert_eq!(caller.ask(&with_word(2, cmd::READ, 1)), reply(2, cmd::READ, 0, 0, &block(value)));
        assert_eq!(caller.ask(&with_word(3, cmd::READ, 2)), no_such_object(3));
    }
    assert_eq!((stage.hardserver.connected(), stage.hardserver.connections()), (3, 3));
    stage.gauge_reaches("seeway_upstream_hardserver_connections", "", 3.0);

    callers.pop();
    wait::until("the hardserver sees that the third has gone", wait::BOUND, || {
        (stage.hardserver.connections() == 2).then_some(())
    });
    // One that vanishes with a command outstanding, too.
    let before = stage.hardserver.commands();
    callers[1].send(&command(4, cmd::HOLD, 0, &[]));
    wait::until("it came", wait::BOUND, || (stage.hardserver.commands() == before + 1).then_some(()));
    callers.pop();
    wait::until("the hardserver sees that the second has gone", wait::BOUND, || {
        (stage.hardserver.connections() == 1).then_some(())
    });
    stage.gauge_reaches("seeway_upstream_hardserver_connections", "", 1.0);
    let still = callers[0].ask(&with_word(2, cmd::READ, 1));
    assert_eq!(still, reply(2, cmd::READ, 0, 0, &block(values[0])));
}

#[test]
fn names_and_handles_of_both() {
    let stage = Stage::set();
    let mut caller = stage.caller();
    let theirs = caller.object(PUBLISHED);
    assert_eq!(theirs, 1, "the hardserver's own number");
    let ours = caller.object("w");
    assert_eq!(caller.object("w"), ours);
    // The hardserver answers a job with the job, too, in a block; what tells them apart is who has seen it.
    let before = stage.hardserver.commands();
    caller.job_comes_back(ours);
    assert_eq!(stage.hardserver.commands(), before, "Seeway's handles go to Seeway");
    caller.job_comes_back(theirs);
    assert_eq!(stage.hardserver.commands(), before + 1, "others go to the hardserver");
    assert_eq!(caller.ask(&see_job(9, 12_345, b"job")), no_such_object(9));
    // A handle of Seeway's is no one's on another connection.
    assert_eq!(stage.caller().ask(&see_job(9, ours, b"job")), no_such_object(9));
}

#[test]
fn a_number_that_the_hardserver_has_given_is_not_given_again() {
    let stage = Stage::set();
    let mut caller = stage.caller();
    // Numbers are given one after the other, so that what comes next is known here.
    let first = caller.object("w");
    let next = first.wrapping_add(1);
    caller.ask(&with_word(1, cmd::NEXT_HANDLE, next));
    assert_eq!(caller.ask(&create(2, b"x")), reply(2, cmd::CREATE, 0, 0, &next.to_le_bytes()), "unchanged");
    assert_eq!(caller.ask(&get_object(3, PUBLISHED)), object_reply(3, next.wrapping_add(1)), "unchanged");
    let second = caller.object("v");
    assert!(![next, next.wrapping_add(1), first].contains(&second), "{second:#x} has two meanings");
    let before = stage.hardserver.commands();
    for ours in [first, second] {
        caller.job_comes_back(ours);
    }
    assert_eq!(stage.hardserver.commands(), before);
    for theirs in [next, next.wrapping_add(1)] {
        caller.job_comes_back(theirs);
    }
    assert_eq!(stage.hardserver.commands(), before + 2);
}

#[test]
fn a_number_that_both_have_given_runs_nothing() {
    let stage = Stage::set();
    for gives in [create(2, b"x"), get_object(2, PUBLISHED)] {
        let mut caller = stage.caller();
        let (ours, other) = (caller.object("w"), caller.object("v"));
        caller.ask(&with_word(1, cmd::NEXT_HANDLE, ours));
        let given = caller.ask(&gives);
        assert_eq!(word_at(&given, 20), ours, "the reply is not changed");
        let (jobs, commands) = (stage.gateway.metrics().sum("seeway_jobs_total"), stage.hardserver.commands());
        let (status, info) = caller.fails(&see_job(3, ours, b"for whom?"));
        assert_eq!(
            (status, info.as_str()),
            (statuses().unknown_id, "the handle is ambiguous: ask for the world again")
        );
        assert_eq!(stage.hardserver.commands(), commands, "the hardserver has not got it");
        assert!((stage.gateway.metrics().sum("seeway_jobs_total") - jobs).abs() < 0.5, "and no machine has");
        // Other commands with that number are the hardserver's, as ever.
        assert_eq!(word_at(&caller.ask(&with_word(4, cmd::READ, ours)), 12), 0);
        let again = caller.object("w");
        assert!(again != ours && again != other);
        caller.job_comes_back(again);
        caller.job_comes_back(other);
    }
}

#[test]
fn an_applications_bytes_are_no_handles() {
    let stage = Stage::set();
    let mut caller = stage.caller();
    let (ours, theirs) = (caller.object("w"), caller.object(PUBLISHED));
    let bytes = ours.to_le_bytes();
    assert_eq!(caller.ask(&see_job(3, theirs, &bytes)), job_reply(3, &bytes));
    caller.job_comes_back(ours);
}

#[test]
fn one_tag_for_one_command() {
    let stage = Stage::with(true, "slow:500", |config| config);
    let mut caller = stage.caller();
    let world = caller.object("w");
    let in_use =
        |(status, info): (u32, String)| assert_eq!((status, &*info), (statuses().invalid_parameter, "tag in use"));
    // Outstanding at the hardserver.
    let held = command(7, cmd::HOLD, 0, b"held");
    caller.send(&held);
    wait::until("it came", wait::BOUND, || (stage.hardserver.commands() == 1).then_some(()));
    in_use(caller.fails(&no_op(7)));
    in_use(caller.fails(&see_job(7, world, b"job")));
    in_use(caller.fails(&command(7, cmd::ECHO, 0, &[])));
    stage.hardserver.release();
    assert_eq!(caller.hear(), echo(&held), "the first one was not disturbed");
    // Outstanding at Seeway.
    caller.send(&[see_job(7, world, b"slow"), command(7, cmd::ECHO, 0, &[])].concat());
    in_use(error(&caller.hear(), 7));
    assert_eq!(caller.hear(), job_reply(7, b"slow"));
    assert_eq!(stage.hardserver.commands(), 1, "what was refused went nowhere");
    // And free again.
    let asked = command(7, cmd::ECHO, 0, &[]);
    assert_eq!(caller.ask(&asked), echo(&asked));
}

#[test]
fn a_hardserver_that_is_not_there_and_comes() {
    let mut stage = Stage::with(false, "echo", |config| config);
    let mut caller = stage.caller();
    let world = caller.object("w");
    for tag in 0..3 {
        let (status, info) = caller.fails(&command(tag, cmd::ECHO, 0, &[]));
        assert_eq!((status, info.as_str()), (statuses().not_available, "the hardserver can not be reached"));
        caller.job_comes_back(world);
    }
    assert!((stage.commands_ended("not_sent") - 3.0).abs() < 0.5);
    stage.hardserver.start();
    let asked = command(9, cmd::ECHO, 0, &[]);
    assert_eq!(caller.ask(&asked), echo(&asked));
    stage.hardserver.stop();
    stage.gauge_reaches("seeway_upstream_hardserver_connections", "", 0.0);
    caller.job_comes_back(world);
    stage.hardserver.start();
    // Nothing was outstanding when it went: its objects are gone, which the caller has to hear before anything else.
    let both = [asked.clone(), command(10, cmd::ECHO, 0, &[])].concat();
    caller.send(&both);
    for tag in [9, 10] {
        let (status, info) = error(&caller.hear(), tag);
        assert_eq!(status, statuses().not_available);
        assert!(info.contains("and with it what it had given"), "{info}");
    }
    assert_eq!(stage.hardserver.commands(), 0, "none of them went to the new one");
    assert_eq!(caller.ask(&asked), echo(&asked));
}

#[test]
fn a_hardserver_that_dies_with_commands_outstanding() {
    let stage = Stage::set();
    let (asked, held) = (command(3, cmd::ECHO, 0, b"before"), command(1, cmd::HOLD, 0, &[]));
    for worst in [cmd::DIE, cmd::STRAY, cmd::GARBAGE] {
        let mut caller = stage.caller();
        let world = caller.object("w");
        let connected = stage.hardserver.connected();
        // In one piece: the first is answered, the others have left and will not be.
        caller.send(&[asked.clone(), held.clone(), command(8, worst, 0, &[])].concat());
        assert_eq!(caller.hear(), echo(&asked), "what was answered before is told");
        let mut told = [caller.hear(), caller.hear()];
        told.sort_by_key(|reply| word_at(reply, 4));
        for (reply, tag) in told.iter().zip([1, 8]) {
            let (status, info) = error(reply, tag);
            assert_eq!(status, statuses().network_error, "{info}");
            assert!(info.contains("outcome unknown"), "{info}");
        }
        caller.job_comes_back(world);
        assert_eq!(stage.hardserver.connected(), connected + 1);
        assert_eq!(caller.ask(&asked), echo(&asked), "the next command opens the next connection");
        assert_eq!(stage.hardserver.connected(), connected + 2);
    }
    wait::until("all connections are closed", wait::BOUND, || (stage.hardserver.connections() == 0).then_some(()));
    assert!((stage.commands_ended("unknown") - 6.0).abs() < 0.5);
    assert!((stage.commands_ended("replied") - 6.0).abs() < 0.5);
}

#[test]
fn at_the_limit_of_a_callers_commands_and_one_past_it() {
    let stage = Stage::with(true, "echo", |config| config.line("limits", "caller_jobs = 4"));
    let mut caller = stage.caller();
    for tag in 0..3 {
        caller.send(&command(tag, cmd::HOLD, 0, &[]));
    }
    wait::until("three came", wait::BOUND, || (stage.hardserver.commands() == 3).then_some(()));
    caller.send(&no_op(99));
    assert_eq!(caller.hear(), no_op_reply(99), "at the limit");
    stage.hardserver.release();
    for _ in 0..3 {
        caller.hear();
    }
    let before = stage.hardserver.commands();
    for tag in 0..4 {
        caller.send(&command(tag, cmd::HOLD, 0, &[]));
    }
    caller.send(&no_op(99));
    wait::until("four came", wait::BOUND, || (stage.hardserver.commands() == before + 4).then_some(()));
    caller.patience(Duration::from_millis(300));
    assert!(caller.read(&mut [0]).is_err(), "one past the limit is not taken");
    caller.patience(wait::BOUND);
    stage.hardserver.release();
    let mut heard: Vec<_> = (0..5).map(|_| word_at(&caller.hear(), 4)).collect();
    assert_ne!(heard[0], 99, "it waits for one of the others");
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3, 99]);
}

#[test]
fn the_largest_message_both_ways() {
    let stage = Stage::with(true, "echo", |config| config.line("limits", "max_job_bytes = 1000"));
    let mut caller = stage.caller();
    // 1000 and 44: what `length` may be. A command has 12 bytes before its arguments.
    let at = command(1, cmd::READ, 0, &[9; 1032]);
    assert_eq!(caller.ask(&at), no_such_object(1));
    let (status, _) = caller.fails(&command(2, cmd::READ, 0, &[9; 1033]));
    assert_eq!(status, statuses().buffer_full);
    assert_eq!(stage.hardserver.commands(), 1);
    assert_eq!(caller.ask(&with_word(3, cmd::LONG, 1044)).len(), 1048);
    for length in [1045, 16 << 20] {
        let (status, info) = caller.fails(&with_word(4, cmd::LONG, length));
        assert_eq!((status, info.as_str()), (statuses().see_world_failed, "the reply is larger than the limit"));
    }
    assert_eq!(caller.ask(&with_word(5, cmd::LONG, 16)).len(), 20, "the connection stays");
    assert_eq!(stage.hardserver.connected(), 1);
}

/// Waits until this goes on no more, and gives how far it came.
fn until_it_stands(what: &str, progress: &AtomicUsize) -> usize {
    let mut last = (0, Instant::now());
    wait::until(what, wait::BOUND, || {
        let now = progress.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(700)).then_some(now)
    })
}

const LARGE: usize = 60_000;
const MANY: u32 = 800;
/// What two sockets' buffers and the gateway's may hold together, each way, with room to spare; a quarter of what is sent.
const HELD: usize = 12_000_000;

fn many_large(caller: &Caller) -> (thread::JoinHandle<()>, Arc<AtomicUsize>) {
    let mut sending = caller.try_clone();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let sender = thread::spawn(move || {
        for tag in 0..MANY {
            let message = command(tag, cmd::ECHO, tag, &vec![7; LARGE]);
            sending.send(&message);
            counted.fetch_add(message.len(), Ordering::Relaxed);
        }
    });
    (sender, sent)
}

fn all_come_back(caller: &mut Caller) {
    let mut tags: Vec<_> = (0..MANY)
        .map(|_| {
            let reply = caller.hear();
            let tag = word_at(&reply, 4);
            assert!(reply == echo(&command(tag, cmd::ECHO, tag, &vec![7; LARGE])), "tag {tag}");
            tag
        })
        .collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..MANY));
}

#[test]
fn a_hardserver_that_does_not_read_holds_its_caller_back() {
    let stage = Stage::with(true, "echo", |config| config.line("limits", "caller_buffer_bytes = 300000"));
    stage.hardserver.stall(true);
    let mut caller = stage.caller();
    let (sender, sent) = many_large(&caller);
    let stood = until_it_stands("the caller is held back", &sent);
    assert!(stood < HELD, "{stood} bytes were taken for a hardserver that does not read");
    // Nobody else is.
    let mut other = stage.caller();
    let world = other.object("w");
    other.job_comes_back(world);
    // A caller that is not read from is still seen to go.
    let gone = stage.caller();
    let before = stage.hardserver.connected();
    let (gone_sender, gone_sent) = many_large(&gone);
    until_it_stands("the other caller is held back", &gone_sent);
    assert_eq!(stage.hardserver.connected(), before + 1);
    stage.gauge_reaches("seeway_upstream_hardserver_connections", "", 2.0);
    match &gone.0 {
        Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Both).expect("it is connected"),
        Stream::Tcp(_) => unreachable!("the stage's callers use the Unix socket"),
    }
    gone_sender.join().expect_err("it could not send everything");
    stage.gauge_reaches("seeway_upstream_hardserver_connections", "", 1.0);
    stage.hardserver.stall(false);
    all_come_back(&mut caller);
    sender.join().expect("everything was sent");
}

#[test]
fn a_caller_that_does_not_read_holds_the_hardserver_back() {
    let stage = Stage::with(true, "echo", |config| config.line("limits", "caller_buffer_bytes = 300000"));
    let mut caller = stage.caller();
    let (sender, sent) = many_large(&caller);
    let stood = until_it_stands("the caller is held back", &sent);
    assert!(stood < HELD, "{stood} bytes were taken from a caller that does not read");
    all_come_back(&mut caller);
    sender.join().expect("everything was sent");
}

#[test]
fn a_thousand_of_both_kinds_at_once() {
    const COMMANDS: u32 = 1000;
    let stage = Stage::set();
    let mut caller = stage.caller();
    let (ours, theirs) = (caller.object("w"), caller.object(PUBLISHED));
    let mut wanted = HashMap::new();
    let mut all = Vec::new();
    for tag in 0..COMMANDS {
        let text = format!("number {tag}").repeat(tag as usize % 17);
        let (asked, answer) = match tag % 6 {
            0 => (see_job(tag, ours, text.as_bytes()), job_reply(tag, text.as_bytes())),
            1 => (see_job(tag, theirs, text.as_bytes()), job_reply(tag, text.as_bytes())),
            2 => (no_op(tag), no_op_reply(tag)),
            3 => (get_object(tag, "w"), object_reply(tag, ours)),
            4 => (get_object(tag, &text), no_such_object(tag)),
            _ => {
                let asked = command(tag, cmd::ECHO, tag, text.as_bytes());
                let answer = echo(&asked);
                (asked, answer)
            }
        };
        all.extend(asked);
        wanted.insert(tag, answer);
    }
    let mut sending = caller.try_clone();
    let sender = thread::spawn(move || sending.send(&all));
    for _ in 0..COMMANDS {
        let reply = caller.hear();
        let tag = word_at(&reply, 4);
        assert_eq!(Some(reply), wanted.remove(&tag), "tag {tag}");
    }
    sender.join().expect("everything was sent");
    assert_eq!(stage.hardserver.connected(), 1);
    let before = stage.hardserver.commands();
    let of_theirs = (0..COMMANDS).filter(|tag| [1, 4, 5].contains(&(tag % 6))).count();
    assert_eq!(before, 1 + of_theirs as u64, "each went to the one whose it was");
    drop(caller);
    stage.gateway.until_idle(wait::BOUND);
}

#[test]
fn a_drain_waits_for_what_the_hardserver_owes() {
    let mut stage = Stage::set();
    let mut caller = stage.caller();
    let held = command(1, cmd::HOLD, 0, b"held");
    caller.send(&held);
    wait::until("it came", wait::BOUND, || (stage.hardserver.commands() == 1).then_some(()));
    stage.gateway.terminate();
    wait::until("the gateway drains", wait::BOUND, || (stage.gateway.get("/readyz").0 != 200).then_some(()));
    stage.hardserver.release();
    assert_eq!(caller.hear(), echo(&held));
    assert!(stage.gateway.exit(wait::BOUND).success());
}

/// A client written from the wire's description alone finds nothing that is different.
#[test]
fn every_row_of_bad_input_is_as_without_a_hardserver() {
    let identity = Identity::generate();
    let slow = Machine::start_with_ssh("slow:400", &identity, "127.0.0.1:0");
    let stage = Stage::with(true, "echo", |config| {
        config.machine("slow", slow.door(), slow.seejobs(), &identity, "").world("echo", &["hsm"], "").world(
            "slow",
            &["slow"],
            "",
        )
    });
    python::run("wire_test.py", ["--gateway", &stage.gateway.unix().to_string()]);
    assert!(stage.hardserver.commands() > 0, "unknown commands, names and handles went there");
}

#[test]
fn without_a_hardserver_there_is_none() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let config =
        Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, "").world("w", &["hsm"], "");
    let gateway = Gateway::ready(&config);
    let mut caller = Caller::to(&gateway.unix());
    assert_eq!(caller.fails(&command(1, cmd::ECHO, 0, &[])).0, statuses().unknown_command);
    assert_eq!(caller.fails(&get_object(2, PUBLISHED)), (statuses().unknown_id, "no such world".to_owned()));
    assert_eq!(caller.fails(&see_job(3, 1, b"job")), (statuses().unknown_id, "no such world".to_owned()));
    assert_eq!(caller.object("w"), 0x5ee0_0001);
    caller.job_comes_back(0x5ee0_0001);
}
