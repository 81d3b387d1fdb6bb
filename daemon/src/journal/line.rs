//! One line of the journal: eight hex digits of CRC-32 (IEEE) over the JSON, a space, the JSON, a newline.
//!
//! JSON has no raw newline, so lines can be found again behind damage.

use berth_ledger::Record;
use serde::{Deserialize, Serialize, Serializer as _, de::DeserializeOwned};

/// Counts up with every change that an older reader would misread.
pub(super) const FORMAT: u32 = 1;

const CHECKSUM_DIGITS: usize = 8;
const PREFIX: usize = CHECKSUM_DIGITS + 1;

/// The first line of every journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) berth_journal: u32,
    pub(super) node: String,
}

/// Appends one line that holds these records.
pub(super) fn encode<'a>(
    records: impl Iterator<Item = &'a Record>,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    append(out, |out| serde_json::Serializer::new(out).collect_seq(records))
}

/// Appends one line that holds this value.
pub(super) fn encode_value<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    append(out, |out| serde_json::to_writer(out, value))
}

/// On an error nothing is appended.
fn append(
    out: &mut Vec<u8>,
    write_json: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    let start = out.len();
    out.extend_from_slice(b"00000000 ");
    if let Err(error) = write_json(out) {
        out.truncate(start);
        return Err(error);
    }
    let (prefix, json) = out[start..].split_at_mut(PREFIX);
    let mut checksum = crc32fast::hash(json);
    for digit in prefix[..CHECKSUM_DIGITS].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(checksum & 0xf) as usize];
        checksum >>= 4;
    }
    out.push(b'\n');
    Ok(())
}

/// The value of a line without its newline; `None` where it is not what was written.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (prefix, json) = line.split_at_checked(PREFIX)?;
    let digits = std::str::from_utf8(prefix.strip_suffix(b" ")?).ok()?;
    let checksum = u32::from_str_radix(digits, 16).ok()?;
    if crc32fast::hash(json) != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode_value(&value, &mut out).unwrap();
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn a_line_survives_the_way_there_and_back() {
        let text = "a\nb\u{e9} \"quoted\"";
        assert!(!line(text).contains(&b'\n'), "one value, one line");
        assert_eq!(decode::<String>(&line(text)).as_deref(), Some(text));
    }

    #[test]
    fn every_single_flipped_bit_is_seen() {
        let good = line("eight GPUs");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let read = decode::<String>(&bad);
                // An upper-case hex digit is the same number: the only flip that means nothing.
                let same_number = at < CHECKSUM_DIGITS && bad[at].eq_ignore_ascii_case(&good[at]);
                assert!(read.is_none() || same_number, "byte {at} bit {bit}: {read:?}");
            }
        }
    }

    #[test]
    fn short_and_foreign_lines_are_no_lines() {
        for bytes in [
            &b""[..],
            b"0",
            b"00000000",
            b"zzzzzzzz {}",
            b"+0000000 \"\"",
            b"{\"json\":1}",
        ] {
            assert!(decode::<String>(bytes).is_none(), "{bytes:?}");
        }
    }
}
