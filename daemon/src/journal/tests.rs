//! The journal on a real file system: what is kept, what is refused, what is put aside.

use std::{io, os::unix::fs::PermissionsExt as _};

use berth_runtime::ManualClock;
use berth_runtime::metrics::latency_histogram;

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn options(dir: &Path, sync: SyncMode) -> JournalOptions {
    JournalOptions {
        dir: dir.to_owned(),
        node: "node-a".parse().unwrap(),
        sync,
        clock: ManualClock::at_unix_ms(NOW).shared(),
        write_latency: latency_histogram(),
        sync_latency: latency_histogram(),
    }
}

fn open_with(options: JournalOptions) -> Result<(Journal, Opened, Vec<Record>), JournalError> {
    let mut read = Vec::new();
    let no_errors = Box::new(|error: io::Error| panic!("{error}"));
    let (journal, opened) = Journal::open(options, no_errors, |records, _| read.extend(records))?;
    Ok((journal, opened, read))
}

fn open(dir: &Path) -> (Journal, Opened, Vec<Record>) {
    open_with(options(dir, SyncMode::Group)).unwrap()
}

/// A journal in `dir` that holds `records`, one line each.
fn write(dir: &Path, sync: SyncMode, records: &[Record]) {
    let (mut journal, ..) = open_with(options(dir, sync)).unwrap();
    if journal.is_behind() {
        journal.rewrite(&[]).unwrap();
    }
    for record in records {
        journal.stage([record].into_iter()).unwrap();
        journal.commit().unwrap();
    }
}

fn generations(numbers: impl IntoIterator<Item = u64>) -> Vec<Record> {
    numbers.into_iter().map(Record::Generation).collect()
}

/// What reading a journal of these bytes finds.
pub(crate) struct Prefix {
    pub(crate) records: Vec<Record>,
    /// Bytes of the torn last line, if it is torn.
    pub(crate) torn: Option<usize>,
}

/// Reads all of it, except where the last line is torn: then only that line, after the header, since nothing of what is
/// before it can depend on it. That makes it cheap to read every prefix of a long journal.
pub(crate) fn read_prefix(bytes: &[u8]) -> Prefix {
    let newline = |byte: &u8| *byte == b'\n';
    let mut records = Vec::new();
    let torn_at = bytes.iter().rposition(newline).map_or(0, |at| at + 1);
    let header = bytes.iter().position(newline).map_or(0, |at| at + 1);
    let is_torn = torn_at < bytes.len();
    let read = if is_torn {
        [&bytes[..header], &bytes[torn_at..]].concat()
    } else {
        bytes.to_vec()
    };
    let mut scan = |bytes: &[u8]| {
        records.clear();
        let found = scan::scan(bytes, |more, damaged| {
            assert!(!damaged, "a crash is no damage");
            records.extend(more);
        });
        (found.unwrap(), records.clone())
    };
    let (found, records) = scan(&read);
    if found.is_unterminated {
        // The next longer prefix is checked for what these are.
        assert_eq!(scan(&[&read[..], b"\n"].concat()).1, records);
    } else if is_torn {
        assert!(records.is_empty(), "half a line is no line");
    }
    let is_half_a_header = is_torn && header == 0 && !found.is_unterminated;
    assert_eq!(
        found.damaged,
        u64::from(is_half_a_header),
        "no crash leaves half a header"
    );
    let torn = is_torn.then_some(bytes.len() - torn_at);
    let told = if found.is_unterminated || is_half_a_header {
        None
    } else {
        torn
    };
    assert_eq!(found.torn, told.unwrap_or(0) as u64);
    Prefix { records, torn }
}

#[test]
fn what_is_committed_is_read_back_in_order() {
    for sync in [SyncMode::Group, SyncMode::Always] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), sync, &generations(1..4));
        write(dir.path(), sync, &generations(4..6));
        let (journal, opened, read) = open(dir.path());
        assert_eq!(read, generations(1..6));
        assert!(!journal.is_behind() && !opened.new && opened.corrupt.is_none());
        assert_eq!(opened.lines, 5);
    }
}

#[test]
fn a_batch_is_one_write_and_what_is_not_committed_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, opened, _) = open(dir.path());
    assert!(opened.new && journal.is_behind());
    journal.rewrite(&[]).unwrap();
    let records = generations(1..3);
    journal.stage(records.iter()).unwrap();
    journal.unstage();
    journal.commit().unwrap();
    let other = generations(7..9);
    journal.stage(other.iter()).unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("journal")).unwrap().lines().count(),
        1,
        "the header alone"
    );
    journal.commit().unwrap();
    drop(journal);
    let (_, opened, read) = open(dir.path());
    assert_eq!(
        (read, opened.lines),
        (other, 1),
        "the records of one event share a line"
    );
}

#[test]
fn a_torn_last_line_is_cut_off_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SyncMode::Group, &generations(1..3));
    let path = dir.path().join("journal");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 2]).unwrap();
    let (mut journal, opened, read) = open(dir.path());
    assert_eq!(read, generations(1..2));
    assert!(opened.torn_bytes > 0 && opened.corrupt.is_none());
    journal.stage(generations(9..10).iter()).unwrap();
    journal.commit().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).2, generations([1, 9]));
}

#[test]
fn a_last_line_that_lacks_only_its_newline_is_kept_and_ended() {
    for records in [0, 2] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), SyncMode::Group, &generations(0..records));
        let path = dir.path().join("journal");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, opened, read) = open(dir.path());
        assert_eq!(read, generations(0..records));
        assert_eq!((opened.torn_bytes, opened.corrupt, opened.new), (0, None, false));
        assert_eq!(fs::read(&path).unwrap(), whole);
        journal.stage(generations([9]).iter()).unwrap();
        journal.commit().unwrap();
        drop(journal);
        assert_eq!(open(dir.path()).2, generations((0..records).chain([9])));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_left_as_it_is() {
    let links_to = |target: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(target, dir.path().join("journal")).unwrap();
        dir
    };
    let is_directory = tempfile::tempdir().unwrap();
    fs::create_dir(is_directory.path().join("journal")).unwrap();
    for dir in [links_to("/dev/zero"), links_to("/dev/null"), is_directory] {
        let error = open_with(options(dir.path(), SyncMode::Group)).unwrap_err();
        assert_eq!(error.reason(), "JournalNotAFile");
        assert!(
            error.to_string().contains("journal is not a regular file") && error.to_string().contains("--state-dir"),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_journal_is_put_aside_whole_and_its_good_lines_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SyncMode::Group, &generations(1..4));
    let path = dir.path().join("journal");
    let damaged = fs::read_to_string(&path)
        .unwrap()
        .replace("\"Generation\":2", "\"Generation\":8");
    fs::write(&path, &damaged).unwrap();

    let (mut journal, opened, read) = open(dir.path());
    assert_eq!(read, generations([1, 3]));
    let corrupt = opened.corrupt.unwrap();
    assert_eq!(corrupt.damaged_lines, 1);
    assert_eq!(corrupt.kept_as, dir.path().join(format!("journal.corrupt-{NOW}")));
    assert!(journal.is_behind(), "nothing is added to a damaged file");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        damaged,
        "and nothing is lost before it is rewritten"
    );
    journal.rewrite(&read).unwrap();
    assert_eq!(fs::read_to_string(&corrupt.kept_as).unwrap(), damaged);
    drop(journal);
    let (_, opened, read) = open(dir.path());
    assert_eq!((read, opened.corrupt), (generations([1, 3]), None));
}

#[test]
fn a_file_that_is_no_journal_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    for content in ["some\nother\nfile\n", "one line that never ends", "\n"] {
        fs::write(dir.path().join("journal"), content).unwrap();
        let (mut journal, opened, read) = open(dir.path());
        assert!(read.is_empty() && journal.is_behind());
        assert_eq!((opened.torn_bytes, opened.new), (0, false), "no crash makes that");
        journal.rewrite(&[]).unwrap();
        let kept_as = opened.corrupt.unwrap().kept_as;
        assert_eq!(fs::read_to_string(&kept_as).unwrap(), content);
        fs::remove_file(kept_as).unwrap();
    }
}

#[test]
fn a_state_directory_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = open_with(options(dir.path(), SyncMode::Group)).unwrap_err();
    assert_eq!(error.reason(), "StateDirLocked");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    drop(first);
    open(dir.path());
}

#[test]
fn another_nodes_or_versions_journal_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SyncMode::Group, &generations(1..2));
    let before = fs::read(dir.path().join("journal")).unwrap();
    let other = JournalOptions {
        node: "node-b".parse().unwrap(),
        ..options(dir.path(), SyncMode::Group)
    };
    let error = open_with(other).unwrap_err();
    assert_eq!(error.reason(), "JournalOfOtherNode");
    assert!(
        error.to_string().contains("\"node-a\"") && error.to_string().contains("--node-name"),
        "{error}"
    );
    assert_eq!(fs::read(dir.path().join("journal")).unwrap(), before);

    let mut newer = Vec::new();
    line::encode_value(
        &Header {
            berth_journal: FORMAT + 1,
            node: "node-a".to_owned(),
        },
        &mut newer,
    )
    .unwrap();
    fs::write(dir.path().join("journal"), newer).unwrap();
    assert_eq!(
        open_with(options(dir.path(), SyncMode::Group)).unwrap_err().reason(),
        "JournalFormatUnknown"
    );
}

#[test]
fn a_rewrite_replaces_everything_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SyncMode::Group, &generations(1..100));
    let (mut journal, ..) = open(dir.path());
    journal.rewrite(&generations([100])).unwrap();
    journal.stage(generations([101]).iter()).unwrap();
    journal.commit().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).2, generations([100, 101]));
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["journal"]);
}

#[test]
fn after_giving_up_nothing_is_taken_until_everything_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), SyncMode::Group, &generations(1..2));
    let (mut journal, ..) = open(dir.path());
    journal.give_up();
    journal.stage(generations([2]).iter()).unwrap();
    assert_eq!(journal.commit().unwrap_err().reason(), "JournalUnavailable");
    journal.rewrite(&generations([1, 3])).unwrap();
    journal.commit().unwrap();
    drop(journal);
    assert_eq!(
        open(dir.path()).2,
        generations([1, 3]),
        "what was refused is not written later"
    );
}

#[test]
fn an_unusable_state_directory_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open_with(options(&file, SyncMode::Group)).unwrap_err();
    assert_eq!(error.reason(), "StateDirUnusable");
    assert!(error.to_string().contains("give another --state-dir"), "{error}");
}

#[test]
fn the_state_directory_and_its_journal_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    write(&state, SyncMode::Group, &[]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("journal"))), (0o700, 0o600));
}

#[test]
fn a_long_journal_asks_to_be_shortened_and_no_short_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(dir.path());
    journal.rewrite(&[]).unwrap();
    let records = generations(0..10_000);
    while journal.len <= COMPACT_ABOVE {
        assert!(!journal.is_long());
        journal.stage(records.iter()).unwrap();
        journal.commit().unwrap();
    }
    assert!(journal.is_long());
    journal.rewrite(&records).unwrap();
    assert!(!journal.is_long());
}
