//! The guest's network as its programs see it: `eth0` with one address of each family and a default route, a table of rules that hands
//! what would leave by it to the agent, and this agent as the DNS server. Set up once, when a template boots.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

/// Of 198.18.0.0/15 (RFC 2544); 198.18.0.0/16 is the [name pool's](super::pool).
pub const OWN_IPV4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 1);
/// Of our unique local prefix (RFC 4193), whose 56 bits after `fd` spell "instavm".
pub const OWN_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd69, 0x6e73, 0x7461, 0x766d, 0xffff, 0, 0, 1);

/// Marks, queue and ports of `rules.nft`; the ports lie above the range that programs get theirs from.
pub const REFUSED_MARK: u32 = 0x564d_0003;
pub const QUEUE: u16 = 0;
pub const FLOW_PORT: u16 = 61000;
pub const DNS_PORT: u16 = 61001;

pub const RULES: &str = include_str!("rules.nft");
/// Longer than the agent takes to answer, so that a program hears the answer.
pub const RESOLV_CONF: &str = "nameserver 127.0.0.1\noptions timeout:6 attempts:2\n";

/// What the kernel needs to know before the first address is there.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/eth0/accept_ra", "0"),
    // The two ends of a flow share a kernel; its clock is good enough to reuse a port after a second.
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "4096"),
];

/// Both loopback addresses with this port.
pub fn loopback(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|address| SocketAddr::new(address, port))
}

/// `ip -batch` of one family. IPv6 knows no unicast route through lo, so what must reach the agent is local by its mark in both.
fn addresses(own: IpAddr) -> String {
    let (bits, flags) = if own.is_ipv4() { (32, "") } else { (128, "nodad") };
    format!(
        "addr add {own}/{bits} dev eth0 {flags}\n\
         route add default dev eth0 src {own}\n\
         rule add fwmark 0x564d0001 lookup 101\n\
         route add local default dev lo table 101\n\
         rule add fwmark 0x564d0002 lookup 102\n\
         route add unreachable default table 102\n"
    )
}

/// The module of dummy devices makes one. Its size is that of lo, so that the two copy as little as possible.
const DEVICE: &str =
    "link set dummy0 name eth0\nlink set eth0 addrgenmode none\nlink set eth0 mtu 65535\nlink set eth0 up\n";

/// Runs before anything else waits for processes. Uses the base image's own `ip` and `nft`.
pub fn configure() -> io::Result<()> {
    run("ip", &["-batch", "-"], DEVICE)?;
    for (name, value) in SYSCTLS {
        std::fs::write(format!("/proc/sys/{name}"), value)?;
    }
    run("ip", &["-4", "-batch", "-"], &addresses(OWN_IPV4.into()))?;
    run("ip", &["-6", "-batch", "-"], &addresses(OWN_IPV6.into()))?;
    run("nft", &["-f", "-"], RULES)
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    let failed = |what: String| io::Error::other(format!("{program}: {what}"));
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // Dropped at the end of the statement: the program reads to the end.
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_name_the_marks_queue_and_ports_of_this_file() {
        let text: String = RULES.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        for number in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("0x")) {
            assert!(["0x564d0001", "0x564d0002", "0x564d0003"].contains(&number), "{number} is no mark of ours");
        }
        assert!(text.contains(&format!("meta mark {REFUSED_MARK:#x} reject with tcp reset")));
        for port in [FLOW_PORT, DNS_PORT] {
            for address in loopback(port) {
                assert!(text.contains(&format!("to {address}")), "{address} gets nothing");
            }
        }
        assert_eq!(text.matches(&format!("queue to {QUEUE}")).count(), 2);
    }

    #[test]
    fn what_the_agent_says_of_a_connection_is_asked_before_the_connection_is_delivered() {
        let at = |what: &str| RULES.find(what).unwrap_or_else(|| panic!("no {what}"));
        assert!(at("priority mangle - 10") < at("hook prerouting priority mangle;"));
        assert!(at("hook prerouting priority mangle;") < at("priority mangle + 10"));
    }

    #[test]
    fn each_family_gets_its_own_address_and_the_two_ways_of_a_marked_packet() {
        let text = addresses(OWN_IPV6.into());
        assert!(text.contains("addr add fd69:6e73:7461:766d:ffff::1/128 dev eth0 nodad\n"), "{text}");
        for address in [IpAddr::from(OWN_IPV4), OWN_IPV6.into()] {
            let lines = addresses(address);
            for (mark, table) in [("0x564d0001", 101), ("0x564d0002", 102)] {
                assert!(lines.contains(&format!("rule add fwmark {mark} lookup {table}\n")));
                assert!(
                    lines.contains(&format!("default dev lo table {table}"))
                        || lines.contains(&format!("unreachable default table {table}"))
                );
            }
        }
    }
}
