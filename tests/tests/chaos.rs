//! Real parts under all that can happen to them, in an order that a seed decides: three machines behind OpenSSH in network namespaces
//! of their own, the gateway, forty callers. Afterwards what each caller was told of each job is compared with what the machines
//! journalled.
//!
//! `SEEWAY_CHAOS_SEED` replays an order of faults; what else happens beside them is never twice the same. `SEEWAY_CHAOS_ROUNDS` says how
//! often each fault strikes.

use std::{
    collections::hash_map::RandomState,
    env,
    hash::{BuildHasher, Hasher},
};

use seeway_tests::{
    chaos::{faults, namespace, scene::Scene},
    turn::Turn,
};

const SEED: &str = "SEEWAY_CHAOS_SEED";
const ROUNDS: &str = "SEEWAY_CHAOS_ROUNDS";
/// Twelve rounds take about three minutes.
const DEFAULT_ROUNDS: u64 = 12;

#[test]
fn every_job_has_one_honest_outcome_whatever_breaks() {
    if namespace::is_inside() {
        return break_everything();
    }
    let _turn = Turn::alone();
    match namespace::are_there() {
        Ok(()) => {
            let status = namespace::run_inside("every_job_has_one_honest_outcome_whatever_breaks");
            assert!(status.success(), "see above; the test in its network namespace ended with {status}");
        }
        Err(why) => {
            println!("no network namespaces here: {why}");
            break_everything();
        }
    }
}

fn break_everything() {
    let seed = number(SEED).unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let rounds = number(ROUNDS).unwrap_or(DEFAULT_ROUNDS);
    println!("the order of faults is that of {SEED}={seed}");
    let _said_again = SaidAgain(seed);
    let mut scene = Scene::new(seed);
    faults::strike(&mut scene, seed, usize::try_from(rounds).expect("a small number"));
    scene.end().audit();
}

/// Says the seed again at the end of what a failure prints.
struct SaidAgain(u64);

impl Drop for SaidAgain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- replay this order of faults with {SEED}={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
