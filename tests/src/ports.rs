//! Ports for servers that can't be told to listen on port 0 and say which one they got.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::{IpAddr, TcpListener},
};

/// Below the range from which the kernel takes ports for outgoing connections, so that a server that is killed finds its
/// port free when it comes back.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of `ip` that nobody listens on now. Another process may take it first: start the server, and ask again when it fails.
pub fn free(ip: IpAddr) -> u16 {
    let width = u64::from(RANGE.end - RANGE.start);
    (0..1_000)
        .map(|_| {
            let random = RandomState::new().build_hasher().finish() % width;
            RANGE.start + u16::try_from(random).expect("the remainder is less than the range is wide")
        })
        .find(|port| TcpListener::bind((ip, *port)).is_ok())
        .unwrap_or_else(|| panic!("of 1000 ports tried on {ip} none is free"))
}
