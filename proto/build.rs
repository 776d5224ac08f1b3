//! Makes the messages of `anvil/v1` and `google/rpc` from their `.proto` files, without `protoc`.

use std::error::Error;

const FILES: [&str; 3] = ["anvil/v1/admin.proto", "google/rpc/error_details.proto", "google/rpc/status.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=anvil");
    println!("cargo::rerun-if-changed=google");
    let files = protox::compile(FILES, ["."])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(files)?;
    Ok(())
}
