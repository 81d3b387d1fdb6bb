//! helm and kubectl, and where things are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use berth_testkit::rig::tools;
use serde_json::Value;
use tempfile::TempDir;

/// Where the release is.
pub(crate) const NAMESPACE: &str = "gpu";
pub(crate) const RELEASE: &str = "berth";

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/charts/berth")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The real programs, with a home of their own and, where there is a cluster, its kubeconfig.
pub(crate) struct Tools {
    folder: PathBuf,
    home: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Tools {
    pub(crate) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self {
            folder: tools::folder().unwrap(),
            home: tempfile::tempdir().unwrap(),
            kubeconfig,
        }
    }

    /// What it printed, or both outputs where it failed.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.folder.join(program));
        command.args(args).env("HOME", self.home.path());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        let nowhere = self.home.path().join("none");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nowhere));
        let output = command.output().map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("{stdout}{stderr}"))
        }
    }

    pub(crate) fn helm(&self, verb: &str, set: &[&str], more: &[&str]) -> Result<String, String> {
        let chart = chart();
        let mut args = vec![verb];
        if verb != "lint" {
            args.extend([RELEASE, "--namespace", NAMESPACE]);
        }
        if verb != "uninstall" {
            args.push(chart.to_str().unwrap());
        }
        for value in set {
            args.extend(["--set", value]);
        }
        args.extend(more);
        self.run("helm", &args)
    }

    /// The objects that helm would make, without a cluster.
    pub(crate) fn template(&self, set: &[&str]) -> Result<Vec<Value>, String> {
        let text = self.helm("template", set, &["--kube-version", "1.34.0"])?;
        serde_saphyr::from_multiple(&text).map_err(|error| error.to_string())
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.run("kubectl", args)
            .unwrap_or_else(|told| panic!("kubectl {args:?}: {told}"))
    }
}

/// The first object of that kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut all = objects.iter();
    let found = all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Of a workload's only container.
pub(crate) fn args(workload: &Value) -> Vec<String> {
    let args = &workload["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(args.clone()).unwrap()
}
