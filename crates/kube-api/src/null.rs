//! `null` where Go has a nil slice or map.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default. Use it with `#[serde(default)]`, which covers the absent field.
pub(crate) fn default_if_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
