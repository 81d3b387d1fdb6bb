//! The function pods of the demo, in the JSON that a real kube-scheduler sends to an extender.

use serde_json::{Value, json};

/// A request captured from kube-scheduler 1.35: the pods of the demo are this one with other wishes.
const CAPTURED: &str = include_str!("../../../crates/kube-api/testdata/extender/cache/filter-1.json");

/// One function pod.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) name: &'static str,
    gpus: Gpus,
    /// NVCA's instance type: names the GPU model.
    instance_type: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Gpus {
    Whole(u32),
    Fraction(&'static str),
    MemoryMib(&'static str),
}

const fn ask(name: &'static str, gpus: Gpus, instance_type: Option<&'static str>) -> Ask {
    Ask {
        name,
        gpus,
        instance_type,
    }
}

/// A mixed morning: large and small, with and without a wish for a model.
pub(super) fn first_wave() -> Vec<Ask> {
    vec![
        ask("llama-70b", Gpus::Whole(4), Some("NCP.GPU.H100_4x")),
        ask("mixtral", Gpus::Whole(2), Some("NCP.GPU.H100_2x")),
        ask("nemotron", Gpus::Whole(8), Some("NCP.GPU.A100_8x")),
        ask("sdxl", Gpus::Whole(1), Some("NCP.GPU.L40S_1x")),
        ask("whisper", Gpus::Fraction("0.25"), None),
        ask("reranker", Gpus::Fraction("0.5"), None),
        ask("embedder", Gpus::MemoryMib("10240"), None),
        ask("vila", Gpus::Whole(1), Some("NCP.GPU.H200_1x")),
    ]
}

/// Wants one GPU of the node on which a GPU is about to break.
pub(super) const fn next_on_h200() -> Ask {
    ask("cosmos", Gpus::Whole(1), Some("NCP.GPU.H200_1x"))
}

/// Wants all that is left there: only with the broken GPU would there be enough.
pub(super) const fn whole_h200_node() -> Ask {
    ask("deepseek", Gpus::Whole(6), Some("NCP.GPU.H200_8x"))
}

/// Fits again only when the broken GPU is back.
pub(super) fn after_recovery() -> Vec<Ask> {
    vec![whole_h200_node()]
}

impl Ask {
    /// For a person: `4 GPU, H100`.
    pub(super) fn wish(&self) -> String {
        let gpus = match self.gpus {
            Gpus::Whole(count) => format!("{count} GPU"),
            Gpus::Fraction(share) => format!("{share} GPU"),
            Gpus::MemoryMib(mib) => format!("{mib} MiB of a GPU"),
        };
        self.model()
            .map_or_else(|| gpus.clone(), |model| format!("{gpus}, {model}"))
    }

    /// `NCP.GPU.H100_4x` names an H100.
    pub(super) fn model(&self) -> Option<&'static str> {
        let (_, kind) = self.instance_type?.rsplit_once('.')?;
        kind.split_once('_').map(|(model, _)| model)
    }

    /// The number of whole GPUs, where whole ones are asked for.
    pub(super) fn whole(&self) -> Option<u32> {
        if let Gpus::Whole(count) = self.gpus {
            Some(count)
        } else {
            None
        }
    }

    pub(super) fn uid(&self) -> String {
        // Opaque to Berth; any text that is the pod's own will do.
        format!("uid-of-{}", self.name)
    }

    /// What kube-scheduler posts to `/filter` and `/prioritize`.
    pub(super) fn extender_args(&self, nodes: &[&str]) -> anyhow::Result<Value> {
        let mut args: Value = serde_json::from_str(CAPTURED)?;
        args["NodeNames"] = json!(nodes);
        let meta = &mut args["Pod"]["metadata"];
        meta["name"] = json!(self.name);
        meta["uid"] = json!(self.uid());
        let mut annotations = json!({});
        if let Some(instance_type) = self.instance_type {
            annotations["nvcf.nvidia.io/instance-type-name"] = json!(instance_type);
        }
        let mut resources = json!({"cpu": "4", "memory": "16Gi"});
        match self.gpus {
            Gpus::Whole(count) => resources["nvidia.com/gpu"] = json!(count.to_string()),
            Gpus::Fraction(share) => annotations["gpu-fraction"] = json!(share),
            Gpus::MemoryMib(mib) => annotations["gpu-memory"] = json!(mib),
        }
        meta["annotations"] = annotations;
        args["Pod"]["spec"]["containers"][0]["resources"] = json!({"limits": resources, "requests": resources});
        Ok(args)
    }
}
