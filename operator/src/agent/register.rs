//! The registration: what SIS is told that the cluster offers, and what to do when it refuses. Pure.
//!
//! SIS refuses a registration as a whole (409) where it lacks an instance type of which an instance still runs, and goes on
//! with the one before, which is wrong then in everything. So such types are told again, with nothing to be had of them.

use std::collections::{BTreeMap, BTreeSet};

use berth_sis::{
    SisError,
    wire::{Gpu, InstanceType, NodeType, RegisterRequest},
};

use super::{
    heartbeat::maintenance,
    settings::Settings,
    shapes::{TypeName, with_default},
};

/// How often one registration is completed and sent again: a refusal may be cut off, and then names not all types.
pub const MOST_COMPLETIONS: usize = 8;

/// What SIS had, and what it wants to keep.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// Every type that was registered by this process.
    registered: BTreeMap<String, (String, InstanceType)>,
    /// Types with instances that no node offers any more.
    kept: BTreeSet<String>,
}

/// The whole request. `None` where there is nothing that could be told: SIS takes no empty list.
pub fn request(settings: &Settings, k8s_version: &str, gpus: Vec<Gpu>) -> Option<RegisterRequest> {
    if gpus.is_empty() {
        return None;
    }
    Some(RegisterRequest {
        status: maintenance(&settings.config).0,
        k8s_version: k8s_version.to_owned(),
        gpus,
        allow_cluster_targeting: true,
        allow_task_cluster_creation_queues: true,
        nvca_version: settings.version().to_owned(),
        jwks: None,
        oidc_issuer: None,
    })
}

impl InUse {
    /// `gpus` with the types that SIS wants to keep.
    pub fn complete(&self, mut gpus: Vec<Gpu>) -> Vec<Gpu> {
        for name in &self.kept {
            let Some((gpu, kept)) = self.of(name) else { continue };
            if !gpus.iter().any(|it| it.name == gpu) {
                let (name, instance_types) = (gpu.clone(), Vec::new());
                gpus.push(Gpu {
                    name,
                    capacity: None,
                    instance_types,
                });
            }
            for it in gpus.iter_mut().filter(|it| it.name == gpu) {
                if it.instance_types.iter().all(|other| other.name != *name) {
                    let mut types = std::mem::take(&mut it.instance_types);
                    types.push(kept.clone());
                    it.instance_types = with_default(types);
                }
            }
        }
        gpus
    }

    /// Whether the refusal names types that the next registration will have.
    pub fn learn(&mut self, refusal: &SisError) -> bool {
        let named: Vec<String> = removed_types(refusal)
            .into_iter()
            .filter(|name| self.of(name).is_some())
            .collect();
        let before = self.kept.len();
        self.kept.extend(named);
        self.kept.len() > before
    }

    pub fn accepted(&mut self, gpus: &[Gpu]) {
        for gpu in gpus {
            for it in &gpu.instance_types {
                self.registered.insert(it.name.clone(), (gpu.name.clone(), it.clone()));
            }
        }
    }

    /// Time to see whether SIS lets go of them: the next registration is without.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(String::as_str)
    }

    /// A type as it was, or as its name tells, of which there is nothing.
    fn of(&self, name: &str) -> Option<(String, InstanceType)> {
        let (gpu, known) = if let Some(known) = self.registered.get(name) {
            known.clone()
        } else {
            let parsed = TypeName::parse(name)?;
            let is_single = parsed.nodes == 1;
            let by_name = InstanceType {
                name: name.to_owned(),
                value: parsed.base,
                gpu_count: i64::from(parsed.gpus) * i64::from(parsed.nodes),
                node_type: Some(if is_single { NodeType::Single } else { NodeType::Multi }),
                ..InstanceType::default()
            };
            (parsed.gpu, by_name)
        };
        let nothing = InstanceType {
            default: false,
            max_instances: Some(0),
            ..known
        };
        Some((gpu, nothing))
    }
}

/// The types of `… active instances exists for removed [A, B] instanceTypes, …`. The text may be cut off.
fn removed_types(refusal: &SisError) -> Vec<String> {
    let SisError::Refused { status: 409, text } = refusal else {
        return Vec::new();
    };
    let Some((_, list)) = text.split_once("for removed [") else {
        return Vec::new();
    };
    let (list, is_whole) = list.split_once(']').map_or((list, false), |(list, _)| (list, true));
    let mut names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    if !is_whole {
        names.pop();
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        agent::{
            inventory::tests::{H100, inventory, node},
            shapes,
        },
        agent_config::AgentConfig,
    };

    #[test]
    fn the_body_is_the_one_of_the_real_agent() {
        let nodes = ["a", "b", "c"].map(|name| (node(name, H100, 8), None));
        let mut config = AgentConfig::default();
        config.cluster.nvca_version = "3.3.0".to_owned();
        let settings = Settings::of(config);
        let gpus = shapes::gpus(&inventory(&nodes), "NCP", settings.multi_node());
        let request = request(&settings, "v1.35.4", gpus).unwrap();
        // Recorded from the real agent.
        let gpus: Value = serde_json::from_str(include_str!("../../testdata/register-gpus.json")).unwrap();
        let recorded = json!({"status": "READY", "k8sVersion": "v1.35.4", "gpus": gpus, "allowClusterTargeting": true,
            "allowTaskClusterCreationQueues": true, "nvcaVersion": "3.3.0"});
        assert_eq!(serde_json::to_value(&request).unwrap(), recorded);
        assert_eq!(
            super::request(&settings, "v1.35.4", Vec::new()),
            None,
            "SIS takes no empty list"
        );
    }

    fn refusal(text: &str) -> SisError {
        SisError::Refused {
            status: 409,
            text: text.to_owned(),
        }
    }

    fn offered(names: &[&str]) -> Vec<Gpu> {
        let types = names.iter().map(|name| InstanceType {
            name: (*name).to_owned(),
            value: "NCP.GPU.H100".to_owned(),
            cpu_cores: 24,
            max_instances: Some(3),
            gpu_count: TypeName::parse(name).unwrap().gpus.into(),
            ..InstanceType::default()
        });
        vec![Gpu {
            name: "H100".to_owned(),
            capacity: None,
            instance_types: with_default(types.collect()),
        }]
    }

    fn names(gpus: &[Gpu]) -> Vec<(&str, Option<i64>, bool)> {
        let types = gpus.iter().flat_map(|gpu| &gpu.instance_types);
        types
            .map(|it| (it.name.as_str(), it.max_instances, it.default))
            .collect()
    }

    #[test]
    fn types_that_sis_keeps_come_back_with_nothing_to_be_had() {
        let mut in_use = InUse::default();
        in_use.accepted(&offered(&["NCP.GPU.H100_1x", "NCP.GPU.H100_8x"]));
        let text = "cluster registration failed, active instances exists for removed [NCP.GPU.H100_8x, NCP.GPU.A100_1x] \
                    instanceTypes, active instances [i-1, i-2]";
        assert!(in_use.learn(&refusal(text)));
        let gpus = in_use.complete(offered(&["NCP.GPU.H100_1x"]));
        assert_eq!(
            names(&gpus),
            [
                ("NCP.GPU.H100_1x", Some(3), true),
                ("NCP.GPU.H100_8x", Some(0), false),
                ("NCP.GPU.A100_1x", Some(0), true),
            ]
        );
        assert_eq!(gpus[0].instance_types[1].cpu_cores, 24, "as it was registered");
        assert_eq!(gpus[1].name, "A100");
        assert!(
            !in_use.learn(&refusal(text)),
            "nothing new: asking again would not help"
        );
        in_use.forget();
        assert_eq!(in_use.complete(offered(&["NCP.GPU.H100_1x"])).len(), 1);
    }

    #[test]
    fn a_type_that_is_offered_stays_as_it_is_offered() {
        let mut in_use = InUse::default();
        assert!(in_use.learn(&refusal("exists for removed [NCP.GPU.H100_1x] instanceTypes")));
        let gpus = in_use.complete(offered(&["NCP.GPU.H100_1x"]));
        assert_eq!(names(&gpus), [("NCP.GPU.H100_1x", Some(3), true)]);
    }

    #[test]
    fn a_refusal_that_is_cut_off_gives_the_names_that_are_whole() {
        let cut = refusal("instances exists for removed [NCP.GPU.H100_1x, NCP.GPU.H100_2x, NCP.GPU.H1");
        assert_eq!(removed_types(&cut), ["NCP.GPU.H100_1x", "NCP.GPU.H100_2x"]);
        for other in [
            refusal("Specified instance type spec is not matching with the H100_1x instance type spec"),
            refusal(""),
            SisError::Refused {
                status: 400,
                text: "for removed [A] x".to_owned(),
            },
            SisError::Forbidden,
        ] {
            assert_eq!(removed_types(&other), Vec::<String>::new());
        }
        let strange = refusal("exists for removed [my-own-type] instanceTypes");
        assert!(!InUse::default().learn(&strange), "nothing is known of it");
    }
}
