//! Times as text, from unix milliseconds. Civil dates by Howard Hinnant's algorithm.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `2026-11-23T02:09:18.976Z`.
pub(super) fn iso_ms(unix_ms: u64) -> String {
    let text = iso_s(unix_ms / 1000);
    format!("{}.{:03}Z", text.trim_end_matches('Z'), unix_ms % 1000)
}

/// `2026-11-23T01:06:46Z`.
pub(super) fn iso_s(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / 86_400);
    let (hour, minute, second) = clock(unix_s);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// As in a `Date` header.
pub(super) fn http_date(unix_ms: u64) -> String {
    let unix_s = unix_ms / 1000;
    let days = unix_s / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = clock(unix_s);
    let at = |list: &[&'static str], index: u64| {
        usize::try_from(index)
            .ok()
            .and_then(|i| list.get(i).copied())
            .unwrap_or("")
    };
    let (weekday, month) = (at(&DAYS, days % 7), at(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

const fn clock(unix_s: u64) -> (u64, u64, u64) {
    let of_day = unix_s % 86_400;
    (of_day / 3600, of_day / 60 % 60, of_day % 60)
}

const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as u64;
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_service_writes_them() {
        assert_eq!(iso_ms(1_795_399_758_976), "2026-11-23T02:09:18.976Z");
        assert_eq!(iso_s(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
