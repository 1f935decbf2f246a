//! What tells one clone from another: clock, entropy, hostname, machine-id, environment.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use crate::error::{AgentError, Result};
use crate::proto::PersonalizeRequest;

/// `struct rand_pool_info` of linux/random.h, for 64 bytes.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; 64],
}

// _IOW('R', 0x03, int[2]) and _IO('R', 0x07) of linux/random.h.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
const MAX_HOSTNAME_BYTES: usize = 64;
const HOSTS: &str = "/etc/hosts";
/// Debian's address for a host's own name.
const OWN_ADDRESS: &str = "127.0.1.1";
pub const LOCALHOST: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Applies everything but the environment. Outside a microVM (tests) it changes nothing.
/// Errors: `invalid_request`, `io_error`.
pub fn apply(request: &PersonalizeRequest, is_init: bool) -> Result<()> {
    let invalid = |what: &str| Err(AgentError::new("invalid_request", what));
    if request.machine_id.len() != 32 || !request.machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return invalid("machine_id must be 32 hex digits");
    }
    let hostname = &request.hostname;
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if hostname.is_empty() || hostname.len() > MAX_HOSTNAME_BYTES || !hostname.bytes().all(is_label) {
        return invalid("hostname must be 1 to 64 letters, digits or hyphens");
    }
    if request.entropy.len() < 32 {
        return invalid("entropy must be at least 32 bytes");
    }
    if !is_init {
        return Ok(());
    }
    set_clock(request.unix_time_ns)?;
    add_entropy(&request.entropy)?;
    // SAFETY: pointer and length describe `hostname`.
    if unsafe { libc::sethostname(hostname.as_ptr().cast(), hostname.len()) } != 0 {
        return Err(AgentError::io("sethostname", &std::io::Error::last_os_error()));
    }
    let hosts = crate::accounts::read_bounded(HOSTS);
    for (path, text) in [
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/machine-id", format!("{}\n", request.machine_id)),
        (HOSTS, with_own_name(&hosts, hostname)),
    ] {
        if let Err(error) = replace(path, &text) {
            // A sandbox that filled its disk must still wake up; clock, randomness and the kernel's hostname are set.
            eprintln!("instavm-agent: {path} keeps its old content: {error}");
        }
    }
    Ok(())
}

/// /etc/hosts with 127.0.1.1 as this host; other lines, which the sandbox may have added, stay.
fn with_own_name(hosts: &str, hostname: &str) -> String {
    let others = hosts.lines().filter(|line| line.split_whitespace().next() != Some(OWN_ADDRESS));
    let mut text: String = others.flat_map(|line| [line, "\n"]).collect();
    if text.is_empty() {
        text.push_str(LOCALHOST);
    }
    text + OWN_ADDRESS + " " + hostname + "\n"
}

/// Gives the file a new content whole. Whatever stands under the name, a FIFO or a link, is replaced and not opened.
fn replace(path: &str, text: &str) -> std::io::Result<()> {
    let new = format!("{path}.instavm-new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).open(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

fn set_clock(unix_time_ns: u64) -> Result<()> {
    if unix_time_ns == 0 {
        return Ok(());
    }
    let time = libc::timespec {
        tv_sec: (unix_time_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (unix_time_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: a valid timespec.
    match unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) } {
        0 => Ok(()),
        _ => Err(AgentError::io("setting the clock", &std::io::Error::last_os_error())),
    }
}

/// Credits the bytes and has the kernel's generator reseed from them at once, so that two clones never share a random stream.
fn add_entropy(bytes: &[u8]) -> Result<()> {
    let random =
        File::options().write(true).open("/dev/random").map_err(|error| AgentError::io("/dev/random", &error))?;
    let mut pool = RandPoolInfo { entropy_count: 256, buf_size: 64, buf: [0; 64] };
    for (index, byte) in bytes.iter().enumerate() {
        pool.buf[index % 64] ^= byte;
    }
    // SAFETY: RNDADDENTROPY reads a rand_pool_info with buf_size bytes; RNDRESEEDCRNG takes no argument.
    let failed = unsafe {
        libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &pool) != 0
            || libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) != 0
    };
    if failed { Err(AgentError::io("reseeding the kernel", &std::io::Error::last_os_error())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_replaces_the_old_one_and_leaves_the_lines_of_the_sandbox() {
        let first = with_own_name("", "one");
        assert_eq!(first, format!("{LOCALHOST}127.0.1.1 one\n"));
        let edited = first + "10.0.0.1 db";
        assert_eq!(with_own_name(&edited, "two"), format!("{LOCALHOST}10.0.0.1 db\n127.0.1.1 two\n"));
    }

    #[test]
    fn a_fifo_under_the_name_is_replaced_without_being_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        replace(path.to_str().unwrap(), "text").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    }
}
