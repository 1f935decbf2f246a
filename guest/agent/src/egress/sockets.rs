//! Sockets that stand in for addresses of others (IP_TRANSPARENT of ip(7)), and listeners that never give up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// 200 programs at once, and more; `net.core.somaxconn` allows it.
const BACKLOG: i32 = 4096;
/// When descriptors have run out, some will be free a little later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Lets a socket take connections for, and send from, addresses that are not this machine's.
pub fn set_transparent(socket: &Socket, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        return socket.set_ip_transparent_v4(true);
    }
    let on: libc::c_int = 1;
    // SAFETY: pointer and length describe an integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Listens for connections that the rules hand over; also for those to its own address.
pub fn listen_transparent(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    set_transparent(&socket, address.is_ipv4())?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Sends what [`unreachable`](super::packet::unreachable) makes. Through a raw socket: the kernel's own `reject with icmp` refuses to speak
/// for a destination that is local by its mark.
pub fn send_icmp(message: &[u8], to: IpAddr) -> io::Result<()> {
    let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let to = SocketAddr::new(to, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol))?;
    if to.is_ipv4() {
        socket.set_header_included_v4(true)?;
    }
    socket.send_to(message, &to.into()).map(|_| ())
}

pub async fn accept_for_ever(listener: &TcpListener, take: impl Fn(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => take(stream),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
