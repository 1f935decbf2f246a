//! The packets that the kernel holds for the agent, and the one that the agent makes: "destination unreachable". Any program with a raw
//! socket can write the former, so everything is looked at before it is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// RFC 791: the offset and the "more fragments" flag; what has either is not a whole packet.
const FRAGMENT: u16 = 0x3fff;

/// Both ends of a connection as the program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    pub program: SocketAddr,
    pub destination: SocketAddr,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The beginning of a connection; a SYN that is sent again has the same sequence number.
    Syn { ends: Ends, sequence: u32 },
    /// A datagram with its payload.
    Datagram { ends: Ends, payload: &'a [u8] },
}

/// `None` for anything but a whole TCP or UDP packet without extension headers.
pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let (source, destination, protocol, body) = match bytes.first()? >> 4 {
        4 => ipv4(bytes)?,
        6 => ipv6(bytes)?,
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let ends = Ends { program: SocketAddr::new(source, port(0)?), destination: SocketAddr::new(destination, port(2)?) };
    match protocol {
        TCP if body.len() >= TCP_HEADER => {
            Some(Packet::Syn { ends, sequence: u32::from_be_bytes(body[4..8].try_into().ok()?) })
        }
        UDP => {
            let length = usize::from(port(4)?);
            Some(Packet::Datagram { ends, payload: body.get(UDP_HEADER..length)? })
        }
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = bytes.get(..IPV4_HEADER)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_HEADER || u16::from_be_bytes([header[6], header[7]]) & FRAGMENT != 0 {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).ok()?).into());
    Some((address(12)?, address(16)?, header[9], bytes.get(header_length..)?))
}

fn ipv6(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = bytes.get(..IPV6_HEADER)?;
    let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).ok()?).into());
    Some((address(8)?, address(24)?, header[6], &bytes[IPV6_HEADER..]))
}

/// Why a connection is refused without a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// `ENETUNREACH` in the program.
    Network,
    /// `EHOSTUNREACH` in the program.
    Host,
}

/// Of the packet that could not be delivered, as much as is useful (RFC 792, RFC 4443 §2.4).
const QUOTED: usize = 128;
/// The size of a message over IPv4: of the largest packet, because Linux handles a small one out of order. `tcp_v4_err` queues the message to
/// the connecting socket and wakes the program, and only then notes the error; a program that looks in between finds none in `SO_ERROR` and
/// believes that it is connected. (`tcp_v6_err` queues only what `IPV6_RECVERR` asks for.) Nothing is queued that the receive buffer has no
/// room for: it has 128 KiB, and a packet of this size, in kernel memory, takes a little more. Left is a program that sets a larger
/// `SO_RCVBUF` before it connects, which may still be misled.
const PADDED: usize = 65535;

/// For the sender of `packet`, which is `program`: an ICMPv6 message, or a whole IPv4 packet with an ICMP message. What is zero in their own
/// headers, the kernel fills in.
pub fn unreachable(packet: &[u8], program: IpAddr, why: Unreachable) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(QUOTED)];
    let message = |kind, code| [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat();
    match (program, why) {
        (IpAddr::V4(program), Unreachable::Network) => padded(program, message(3, 0)),
        (IpAddr::V4(program), Unreachable::Host) => padded(program, message(3, 1)),
        (IpAddr::V6(_), Unreachable::Network) => message(1, 0),
        (IpAddr::V6(_), Unreachable::Host) => message(1, 3),
    }
}

fn padded(to: Ipv4Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    // The padding's zeros do not change it.
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 0, 0, 0, 0];
    packet.extend(to.octets());
    packet.extend(icmp);
    packet.resize(PADDED, 0);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::network::OWN_IPV4;
    use proptest::prelude::*;

    /// As tcpdump printed it: 198.19.255.1:40000 > 198.18.0.7:443, SYN, seq 0x01020304.
    const SYN4: &str = "45000028000040004006 0000 c613ff01 c6120007 9c40 01bb 01020304 00000000 5002 ffff 0000 0000";
    const DNS6: &str = "60000000000d1140 fd696e737461766dffff000000000001 20010db8000000000000000000000001 \
                        c000 0035 000d 0000 6865 6c6c 6f";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_syn_and_a_datagram_are_recognised() {
        let ends = |program: &str, destination: &str| Ends {
            program: program.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let expected = Packet::Syn { ends: ends("198.19.255.1:40000", "198.18.0.7:443"), sequence: 0x0102_0304 };
        assert_eq!(parse(&bytes(SYN4)), Some(expected));
        let ends = ends("[fd69:6e73:7461:766d:ffff::1]:49152", "[2001:db8::1]:53");
        assert_eq!(parse(&bytes(DNS6)), Some(Packet::Datagram { ends, payload: b"hello" }));
    }

    #[test]
    fn fragments_and_cut_packets_are_nothing() {
        let mut fragment = bytes(SYN4);
        fragment[6] = 0x20;
        assert_eq!(parse(&fragment), None);
        for (whole, least) in [(bytes(SYN4), 40), (bytes(DNS6), 53)] {
            assert_eq!(whole.len(), least);
            for length in 0..least {
                assert_eq!(parse(&whole[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn an_icmp_message_sums_to_zero() {
        let packet = unreachable(&bytes(SYN4), OWN_IPV4.into(), Unreachable::Host);
        assert_eq!((packet[9], &packet[16..20], packet.len()), (1, &[198, 19, 255, 1][..], 65535));
        assert_eq!((packet[20], packet[21]), (3, 1));
        assert_eq!(packet[28..68], bytes(SYN4));
        assert_eq!(checksum(&packet[20..]), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..80), version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()]) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            parse(&bytes);
            unreachable(&bytes, OWN_IPV4.into(), Unreachable::Network);
        }
    }
}
