//! Small pieces of text that several pages share.

use berth_placement::MemoryBytes;

use crate::view::{Device, Grant};

/// Without what could steer a terminal: names and messages come from others.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // The marks that turn the direction of writing could make a line read as another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

/// `12s`, `5m`, `3h`, `9d`: two digits of each, then the next unit.
pub(super) fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The time of day in UTC: `09:12:44Z`.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `39.6/79.6`, in GiB, rounded down.
pub(super) fn gib_of(part: u64, total: u64) -> String {
    let gib = |bytes: u64| {
        let tenths = (u128::from(bytes) * 10) >> 30;
        if tenths % 10 == 0 {
            format!("{}", tenths / 10)
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    format!("{}/{}", gib(part), gib(total))
}

/// Enough of the UUID to tell it from the others of its node, and to name the device on the command line.
pub(crate) fn short_uuid(uuid: &str, among: &[Device]) -> String {
    const USUAL: usize = "GPU-4c1f0f5e".len();
    let unique = |end: usize| {
        let is_start = |other: &&Device| uuid.get(..end).is_some_and(|start| other.uuid.starts_with(start));
        among.iter().filter(is_start).count() <= 1
    };
    let end = (USUAL..uuid.len()).find(|end| unique(*end)).unwrap_or(uuid.len());
    uuid.get(..end).unwrap_or(uuid).trim_end_matches('-').to_owned()
}

/// `GPU 0 (GPU-4c1f0f5e-…), GPU 3 (MIG-…, 1g.10gb)`.
pub(crate) fn gpu_list(grants: &[Grant]) -> String {
    let names: Vec<_> = grants
        .iter()
        .map(|grant| {
            let size = match grant {
                Grant { mig_profile, .. } if !mig_profile.is_empty() => format!(", {mig_profile}"),
                Grant { milli: 1000, .. } => String::new(),
                Grant { memory_bytes, .. } => format!(", {}", MemoryBytes::new(*memory_bytes)),
            };
            format!("GPU {} ({}{size})", grant.index, grant.visible_uuid())
        })
        .collect();
    if names.is_empty() {
        "no GPU".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(plain("a\u{1b}[31mb\r\nc\u{202e}d\u{7}"), "a?[31mb? c?d?");
    }

    #[test]
    fn durations_keep_two_significant_digits_or_more() {
        let cases = [
            (0, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_199_000, "119m"),
            (7_200_000, "2h"),
            (172_800_000, "2d"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn a_time_of_day_is_in_utc() {
        assert_eq!(time_of_day(1_700_000_000_000), "22:13:20Z");
    }

    #[test]
    fn a_part_of_a_memory_never_looks_larger_than_it_is() {
        assert_eq!(gib_of(0, 80 << 30), "0/80");
        assert_eq!(gib_of((20 << 30) - 1, 81_559 << 20), "19.9/79.6");
        assert_eq!(gib_of(u64::MAX, u64::MAX), "17179869183.9/17179869183.9");
    }

    #[test]
    fn a_short_uuid_is_as_long_as_it_takes_to_be_unique() {
        let device = |uuid: &str| Device {
            uuid: uuid.to_owned(),
            ..Device::default()
        };
        let devices = [
            device("GPU-00000000-0001-aa"),
            device("GPU-00000000-0002-bb"),
            device("GPU-4c1f0f5e-0001-cc"),
        ];
        assert_eq!(short_uuid(&devices[2].uuid, &devices), "GPU-4c1f0f5e");
        assert_eq!(short_uuid(&devices[0].uuid, &devices), "GPU-00000000-0001");
        assert_eq!(short_uuid("é", &devices), "é");
    }
}
