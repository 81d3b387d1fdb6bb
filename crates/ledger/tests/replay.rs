//! Runs of the property test that failed once, or that show something worth keeping: every log in `tests/logs`, and the one
//! that `BERTH_LEDGER_LOG` names.

#[cfg(test)]
#[path = "support/harness.rs"]
mod harness;

#[cfg(test)]
mod replay {
    use std::{
        env, fs,
        path::{Path, PathBuf},
    };

    use crate::harness::{log::Step, shell::Shell};

    fn read(path: &Path) -> Vec<Step> {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parse = |(number, line)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), number + 1))
        };
        text.lines().enumerate().map(parse).collect()
    }

    fn replay(path: &Path) {
        let steps = read(path);
        let Some((Step::Start(config), steps)) = steps.split_first() else {
            panic!("{}: a log begins with Start", path.display());
        };
        let mut shell = Shell::new(*config);
        for (number, step) in steps.iter().enumerate() {
            let line = number + 2;
            shell
                .run(step)
                .unwrap_or_else(|violation| panic!("{}:{line}: {violation}", path.display()));
        }
        println!("{}: {} steps", path.display(), steps.len());
    }

    #[test]
    fn every_kept_log_keeps_the_promises() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
            .collect();
        logs.sort();
        assert!(!logs.is_empty(), "the logs are gone");
        for path in &logs {
            replay(path);
        }
    }

    #[test]
    fn the_named_log_keeps_the_promises() {
        if let Some(path) = env::var_os("BERTH_LEDGER_LOG") {
            replay(Path::new(&path));
        }
    }
}
