//! Files that say what the code says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::kit::{chart, read, root};

#[test]
fn the_chart_ships_the_crds_of_the_code() {
    let files = |folder: std::path::PathBuf| -> BTreeMap<_, _> {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name(), fs::read_to_string(entry.path()).unwrap()))
            .collect()
    };
    let ours: BTreeMap<_, _> = files(root().join("deploy/crds"));
    // What the operator and the agent define is no part of this chart.
    let shipped = files(chart().join("crds"));
    assert!(!shipped.is_empty());
    for (name, text) in shipped {
        assert_eq!(
            ours.get(&name),
            Some(&text),
            "copy deploy/crds/{} to deploy/charts/berth/crds",
            name.display()
        );
    }
}

/// The names under which Prometheus has the metrics of docs/metrics.md.
fn exported() -> BTreeSet<String> {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let kind = rest.split(" |").next().unwrap();
        let endings: &[&str] = match kind {
            "gauge" => &[""],
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            other => panic!("{name} is a {other}"),
        };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    })
    .collect()
}

/// Every text in it, wherever.
fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(all) => all.iter().for_each(|one| texts(one, found)),
        Value::Object(all) => all.values().for_each(|one| texts(one, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_are_there() {
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboards/berth.json")).unwrap();
    let mut all = Vec::new();
    texts(&dashboard, &mut all);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let asked: BTreeSet<_> = all
        .iter()
        .flat_map(|text| text.split(|c| !is_part(c)))
        .filter(|word| word.starts_with("berth_"))
        .map(str::to_owned)
        .collect();
    let exported = exported();
    assert!(asked.len() > 15, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");

    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let grid = &panel["gridPos"];
        assert!(
            grid["x"].as_u64().unwrap() + grid["w"].as_u64().unwrap() <= 24,
            "{panel}"
        );
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
}
