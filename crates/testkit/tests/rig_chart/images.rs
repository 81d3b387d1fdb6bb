//! The image recipe: what the charts and the operator start is in the image that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::kit::{read, root};

/// By target: the paths of its programs.
fn images() -> BTreeMap<String, BTreeSet<String>> {
    let recipe = read("deploy/images/Containerfile").replace("\\\n", " ");
    let mut images: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut target = String::new();
    for line in recipe.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["FROM", .., "AS", name] => (*name).clone_into(&mut target),
            ["COPY", "--from=build", programs @ .., folder] => {
                let paths = programs.iter().map(|program| program.replace("/out/", folder));
                images.entry(target.clone()).or_default().extend(paths);
            }
            _ => {}
        }
    }
    images
}

/// What a template starts in which image.
fn commands(template: &str) -> Vec<(&'static str, String)> {
    let text = read(template);
    let mut image = None;
    let mut commands = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(of) = line.strip_prefix("image: ") {
            image = match of {
                of if of.contains(".Values.daemon.image") => Some("berthd"),
                of if of.contains(".Values.scheduler.image") => Some("scheduler"),
                of if of.contains("nvca.image") || of.contains("$image") => Some("operator"),
                of if of.contains("kubeSchedulerImage") => None,
                other => panic!("{template}: whose image is {other}?"),
            };
        }
        if let (Some(command), Some(image)) = (line.strip_prefix("command: ["), image) {
            let program = command.split([',', ']']).next().unwrap().trim_matches('"');
            let path = if program.starts_with('/') {
                program.to_owned()
            } else {
                format!("/usr/bin/{program}")
            };
            commands.push((image, path));
        }
    }
    commands
}

fn templates(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            templates(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn every_program_that_a_chart_or_the_operator_starts_is_in_its_image() {
    let images = images();
    let mut files = Vec::new();
    for chart in ["berth", "nvca-operator"] {
        templates(Path::new(&format!("deploy/charts/{chart}/templates")), &mut files);
    }
    let mut started: Vec<_> = files.iter().flat_map(|file| commands(file)).collect();
    let deployment = read("operator/src/reconcile/manifest/deployment.rs");
    let of_agent = deployment
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"command\": [\""));
    started.extend(of_agent.map(|rest| ("agent", rest.split('"').next().unwrap().to_owned())));
    for (image, program) in &started {
        let has = images
            .get(*image)
            .unwrap_or_else(|| panic!("there is no target {image}"));
        assert!(has.contains(program), "{image} lacks {program}: {has:?}");
    }
    let known: BTreeSet<_> = started.iter().map(|(image, _)| (*image).to_owned()).collect();
    assert_eq!(known, images.into_keys().collect(), "an image is started by nobody");
    // Bootstrap and its watch, the operator, the mirror, the clean-up; agent and webhook; one each.
    assert_eq!(started.len(), 9, "{started:?}");
}

#[test]
fn every_program_in_an_image_is_built_there() {
    let recipe = read("deploy/images/Containerfile").replace("\\\n", " ");
    let (_, list) = recipe.split_once("for program in ").unwrap();
    let built: BTreeSet<_> = list.split(';').next().unwrap().split_whitespace().collect();
    let images = images();
    let copied: BTreeSet<_> = images
        .values()
        .flatten()
        .map(|path| path.strip_prefix("/usr/bin/").unwrap())
        .collect();
    assert_eq!(built, copied);
    let manifests = ["daemon", "scheduler-plugin", "cli"]
        .map(|package| read(&format!("{package}/Cargo.toml")))
        .concat();
    for program in built {
        let is_operators = root().join(format!("operator/src/bin/{program}.rs")).is_file();
        assert!(
            is_operators || manifests.contains(&format!("name = \"{program}\"")),
            "{program} is no program"
        );
    }
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""))
        .unwrap()
        .trim_end_matches('"');
    assert!(
        recipe.contains(&format!("FROM rust:{channel}-slim"))
            && recipe.contains(&format!("RUSTUP_TOOLCHAIN={channel}\n"))
    );
    let users: Vec<_> = recipe.lines().filter(|line| line.starts_with("USER ")).collect();
    assert_eq!(users, ["USER 1000:1000"]);
}
