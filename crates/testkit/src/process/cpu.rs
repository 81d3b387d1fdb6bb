//! The CPU time that a process took, by Linux' own word.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// What the kernel counts in: `USER_HZ`, which is 100 on all that we run on.
const TICK: Duration = Duration::from_millis(10);

/// In user and system mode, since it began.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).with_context(|| format!("not understood: {stat}"))?;
    Ok(TICK * ticks)
}

fn ticks(stat: &str) -> Option<u32> {
    // A name may hold anything. What follows it starts with the third field; user and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse::<u32>().ok());
    fields.next()??.checked_add(fields.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_whatever_the_name_is() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 100 0 0 0 21 3 5 6 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(24));
        assert_eq!(ticks("7 (short) S 1 2 3"), None);
    }

    #[test]
    fn a_process_that_runs_takes_time_and_one_that_is_not_there_none() {
        let this = std::process::id();
        let began = cpu_time(this).unwrap();
        let took = (0..1_000_000).any(|_| cpu_time(this).unwrap() > began);
        assert!(took, "a million looks take longer than a tick");
        assert!(cpu_time(u32::MAX).is_err());
    }
}
