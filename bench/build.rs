//! Makes the services that `grpc-peer` serves with tonic, from what `anvil-proto` says of them. Nothing without the feature
//! `tonic`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "tonic")]
    services::make()?;
    Ok(())
}

#[cfg(feature = "tonic")]
mod services {
    use std::error::Error;

    use anvil_proto::{FileDescriptorSet, Message as _};

    /// What a load calls; tonic asks for all methods of a service that it is told of.
    const METHODS: &[&str] = &[
        "GetAccessToken",
        "GetBucket",
        "CreateBucket",
        "GetObject",
        "BidiRead",
        "WriteObject",
        "HeadObject",
        "BatchGet",
        "PutObject",
        "DeleteObject",
    ];

    pub(super) fn make() -> Result<(), Box<dyn Error>> {
        let mut files = FileDescriptorSet::decode(anvil_proto::DESCRIPTORS)?;
        for file in &mut files.file {
            for service in &mut file.service {
                service.method.retain(|method| METHODS.contains(&method.name()));
            }
            file.service.retain(|service| !service.method.is_empty());
        }
        tonic_prost_build::configure()
            .build_client(false)
            .extern_path(".anvil.v1", "::anvil_proto::v1")
            .extern_path(".google.rpc", "::anvil_proto::rpc")
            .compile_fds(files)?;
        Ok(())
    }
}
