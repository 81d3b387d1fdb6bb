//! Whole nodes on their way through the extender: only the name is looked at, the rest is given back byte by byte.
//!
//! kube-scheduler may use the nodes that come back (older ones do), so nothing of them may get lost.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct as _};
use serde_json::value::RawValue;

/// `v1.NodeList`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeList {
    #[serde(deserialize_with = "crate::null::default_if_null")]
    pub items: Vec<RawNode>,
}

/// One node as it came.
#[derive(Debug, Clone)]
pub struct RawNode {
    name: String,
    json: Box<RawValue>,
}

impl RawNode {
    /// `metadata.name`; empty where the node has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn into_name(self) -> String {
        self.name
    }

    /// The node's JSON; read it as a [`crate::Node`] where more than the name is needed.
    pub fn json(&self) -> &str {
        self.json.get()
    }
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Named {
            metadata: Metadata,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Metadata {
            name: String,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let named: Named = serde_json::from_str(json.get()).map_err(de::Error::custom)?;
        Ok(Self {
            name: named.metadata.name,
            json,
        })
    }
}

impl Serialize for RawNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl Serialize for NodeList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Empty {}
        let mut list = serializer.serialize_struct("NodeList", 2)?;
        list.serialize_field("metadata", &Empty {})?;
        list.serialize_field("items", &self.items)?;
        list.end()
    }
}
