//! What a person wrote, checked before it is sent: names, region, provider, lengths. Pure.
//!
//! The service answers such mistakes one at a time, some at random, and some not at all (a long name is refused only in a
//! new group). Here all of them are told at once, in words that say what to do.

use std::fmt;

use crate::{
    NcaId,
    wire::{CloudProvider, CreateCluster, Gpu},
};

/// Where a cluster may be. The service's own list; it takes them in any case and stores them in lower case.
pub const REGIONS: [&str; 46] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "eu-east-1",
    "eu-central-1",
    "eu-west-1",
    "eu-south-1",
    "eu-north-1",
    "eu-zurich-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-hyderabad-1",
    "me-south-1",
    "me-central-1",
    "il-central-1",
    "ca-central-1",
    "us-ashburn-1",
    "us-sanjose-1",
    "eastus",
    "eastus2",
    "westus",
    "westus2",
    "westus3",
    "southcentralus",
    "westeurope",
    "northeurope",
    "southeastasia",
    "uksouth",
    "japaneast",
    "australiaeast",
    "centralindia",
    "us-east1",
    "us-west1",
    "us-central1",
    "us-east4",
    "europe-west1",
    "europe-west4",
    "europe-central2",
    "europe-north1",
    "asia-east1",
    "asia-south1",
    "asia-southeast1",
    "asia-northeast1",
];

/// Of a cluster's and a new group's name, and of a description.
pub const LONGEST_NAME: usize = 32;
/// Of a GPU's name.
pub const LONGEST_GPU_NAME: usize = 22;
/// The GPUs are found by the agent, not listed at registration.
pub const DYNAMIC_DISCOVERY: &str = "DynamicGPUDiscovery";

/// Something that the service would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{field} is empty: give one")]
    Missing { field: &'static str },
    #[error("{field} `{value}` has {length} characters, and at most {LONGEST_NAME} are allowed: shorten it")]
    TooLong {
        field: &'static str,
        value: String,
        length: usize,
    },
    #[error(
        "clusterName `{value}` is no name: use lower-case letters, digits and `-`, with a letter or digit first and last{hint}",
        hint = if value.contains('.') { " (no dots: the control plane refuses them)" } else { "" }
    )]
    Name { value: String },
    #[error("region `{value}` is unknown{hint}", hint = Nearest::of(value))]
    Region { value: String },
    #[error(
        "cloudProvider `{value}` is unknown: one of ON-PREM, DGX-CLOUD, AWS, OCI, AZURE, GDN, GFN, GCP, NCP, in capitals"
    )]
    Provider { value: String },
    #[error("ncaID: {0}")]
    Account(#[from] crate::IdError),
    #[error("GPU name `{value}` must be 1 to {LONGEST_GPU_NAME} letters, digits, `-` or `_`")]
    GpuName { value: String },
    #[error("GPU {gpu} has {count} default instance types, and exactly one is needed")]
    Default { gpu: String, count: usize },
    #[error("capabilities hold {DYNAMIC_DISCOVERY}, so gpus must not be listed: remove the one or the other")]
    GpusListed,
    #[error("capabilities lack {DYNAMIC_DISCOVERY}, so gpus must be listed: add the one or the other")]
    GpusMissing,
}

/// All that is wrong, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// A cluster to be registered, as it was written. See [`new_cluster`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewCluster {
    pub cluster_name: String,
    pub cluster_group_name: String,
    pub cluster_description: String,
    pub nca_id: String,
    pub cloud_provider: String,
    pub nvca_version: String,
    pub region: String,
    pub capabilities: Vec<String>,
    pub attributes: Vec<String>,
    pub gpus: Vec<Gpu>,
    pub oauth_client_id: String,
}

/// The request that `cluster` stands for, and its account.
///
/// # Errors
/// Everything that the service would refuse of it alone.
pub fn new_cluster(cluster: NewCluster) -> Result<(NcaId, CreateCluster), Problems> {
    let mut problems = Vec::new();
    let mut note = |problem: Option<Problem>| problems.extend(problem);
    note(name(&cluster.cluster_name).err());
    note(short("clusterGroupName", &cluster.cluster_group_name, true).err());
    note(short("clusterDescription", &cluster.cluster_description, false).err());
    note(region(&cluster.region).err());
    if cluster.nvca_version.trim().is_empty() {
        note(Some(Problem::Missing { field: "nvcaVersion" }));
    }
    for gpu in &cluster.gpus {
        note(gpu_name(&gpu.name).err());
        let count = gpu.instance_types.iter().filter(|kind| kind.default).count();
        if count != 1 {
            let gpu = gpu.name.clone();
            note(Some(Problem::Default { gpu, count }));
        }
    }
    let is_dynamic = cluster
        .capabilities
        .iter()
        .any(|capability| capability == DYNAMIC_DISCOVERY);
    match (is_dynamic, cluster.gpus.is_empty()) {
        (true, false) => note(Some(Problem::GpusListed)),
        (false, true) => note(Some(Problem::GpusMissing)),
        _ => {}
    }
    let provider = cluster.cloud_provider.parse::<CloudProvider>();
    let account = cluster.nca_id.parse::<NcaId>().map_err(Problem::Account);
    match (provider, account) {
        (Ok(cloud_provider), Ok(nca_id)) if problems.is_empty() => {
            let request = CreateCluster {
                cluster_name: cluster.cluster_name,
                cluster_group_name: cluster.cluster_group_name,
                nca_id: nca_id.to_string(),
                cloud_provider,
                nvca_version: cluster.nvca_version,
                region: cluster.region.to_lowercase(),
                cluster_description: cluster.cluster_description,
                capabilities: cluster.capabilities,
                attributes: cluster.attributes,
                gpus: cluster.gpus,
                oauth_client_id: cluster.oauth_client_id,
                jwks: None,
                oidc_issuer: None,
            };
            Ok((nca_id, request))
        }
        (provider, account) => {
            problems.extend(provider.err());
            problems.extend(account.err());
            Err(Problems(problems))
        }
    }
}

/// A cluster's name: a DNS label of at most [`LONGEST_NAME`] characters.
pub fn name(value: &str) -> Result<(), Problem> {
    short("clusterName", value, true)?;
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = value.as_bytes();
    let inside = bytes.iter().all(|byte| is_alphanumeric(*byte) || *byte == b'-');
    let ends = [bytes.first(), bytes.last()];
    if inside && ends.iter().all(|end| end.is_some_and(|byte| is_alphanumeric(*byte))) {
        return Ok(());
    }
    let value = value.to_owned();
    Err(Problem::Name { value })
}

/// A region of [`REGIONS`], in any case.
pub fn region(value: &str) -> Result<(), Problem> {
    if value.is_empty() {
        return Err(Problem::Missing { field: "region" });
    }
    let lower = value.to_lowercase();
    if REGIONS.contains(&lower.as_str()) {
        return Ok(());
    }
    let value = value.to_owned();
    Err(Problem::Region { value })
}

/// The name of a kind of GPU, as `register` takes it.
pub fn gpu_name(value: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=LONGEST_GPU_NAME).contains(&value.len()) && value.bytes().all(allowed) {
        return Ok(());
    }
    let value = value.to_owned();
    Err(Problem::GpuName { value })
}

fn short(field: &'static str, value: &str, required: bool) -> Result<(), Problem> {
    if required && value.trim().is_empty() {
        return Err(Problem::Missing { field });
    }
    let length = value.chars().count();
    if length > LONGEST_NAME {
        let value = value.to_owned();
        return Err(Problem::TooLong { field, value, length });
    }
    Ok(())
}

/// Regions that a mistyped one may have meant.
struct Nearest(Vec<&'static str>);

impl Nearest {
    fn of(value: &str) -> Self {
        let value = value.trim().to_lowercase().replace(['_', ' '], "-");
        let mut near: Vec<&str> = REGIONS.into_iter().filter(|region| *region == value).collect();
        let prefix = value.split('-').next().unwrap_or_default();
        near.extend(REGIONS.into_iter().filter(|region| {
            let first = region.split('-').next().unwrap_or_default();
            !prefix.is_empty() && (first == prefix || region.replace('-', "") == value.replace('-', ""))
        }));
        near.dedup();
        Self(near)
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, ": one of {}", REGIONS.join(", "));
        }
        write!(f, "; near to it: {}", self.0.join(", "))
    }
}

// === impl Problems ===

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Of the first.
    pub fn reason(&self) -> &'static str {
        self.0.first().map_or("Invalid", Problem::reason)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

// === impl Problem ===

impl Problem {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "FieldMissing",
            Self::TooLong { .. } => "NameTooLong",
            Self::Name { .. } => "NameInvalid",
            Self::Region { .. } => "RegionUnknown",
            Self::Provider { .. } => "ProviderUnknown",
            Self::Account(_) => "AccountInvalid",
            Self::GpuName { .. } => "GpuNameInvalid",
            Self::Default { .. } => "DefaultInstanceType",
            Self::GpusListed => "GpusListed",
            Self::GpusMissing => "GpusMissing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> NewCluster {
        NewCluster {
            cluster_name: "nvcf-default".into(),
            cluster_group_name: "nvcf-default".into(),
            nca_id: "nvcf-default".into(),
            cloud_provider: "NCP".into(),
            nvca_version: "2.52.1".into(),
            region: "US-West-1".into(),
            capabilities: vec![DYNAMIC_DISCOVERY.into(), "SelfHosted".into()],
            oauth_client_id: "nvca".into(),
            ..NewCluster::default()
        }
    }

    #[test]
    fn a_good_cluster_becomes_the_request_of_the_page() {
        let (account, request) = new_cluster(good()).unwrap();
        assert_eq!(account.as_str(), "nvcf-default");
        let body = serde_json::to_value(request).unwrap();
        let expected = serde_json::json!({"clusterName": "nvcf-default", "clusterGroupName": "nvcf-default",
            "ncaId": "nvcf-default", "cloudProvider": "NCP", "nvcaVersion": "2.52.1", "region": "us-west-1",
            "capabilities": ["DynamicGPUDiscovery", "SelfHosted"], "oAuthClientId": "nvca"});
        assert_eq!(body, expected);
    }

    #[test]
    fn every_mistake_is_told_at_once_and_says_what_to_do() {
        let bad = NewCluster {
            cluster_name: "my.cluster".into(),
            cluster_group_name: "g".repeat(33),
            nca_id: String::new(),
            cloud_provider: "ncp".into(),
            nvca_version: " ".into(),
            region: "us_west_1".into(),
            capabilities: vec![],
            ..good()
        };
        let problems = new_cluster(bad).unwrap_err();
        let told = problems.to_string();
        for words in [
            "no dots",
            "33 characters",
            "nvcaVersion is empty",
            "near to it: us-west-1",
            "NCP, in capitals",
            "account (NCA id) is empty",
            "gpus must be listed",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert_eq!(problems.iter().count(), 7);
        assert_eq!(problems.reason(), "NameInvalid");
    }

    #[test]
    fn names_regions_and_gpu_names_have_the_limits_of_the_service() {
        assert!(name(&"a".repeat(32)).is_ok());
        assert_eq!(name(&"a".repeat(33)).unwrap_err().reason(), "NameTooLong");
        for bad in ["UPPER", "a.b", "-a", "a-", "a_b", "é", ""] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(region("EastUS").is_ok() && region(" us-west-1").is_err() && region("mars-1").is_err());
        assert!(gpu_name(&"H".repeat(22)).is_ok() && gpu_name(&"H".repeat(23)).is_err() && gpu_name("H.100").is_err());
    }
}
