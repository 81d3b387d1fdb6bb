//! Brings the definitions of what is watched, before it is watched: without them nothing is ever told, and nothing ever done.
//!
//! Owns only that beginning. One that is there is left as it is: to change it is for whoever is at work.

use std::time::Duration;

use berth_runtime::kubernetes::{ApiError, DEADLINE, within};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{controller::MANAGER, manifest, object::Key};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Until all of them are there.
pub(super) async fn bring(client: &Client) {
    for definition in manifest::definitions() {
        let mut wait = FIRST_WAIT;
        while let Err(failure) = bring_one(client, &definition).await {
            warn!(
                error = &failure as &dyn std::error::Error,
                name = definition["metadata"]["name"].as_str(),
                "a definition cannot be brought: trying on"
            );
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }
}

async fn bring_one(client: &Client, definition: &Value) -> Result<(), ApiError> {
    let Some(key) = Key::of(definition) else { return Ok(()) };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &key.kind.resource());
    match within(DEADLINE, api.get(&key.name)).await {
        Err(error) if error.is_not_found() => {}
        found => return found.map(drop),
    }
    let params = PatchParams::apply(MANAGER).force();
    within(DEADLINE, api.patch(&key.name, &params, &Patch::Apply(definition))).await?;
    info!(object = %key, "it was missing: applied");
    Ok(())
}
