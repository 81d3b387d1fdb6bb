use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Announces an address as our programs do, and then waits for a signal.
const SERVER: &str = r#"
    trap 'echo terminated >&2; exit 7' TERM
    echo "starting in $HOME_OF_TEST" >&2
    echo '{"grpc":"127.0.0.1:1","socket":"/x"}' > "$BERTH_ADDRESS_FILE.tmp"
    mv "$BERTH_ADDRESS_FILE.tmp" "$BERTH_ADDRESS_FILE"
    while :; do sleep 0.01; done
"#;

fn shell(script: &str) -> Program {
    Program::at("/bin/sh").raw_args(&["-c", script])
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn start_returns_when_addresses_are_announced_and_terminate_ends_it() {
    let program = shell(SERVER).env("HOME_OF_TEST", "{dir}/x");
    let dir = program.dir().to_owned();
    let mut process = program.start().await.unwrap();
    assert_eq!(process.grpc(), "http://127.0.0.1:1");
    assert_eq!(process.socket(), Path::new("/x"));
    process.terminate().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(7));
    assert_eq!(
        process.stderr(),
        format!("starting in {}/x\nterminated\n", dir.display())
    );
    process.terminate().expect_err("it has ended");
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_an_error_that_holds_its_log() {
    let error = shell("echo no such flag >&2; exit 2")
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit status: 2") && error.contains("no such flag"),
        "{error}"
    );
}

#[tokio::test]
async fn run_returns_both_outputs_whole() {
    let ended = shell("echo out; echo err >&2; head -c 300000 /dev/zero | tr '\\0' x; exit 3")
        .run(SOON)
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(ended.stderr, "err\n");
    assert!(
        ended.stdout.starts_with("out\nxxx") && ended.stdout.len() == 300_004,
        "{}",
        ended.stdout.len()
    );
}

#[tokio::test]
async fn a_program_that_does_not_end_is_an_error_that_holds_its_log() {
    let error = shell("echo busy >&2; exec sleep 60")
        .run(Duration::from_millis(300))
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("busy") && text.contains("it still runs"), "{text}");
}

#[tokio::test]
async fn a_dropped_process_is_killed_and_its_directory_lives_as_long_as_somebody_uses_it() {
    let first = shell(SERVER).start().await.unwrap();
    let (pid, dir) = (first.pid(), first.dir().to_owned());
    let second = shell(SERVER).in_dir_of(&first).start().await.unwrap();
    drop(first);
    assert!(!is_alive(pid));
    assert_eq!(second.dir(), dir);
    assert!(dir.exists());
    drop(second);
    assert!(!dir.exists());
}

#[tokio::test]
async fn kill_leaves_no_time_for_a_handler() {
    let mut process = shell(SERVER).start().await.unwrap();
    process.kill();
    assert_eq!(process.wait(SOON).await.unwrap().code(), None);
    assert!(!process.stderr().contains("terminated"));
}

#[test]
fn a_flag_that_is_set_again_gets_the_new_value() {
    let program = Program::berthd().arg("--node-name", "a").arg("--simulate", "dgx-h100");
    let at = |flag: &str| program.args.iter().filter(|arg| *arg == flag).count();
    assert_eq!((at("--node-name"), at("--simulate")), (1, 1));
    let value = program
        .args
        .iter()
        .position(|arg| arg == "--node-name")
        .map(|index| &program.args[index + 1]);
    assert_eq!(value.unwrap(), "a");
}

#[test]
fn a_binary_that_is_not_built_is_an_error_that_says_how_to_build_it() {
    let error = Program::new("berth-nothing", "berth-none")
        .spawn()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("berth-nothing is not built: run `cargo build -p berth-none`"),
        "{error}"
    );
}
