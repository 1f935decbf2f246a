//! Numbers of the guest, from proc(5).

use crate::error::{AgentError, Result};
use crate::proto::StatsResponse;

/// Time since the guest kernel booted.
pub fn uptime_ms() -> u64 {
    // SAFETY: timespec is plain data, valid when zeroed, and written by the call.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time);
        time
    };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// 0 without a readable /proc/meminfo.
pub fn memory_total_bytes() -> u64 {
    number_after(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") * 1024
}

pub fn collect() -> Result<StatsResponse> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| AgentError::io(path, &error));
    let (meminfo, stat, statm) = (read("/proc/meminfo")?, read("/proc/stat")?, read("/proc/self/statm")?);
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
    let resident_pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(StatsResponse {
        agent_rss_bytes: resident_pages * 4096,
        memory_total_bytes: meminfo_bytes("MemTotal:"),
        memory_available_bytes: meminfo_bytes("MemAvailable:"),
        disk_total_bytes: disk.f_blocks * disk.f_frsize,
        disk_free_bytes: disk.f_bavail * disk.f_frsize,
        processes: processes()?,
        uptime_ms: uptime_ms(),
        cpu_time_ms: busy * 10,
    })
}

/// Those of the sandbox's user; outside a microVM, which has a cgroup for them, all there are.
fn processes() -> Result<u32> {
    if let Ok(ids) = std::fs::read_to_string(format!("{}/cgroup.procs", crate::boot::USER_CGROUP)) {
        return Ok(ids.lines().count() as u32);
    }
    let ids = std::fs::read_dir("/proc")
        .map_err(|error| AgentError::io("/proc", &error))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    Ok(ids.count() as u32)
}

fn number_after(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
