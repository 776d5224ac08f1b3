//! Makes the messages of `anvil/v1`, `google/rpc` and `grpc` from their `.proto` files, without `protoc`, and keeps what the
//! files say for those who ask a node for it.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 9] = [
    "anvil/v1/admin.proto",
    "anvil/v1/auth.proto",
    "anvil/v1/bucket.proto",
    "anvil/v1/object.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for directory in ["anvil", "google", "grpc"] {
        println!("cargo::rerun-if-changed={directory}");
    }
    let mut files = protox::compile(FILES, ["."])?;
    prost_build::Config::new().btree_map(["."]).bytes([".anvil.v1"]).compile_fds(files.clone())?;
    // Comments are for those who read the files.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where the output goes")?);
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    Ok(())
}
