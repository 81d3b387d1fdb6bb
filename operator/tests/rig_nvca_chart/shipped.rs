//! Files that say what the code says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use berth_sis::check::REGIONS;

use crate::kit::{chart, read, root};

fn files(folder: PathBuf) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}

#[test]
fn the_chart_ships_the_crds_of_the_code() {
    let mut ours = files(root().join("deploy/crds"));
    // The scheduler's.
    ours.remove("gpunodes.yaml").unwrap();
    let shipped = files(chart().join("crds"));
    let stale = ours.iter().find(|(name, text)| shipped.get(*name) != Some(text));
    let stale = stale.map(|(name, _)| name);
    assert_eq!(
        stale, None,
        "copy it from deploy/crds to deploy/charts/nvca-operator/crds"
    );
    assert!(shipped.keys().eq(ours.keys()), "{:?}", shipped.keys());
}

#[test]
fn the_chart_knows_the_regions_of_the_code() {
    let helpers = read("deploy/charts/nvca-operator/templates/_helpers.tpl");
    let (_, rest) = helpers.split_once(r#"define "nvca.regions" -}}"#).unwrap();
    let (list, _) = rest.split_once("{{- end").unwrap();
    let regions: BTreeSet<_> = list.split_whitespace().collect();
    assert_eq!(regions, REGIONS.into());
}
