//! How long the gateway's own work on a job takes, and what it allocates: `cargo bench -p seeway-bench`.
//!
//! The figures move with the machine and its load; those that CI holds on to are `seeway-instructions`'.

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use seeway_bench::micro::{SCENARIOS, scenario};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Turns before the first one that is measured: buffers and tables have then grown to what they need.
const WARM_UP: usize = 100;

fn main() {
    divan::main();
}

#[divan::bench(args = SCENARIOS.iter().map(|scenario| scenario.name))]
fn turn(bencher: Bencher<'_, '_>, name: &str) {
    let scenario = scenario(name).expect("one of the scenarios");
    let mut work = (scenario.make)();
    (0..WARM_UP).for_each(|_| work.turn());
    bencher.counter(ItemsCount::new(scenario.jobs_per_turn)).bench_local(|| work.turn());
}
