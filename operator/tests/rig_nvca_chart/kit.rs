//! helm and kubectl, and where things are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use berth_testkit::rig::tools;
use serde_json::Value;
use tempfile::TempDir;

/// As the page has it.
pub(crate) const RELEASE: &str = "nvca-operator";
pub(crate) const NAMESPACE: &str = "nvca-operator";
/// The page's values file, with a registry in it and nothing else changed.
pub(crate) const VALUES: &str = "operator/tests/rig_nvca_chart/nvca-operator-values.yaml";

/// Every key of the original chart, with its default or something in its place.
pub(crate) const ORIGINAL: &str = "operator/tests/rig_nvca_chart/original-values.yaml";

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/charts/nvca-operator")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The real programs, with a home of their own and, where there is a cluster, its kubeconfig.
pub(crate) struct Tools {
    folder: PathBuf,
    home: TempDir,
    kubeconfig: PathBuf,
}

impl Tools {
    pub(crate) fn new(kubeconfig: Option<PathBuf>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let nowhere = home.path().join("none");
        Self {
            folder: tools::folder().unwrap(),
            home,
            kubeconfig: kubeconfig.unwrap_or(nowhere),
        }
    }

    /// The variables with which a person's shell would find programs and cluster.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let path = env::var("PATH").unwrap_or_default();
        let home = self.home.path().display().to_string();
        let mut all = vec![
            ("PATH", format!("{}:{path}", self.folder.display())),
            ("KUBECONFIG", self.kubeconfig.display().to_string()),
        ];
        all.extend(["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, home.clone())));
        all
    }

    /// What a shell prints, or both outputs where it failed. In it `CHART` stands for the chart's folder.
    pub(crate) fn try_shell(&self, script: &str) -> Result<String, String> {
        let script = script.replace("CHART", chart().to_str().unwrap());
        let mut command = Command::new("sh");
        command
            .args(["-ec", &script])
            .current_dir(root())
            .envs(self.environment());
        let output = command.output().map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        if output.status.success() {
            Ok(format!("{stdout}{stderr}"))
        } else {
            Err(format!("{stdout}{stderr}"))
        }
    }

    pub(crate) fn shell(&self, script: &str) -> String {
        self.try_shell(script).unwrap_or_else(|told| panic!("{script}\n{told}"))
    }

    /// The objects that helm would make of the page's values and these flags, without a cluster.
    pub(crate) fn template(&self, flags: &str) -> Result<Vec<Value>, String> {
        let command = format!("helm template {RELEASE} CHART -n {NAMESPACE} --kube-version 1.34.0 -f {VALUES} {flags}");
        let text = self.try_shell(&command)?;
        serde_saphyr::from_multiple(&text).map_err(|error| error.to_string())
    }

    /// An object of the cluster.
    pub(crate) fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.shell(&format!("kubectl get {what} -o json"))).unwrap()
    }
}

/// The first object of that kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut all = objects.iter();
    let found = all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The names of a list of things that have one.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().into_iter().flatten();
    all.map(|one| one["name"].as_str().unwrap()).collect()
}
