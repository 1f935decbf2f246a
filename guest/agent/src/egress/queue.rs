//! The kernel's packet queue (linux/netfilter/nfnetlink_queue.h): packets that wait for the agent's verdict.
//!
//! Every packet gets exactly one verdict: [`Held`] drops it when nothing else was said.

use std::io;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::network::QUEUE;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Subsystem 3 of nfnetlink in the high byte.
const MSG_PACKET: u16 = 3 << 8;
const MSG_VERDICT: u16 = 3 << 8 | 1;
const MSG_CONFIG: u16 = 3 << 8 | 2;
/// Attributes of MSG_CONFIG.
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Attributes of MSG_PACKET and MSG_VERDICT.
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 20;
/// A DNS query over UDP fits; of a SYN only the headers matter.
const COPY_BYTES: u32 = 1500;
/// Packets that wait at once: every flow's SYN and a burst of look-ups. The kernel drops more, and their senders try again.
const MAX_WAITING: u32 = 4096;
const RECEIVE_BYTES: usize = 1024 * 1024;

#[derive(Clone)]
pub struct Queue {
    socket: Arc<AsyncFd<Socket>>,
}

impl Queue {
    pub fn open() -> io::Result<Self> {
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_NETFILTER)))?;
        configure(&socket, CFG_CMD, &[CMD_BIND, 0, 0, 0])?;
        configure(&socket, CFG_PARAMS, &[&COPY_BYTES.to_be_bytes()[..], &[COPY_PACKET]].concat())?;
        configure(&socket, CFG_QUEUE_MAXLEN, &MAX_WAITING.to_be_bytes())?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.set_nonblocking(true)?;
        // SAFETY: the registration owns the socket.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket: Arc::new(socket) })
    }

    /// The next packet.
    pub async fn next(&self) -> io::Result<Held> {
        let mut buffer = [0; COPY_BYTES as usize + 512];
        loop {
            let received = self.socket.async_io(Interest::READABLE, |socket| receive(socket, &mut buffer)).await;
            let count = match received {
                // More packets than the socket holds: the kernel has dropped some, and their senders try again.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                other => other?,
            };
            if let Some((id, packet)) = packet(&buffer[..count]) {
                return Ok(Held { queue: self.clone(), id, packet: packet.into(), open: true });
            }
        }
    }

    fn verdict(&self, id: u32, verdict: u32, mark: Option<u32>) {
        let mut body = attribute(VERDICT_HDR, &[verdict.to_be_bytes(), id.to_be_bytes()].concat());
        if let Some(mark) = mark {
            body.extend(attribute(MARK, &mark.to_be_bytes()));
        }
        // The kernel works a verdict off within `send`; it is refused only for a packet that is no longer there.
        if let Err(error) = self.socket.get_ref().send(&message(MSG_VERDICT, NLM_F_REQUEST, &body)) {
            eprintln!("instavm-agent: a packet's verdict was refused: {error}");
        }
    }
}

/// A packet that waits.
pub struct Held {
    queue: Queue,
    id: u32,
    packet: Box<[u8]>,
    open: bool,
}

impl Held {
    /// The packet from its IP header on.
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }

    pub fn accept(mut self) {
        self.decide(ACCEPT, None);
    }

    /// Lets it go on with another mark; `rules.nft` says what becomes of it.
    pub fn accept_marked(mut self, mark: u32) {
        self.decide(ACCEPT, Some(mark));
    }

    fn decide(&mut self, verdict: u32, mark: Option<u32>) {
        if std::mem::replace(&mut self.open, false) {
            self.queue.verdict(self.id, verdict, mark);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.decide(DROP, None);
    }
}

fn receive(mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut socket, buffer)
}

/// Sends one setting and waits for the kernel's answer, which comes before `send` returns.
fn configure(socket: &Socket, attribute_type: u16, value: &[u8]) -> io::Result<()> {
    socket.send(&message(MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, &attribute(attribute_type, value)))?;
    let mut buffer = [0; 512];
    let count = receive(socket, &mut buffer)?;
    match acknowledgement(&buffer[..count]) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("no acknowledgement of a queue's setting")),
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADERS + body.len());
    bytes.extend(((HEADERS + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port: one request at a time, to the kernel.
    bytes.extend([0; 8]);
    // Any family, version 0, the queue's number.
    bytes.extend([0, 0]);
    bytes.extend(QUEUE.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&((value.len() + 4) as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Of the first message: a request of ours is answered by one.
fn kind(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?))
}

fn acknowledgement(bytes: &[u8]) -> Option<i32> {
    (kind(bytes)? == NLMSG_ERROR).then_some(())?;
    Some(i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?))
}

/// Id and content; the kernel sends one packet a message.
fn packet(bytes: &[u8]) -> Option<(u32, &[u8])> {
    (kind(bytes)? == MSG_PACKET).then_some(())?;
    let (mut id, mut payload, mut rest) = (None, &[][..], bytes.get(HEADERS..)?);
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes([c, d]) {
            PACKET_HDR => id = Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?)),
            PAYLOAD => payload = value,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((id?, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_is_read_with_its_number() {
        let header = [&7u32.to_be_bytes()[..], &[8, 0, 0, 0]].concat();
        let body = [attribute(PACKET_HDR, &header[..7]), attribute(MARK, &[0; 4]), attribute(PAYLOAD, b"packet")];
        assert_eq!(packet(&message(MSG_PACKET, 0, &body.concat())), Some((7, &b"packet"[..])));
        assert_eq!(packet(&message(MSG_VERDICT, 0, &body.concat())), None);
    }

    #[test]
    fn a_refusal_of_the_kernel_is_its_error_number() {
        let mut bytes = message(NLMSG_ERROR, 0, &[0; 16]);
        bytes[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(acknowledgement(&bytes), Some(-libc::EPERM));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            packet(&bytes);
            packet(&message(MSG_PACKET, 0, &bytes));
            acknowledgement(&bytes);
        }
    }
}
