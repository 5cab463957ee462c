//! See `grpc` in the crate `seeway-targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| seeway_targets::grpc::run(bytes));
