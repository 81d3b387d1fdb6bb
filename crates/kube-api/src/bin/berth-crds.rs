//! Writes the definition of our custom resource into a folder: `cargo xtask codegen` calls it.

use std::{fs, io, path::PathBuf, process::ExitCode};

use berth_kube_api::GpuNode;
use kube::CustomResourceExt as _;

fn main() -> io::Result<ExitCode> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: berth-crds FOLDER"));
    };
    let crd = GpuNode::crd();
    let text = serde_saphyr::to_string(&crd).map_err(io::Error::other)?;
    let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
    fs::write(
        path,
        format!("# Written by `cargo xtask codegen` from the code; do not edit.\n{text}"),
    )?;
    Ok(ExitCode::SUCCESS)
}
