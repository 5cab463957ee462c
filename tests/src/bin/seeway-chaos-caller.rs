//! A caller of the chaos test in a process of its own, so that it can be killed and halted. The test starts it.
#![forbid(unsafe_code)]

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    seeway_tests::chaos::caller::main(&arguments);
}
