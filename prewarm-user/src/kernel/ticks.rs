//! How fast the kernel's coarse clock runs: the programs measure their folding window in its ticks.

use std::{fs, io::Read as _, thread, time::Duration};

use flate2::read::GzDecoder;
use nix::time::{ClockId, clock_gettime};

/// What kernels are built with (CONFIG_HZ).
const USUAL: [u64; 4] = [100, 250, 300, 1000];

/// Ticks a second: as the kernel's configuration says, else as measured, else 250.
pub(super) fn per_second() -> u64 {
    configured().or_else(measured).unwrap_or(250)
}

fn configured() -> Option<u64> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let text = fs::read_to_string(format!("/boot/config-{}", release.trim())).ok().or_else(|| {
        let mut text = String::new();
        GzDecoder::new(fs::File::open("/proc/config.gz").ok()?).read_to_string(&mut text).ok()?;
        Some(text)
    })?;
    text.lines().find_map(|line| line.strip_prefix("CONFIG_HZ="))?.parse().ok()
}

fn measured() -> Option<u64> {
    let sample = || Some((jiffies()?, Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?)));
    let (ticks, at) = sample()?;
    thread::sleep(Duration::from_millis(100));
    let (later_ticks, later) = sample()?;
    let rate = later_ticks.checked_sub(ticks)? as f64 / (later - at).as_secs_f64();
    USUAL.into_iter().min_by(|a, b| (*a as f64 - rate).abs().total_cmp(&(*b as f64 - rate).abs()))
}

fn jiffies() -> Option<u64> {
    let timers = fs::read_to_string("/proc/timer_list").ok()?;
    timers.lines().find_map(|line| line.strip_prefix("jiffies: "))?.trim().parse().ok()
}
