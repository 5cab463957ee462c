//! Compiles the gRPC schema, in pure Rust: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const SCHEMA: &str = "seeway/v1/see_job_service.proto";

/// Messages with a job's or a pipe's bytes in them: their `Debug` must not show these, so `src/v1.rs` writes it by hand.
const TOXIC: [&str; 4] = ["SubmitRequest", "SubmitResponse", "PipeRequest", "PipeResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=seeway");
    if env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let descriptors = protox::compile([SCHEMA], ["."])?;
    let descriptor_file = PathBuf::from(env::var("OUT_DIR")?).join("seeway.v1.bin");
    fs::write(descriptor_file, descriptors.encode_to_vec())?;

    let mut build = tonic_prost_build::configure().bytes(".seeway.v1");
    for message in TOXIC {
        build = build.skip_debug([format!(".seeway.v1.{message}")]);
    }
    build.compile_fds(descriptors)?;
    Ok(())
}
