//! Compiles the .proto files with protox: no protoc, no network.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files = [
        "berth/node/v1/node.proto",
        "berth/scheduler/v1/placement.proto",
        "kubelet/podresources/v1/podresources.proto",
    ];
    let set = protox::compile(files, ["protos"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
