//! Writes the definitions of our custom resources into a folder: `cargo xtask codegen` calls it.

use std::{fs, io, path::PathBuf, process::ExitCode};

use berth_kube_api::{GpuNode, nvcf};
use kube::CustomResourceExt as _;

fn main() -> io::Result<ExitCode> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: berth-crds FOLDER"));
    };
    for crd in [
        GpuNode::crd(),
        nvcf::NvcfBackend::crd(),
        nvcf::ICMSRequest::crd(),
        nvcf::MiniService::crd(),
        nvcf::storage_request::definition(),
    ] {
        let text = serde_saphyr::to_string(&crd).map_err(io::Error::other)?;
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        fs::write(
            path,
            format!("# Written by `cargo xtask codegen` from the code; do not edit.\n{text}"),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
