//! Hostile input: whoever connects, machines, and SSH servers. Each test is one attack, at a rate; it prints what the attack costs the
//! gateway and what two callers that behave notice of it, as a row of the table in the documentation, and holds both to bounds.
//!
//! To see the rows: `cargo nextest run -p seeway-tests --test hostile --success-output final`.

mod floods;
mod http2;
mod machines;
mod slow;
mod ssh;
