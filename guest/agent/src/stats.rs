//! Numbers of the guest, from proc(5).

use crate::error::{AgentError, Result};
use crate::proto::StatsResponse;

pub fn collect() -> Result<StatsResponse> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| AgentError::io(path, &error));
    let (meminfo, stat, uptime, statm) =
        (read("/proc/meminfo")?, read("/proc/stat")?, read("/proc/uptime")?, read("/proc/self/statm")?);
    let meminfo_bytes = |name: &str| number_after(&meminfo, name) * 1024;
    // SAFETY: statvfs is plain data, valid when zeroed; the path is a C string.
    let disk = unsafe {
        let mut disk: libc::statvfs = std::mem::zeroed();
        libc::statvfs(c"/".as_ptr(), &mut disk);
        disk
    };
    // user nice system idle iowait irq softirq, in ticks of 10 ms (USER_HZ is 100 on every Linux ABI).
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
    let seconds: f64 = uptime.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let resident_pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let processes = std::fs::read_dir("/proc")
        .map_err(|error| AgentError::io("/proc", &error))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .count();
    Ok(StatsResponse {
        agent_rss_bytes: resident_pages * 4096,
        memory_total_bytes: meminfo_bytes("MemTotal:"),
        memory_available_bytes: meminfo_bytes("MemAvailable:"),
        disk_total_bytes: disk.f_blocks * disk.f_frsize,
        disk_free_bytes: disk.f_bavail * disk.f_frsize,
        processes: processes as u32,
        uptime_ms: (seconds * 1000.0) as u64,
        cpu_time_ms: busy * 10,
    })
}

fn number_after(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
