//! From the kernel's first program to a running guest: modules, disks, overlay root, cgroups, loopback.
//!
//! The initramfs holds this program as `/init`, the kernel modules, and `/modules.load` with their paths in load order.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::egress::network;

const DISK_DEADLINE: Duration = Duration::from_secs(20);
/// Ordinary processes of a sandbox, at most this many and at most [`USER_PROCESSES_PER_MIB`]; the agent is not among them.
const MAX_USER_PROCESSES: u64 = 4096;
const USER_PROCESSES_PER_MIB: u64 = 4;
/// Descriptors of the agent: pipes of [every exec](crate::exec), files, watches.
const AGENT_FILE_LIMIT: libc::rlimit = libc::rlimit { rlim_cur: 65_536, rlim_max: 1_048_576 };
/// redirect_dir: a directory of the base image can be renamed like any other.
const OVERLAY_OPTIONS: &str = "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work,redirect_dir=on";
pub const USER_CGROUP: &str = "/sys/fs/cgroup/user";

type Step<T = ()> = Result<T, String>;

trait Context<T> {
    fn context(self, what: impl std::fmt::Display) -> Step<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl std::fmt::Display) -> Step<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Brings the guest up. On return the process sits in the sandbox's root with everything mounted.
/// The error is one line for the console; the caller powers off.
pub fn boot() -> Step {
    for (source, target, kind) in [("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs"), ("dev", "/dev", "devtmpfs")] {
        mount(source, target, kind, 0, "")?;
    }
    crate::processors::settle().context("settling on a processor")?;
    load_modules()?;
    let (base, overlay) = (find_disk("base")?, find_disk("overlay")?);
    mount(&base, "/lower", "erofs", libc::MS_RDONLY, "")?;
    mount(&overlay, "/rw", "ext4", libc::MS_NOATIME, "")?;
    for directory in ["/rw/upper", "/rw/work"] {
        fs::create_dir_all(directory).context(directory)?;
    }
    mount("overlay", "/sysroot", "overlay", 0, OVERLAY_OPTIONS)?;
    // The modules are loaded; their memory belongs to the sandbox.
    fs::remove_dir_all("/lib").context("freeing the modules")?;
    switch_root()?;
    mount("devpts", "/dev/pts", "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, "gid=5,mode=620,ptmxmode=666")?;
    mount("tmpfs", "/dev/shm", "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=1777")?;
    mount("tmpfs", "/run", "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=755")?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, "")?;
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        std::os::unix::fs::symlink(target, Path::new("/dev").join(link)).context(format_args!("/dev/{link}"))?;
    }
    prepare_cgroup()?;
    raise_file_limit()?;
    loopback_up().context("bringing lo up")?;
    fs::create_dir_all("/workspace").context("/workspace")?;
    if let Err(error) = network::configure() {
        // A base image without the tools makes a sandbox without a way out.
        eprintln!("instavm-agent: no network: {error}");
    }
    fs::write("/etc/resolv.conf", network::RESOLV_CONF).context("/etc/resolv.conf")?;
    fs::write("/etc/hosts", crate::identity::LOCALHOST).context("/etc/hosts")?;
    fs::write("/proc/self/oom_score_adj", "-1000").context("oom_score_adj")
}

fn c_string(text: &str) -> CString {
    // Every argument is a constant of this file or a device name of the kernel; neither holds a NUL.
    CString::new(text).unwrap_or_default()
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, options: &str) -> Step {
    fs::create_dir_all(target).context(target)?;
    let (source, directory, kind, options) = (c_string(source), c_string(target), c_string(kind), c_string(options));
    // SAFETY: four C strings that outlive the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), directory.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context(format_args!("mounting {target}")) }
}

fn load_modules() -> Step {
    let list = fs::read_to_string("/modules.load").context("/modules.load")?;
    for path in list.lines().filter(|line| !line.is_empty()) {
        let file = File::open(path).context(path)?;
        // SAFETY: an open file and an empty C string.
        let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EEXIST) {
                return Err(format!("loading {path}: {error}"));
            }
        }
    }
    Ok(())
}

/// The virtio disk for this purpose, once the kernel shows it: the one that the command line names (`instavm.base=vda`, on Firecracker, whose
/// disks have no serial numbers to choose), or else the one with this serial number.
fn find_disk(purpose: &str) -> Step<String> {
    let named = command_line_value(&command_line()?, &format!("instavm.{purpose}"));
    let started = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/block").context("/sys/block")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_it = match &named {
                Some(wanted) => name == *wanted,
                None => fs::read_to_string(entry.path().join("serial")).unwrap_or_default().trim() == purpose,
            };
            if name.starts_with("vd") && is_it {
                return Ok(format!("/dev/{name}"));
            }
        }
        if started.elapsed() > DISK_DEADLINE {
            return Err(format!("no virtio disk is the {purpose:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn command_line() -> Step<String> {
    fs::read_to_string("/proc/cmdline").context("/proc/cmdline")
}

fn command_line_value(line: &str, name: &str) -> Option<String> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into())
}

fn switch_root() -> Step {
    for directory in ["/proc", "/sys", "/dev"] {
        let target = format!("/sysroot{directory}");
        fs::create_dir_all(&target).context(&target)?;
        let (from, to) = (c_string(directory), c_string(&target));
        // SAFETY: C strings that outlive the call; MS_MOVE ignores type and data.
        if unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null()) } != 0 {
            return Err(io::Error::last_os_error()).context(format_args!("moving {directory}"));
        }
    }
    std::env::set_current_dir("/sysroot").context("/sysroot")?;
    // SAFETY: constant C strings.
    let failed = unsafe {
        libc::mount(c".".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null()) != 0
            || libc::chroot(c".".as_ptr()) != 0
    };
    if failed {
        return Err(io::Error::last_os_error()).context("switching root");
    }
    std::env::set_current_dir("/").context("/")
}

fn prepare_cgroup() -> Step {
    // cpu: the agent then competes with all user processes together, not with each, and answers under a fork bomb.
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +pids +memory").context("cgroup controllers")?;
    fs::create_dir_all(USER_CGROUP).context(USER_CGROUP)?;
    let memory_mib = crate::stats::memory_total_bytes() / (1024 * 1024);
    let processes = (memory_mib * USER_PROCESSES_PER_MIB).clamp(256, MAX_USER_PROCESSES);
    fs::write(format!("{USER_CGROUP}/pids.max"), processes.to_string()).context("pids.max")
}

fn raise_file_limit() -> Step {
    // SAFETY: a valid rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &AGENT_FILE_LIMIT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("RLIMIT_NOFILE"),
    }
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: ifreq is plain data, valid when zeroed; the name is written within its 16 bytes; the descriptor is checked.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if result == 0 { Ok(()) } else { Err(error) }
    }
}

/// Asks every process but the agent to end, ends those left after `grace`, and turns the machine off.
pub async fn end_everything(grace: Duration) -> ! {
    let deadline = tokio::time::Instant::now() + grace;
    signal_everyone(libc::SIGTERM);
    while user_processes_remain() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    signal_everyone(libc::SIGKILL);
    // The reply to the host is on its way through the port.
    tokio::time::sleep(Duration::from_millis(20)).await;
    power_off()
}

fn signal_everyone(signal: i32) {
    // SAFETY: as PID 1, -1 is every process but the caller itself.
    unsafe { libc::kill(-1, signal) };
}

fn user_processes_remain() -> bool {
    // cgroup-v2: "populated 1" while a process lives in the subtree.
    fs::read_to_string(format!("{USER_CGROUP}/cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
}

/// Flushes and turns the machine off; the VMM exits.
pub fn power_off() -> ! {
    // Firecracker has no power switch, and the kernel would halt for ever; it exits when the guest resets by the keyboard controller.
    let only_reset = command_line().is_ok_and(|line| command_line_value(&line, "reboot").as_deref() == Some("k"));
    // SAFETY: none of the calls has preconditions; reboot does not return when it works.
    unsafe {
        libc::sync();
        if !only_reset {
            libc::reboot(libc::RB_POWER_OFF);
        }
        // A machine without a power switch exits on reset (-no-reboot).
        libc::reboot(libc::RB_AUTOBOOT);
    }
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_command_line_is_found_by_its_whole_name() {
        let line = "console=ttyS0 xinstavm.base=vdx instavm.base=vda instavm.base2=vdb quiet\n";
        assert_eq!(command_line_value(line, "instavm.base").as_deref(), Some("vda"));
        assert_eq!(command_line_value(line, "quiet"), None);
    }
}
