//! Reading a journal back, whatever a crash or a bad disk made of it.
//!
//! Two kinds of fault, told apart by the newline. The last line has none: it was being written when the process or the
//! machine died, nobody was told of it, and it is cut off. A line with a newline whose checksum is wrong: the file was
//! damaged afterwards; it is skipped, and what follows is read, since what was granted must not be lost.
//!
//! Two things look torn and are not. A last line that lacks nothing but its newline says all that was written, perhaps to
//! somebody: it counts. A first line that is half: a journal comes into being whole, by a rename, so this is no crash's
//! work but another file, or damage.

use std::io::{self, BufRead, Read as _};

use berth_ledger::Record;

use super::line::{self, Header};

/// Longer lines are damage: the largest real one (a kubelet answer that moves every holder of 256 devices) is below 1 MiB.
const MAX_LINE: u64 = 8 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) header: Option<Header>,
    /// Up to here the file is lines; what follows is torn.
    pub(super) len: u64,
    /// The last of them lacks its newline.
    pub(super) is_unterminated: bool,
    /// Bytes of the torn last line.
    pub(super) torn: u64,
    /// Lines that are not what was written.
    pub(super) damaged: u64,
    /// Good lines after the header.
    pub(super) lines: u64,
}

/// Calls `each` with the records of every good line in order, and whether damage lies before that line.
pub(super) fn scan(mut input: impl BufRead, mut each: impl FnMut(Vec<Record>, bool)) -> io::Result<Scan> {
    let mut found = Scan::default();
    let mut line = Vec::new();
    let mut first = true;
    loop {
        line.clear();
        let mut read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            return Ok(found);
        }
        let mut whole = line.pop_if(|byte| *byte == b'\n').is_some();
        let overlong = !whole && read == MAX_LINE;
        if overlong {
            line.clear();
            (read, whole) = skip_line(&mut input, read)?;
        }
        let is_first = std::mem::take(&mut first);
        let header = if is_first { line::decode(&line) } else { None };
        let records = if header.is_none() { line::decode(&line) } else { None };
        if !whole {
            // No part of a line has the line's checksum.
            found.is_unterminated = header.is_some() || records.is_some();
            if !found.is_unterminated && !is_first {
                found.torn = read;
                return Ok(found);
            }
        }
        found.len += read;
        if header.is_some() {
            found.header = header;
        } else if let Some(records) = records {
            // Without a header in front it is no journal as we write it, but its lines can still be trusted.
            found.damaged += u64::from(found.header.is_none() && found.damaged == 0);
            found.lines += 1;
            each(records, found.damaged > 0);
        } else {
            found.damaged += 1;
        }
    }
}

/// Skips to the end of the line without holding it. `so_far` bytes of it are read already.
fn skip_line(input: &mut impl BufRead, mut so_far: u64) -> io::Result<(u64, bool)> {
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok((so_far, false));
        }
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let taken = newline.map_or(chunk.len(), |at| at + 1);
        input.consume(taken);
        so_far += taken as u64;
        if newline.is_some() {
            return Ok((so_far, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(generations: std::ops::Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let header = Header {
            berth_journal: line::FORMAT,
            node: "a".to_owned(),
        };
        line::encode_value(&header, &mut out).unwrap();
        for generation in generations {
            line::encode([Record::Generation(generation)].iter(), &mut out).unwrap();
        }
        out
    }

    fn read(bytes: &[u8]) -> (Scan, Vec<u64>) {
        let mut seen = Vec::new();
        let found = scan(bytes, |records, _| {
            seen.extend(records.into_iter().map(|record| match record {
                Record::Generation(number) => number,
                other => panic!("{other:?}"),
            }));
        });
        (found.unwrap(), seen)
    }

    #[test]
    fn every_prefix_reads_as_the_lines_that_are_whole() {
        let bytes = journal(1..50);
        for len in 0..=bytes.len() {
            let (found, seen) = read(&bytes[..len]);
            let lacks_newline = bytes.get(len) == Some(&b'\n');
            let newlines = bytes[..len].split(|byte| *byte == b'\n').count() as u64 - 1;
            let lines = newlines + u64::from(lacks_newline);
            assert_eq!(seen, (1..lines.max(1)).collect::<Vec<_>>(), "prefix of {len} bytes");
            assert_eq!(found.len + found.torn, len as u64);
            assert_eq!(found.is_unterminated, lacks_newline);
            assert_eq!(found.header.is_some(), lines > 0);
            let is_half_a_header = lines == 0 && len > 0;
            assert_eq!(found.damaged, u64::from(is_half_a_header));
        }
    }

    #[test]
    fn a_damaged_line_costs_that_line_only() {
        let good = journal(1..4);
        let start = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut bytes = good.clone();
        bytes[start + 12] ^= 0x20;
        let (found, seen) = read(&bytes);
        assert_eq!((found.damaged, found.lines), (1, 2));
        assert_eq!(seen, [2, 3]);
    }

    #[test]
    fn lines_without_a_header_are_read_and_count_as_damage() {
        let bytes = journal(1..4);
        let start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let (found, seen) = read(&bytes[start..]);
        assert_eq!((found.header, found.damaged), (None, 1));
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn an_endless_line_is_neither_held_nor_trusted() {
        let mut bytes = journal(1..2);
        bytes.resize(bytes.len() + usize::try_from(MAX_LINE).unwrap() + 5000, b'x');
        assert!(read(&bytes).0.torn > MAX_LINE);
        bytes.push(b'\n');
        line::encode([Record::Generation(7)].iter(), &mut bytes).unwrap();
        let (found, seen) = read(&bytes);
        assert_eq!((found.damaged, found.torn), (1, 0));
        assert_eq!(seen, [1, 7]);
    }
}
