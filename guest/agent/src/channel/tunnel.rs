//! Tunnels from the host to programs of the guest: `CONNECT localhost:PORT` (RFC 9113 §8.5), answered when the program has been reached.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::REASON_TRAILER;
use crate::relay::{Flow, relay, reset};

pub const MAX_TUNNELS: usize = 1024;
/// Programs of the same machine answer at once; one whose queue of connections is full may take a repeated SYN or three.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Where servers listen, in the order in which they are tried.
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[derive(Clone)]
pub struct Tunnels(Arc<Semaphore>);

impl Default for Tunnels {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TUNNELS)))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, &'static str);

impl Tunnels {
    /// Ends with the tunnel, which ends with its connection.
    pub async fn open(self, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
        let Ok(_permit) = self.0.try_acquire() else {
            return refuse(answer, Refusal(StatusCode::TOO_MANY_REQUESTS, "too_many_tunnels"));
        };
        let Some(port) = port_of(request.uri()) else {
            return refuse(answer, Refusal(StatusCode::BAD_REQUEST, "invalid_request"));
        };
        let connected = tokio::select! {
            connected = connect(port) => connected,
            // Given up.
            _ = poll_fn(|context| answer.poll_reset(context)) => return,
        };
        match connected {
            Ok(program) => match answer.send_response(Response::new(()), false) {
                Ok(to_host) => relay(program, Flow { to_host, from_host: request.into_body() }).await,
                Err(_) => reset(program),
            },
            Err(refusal) => refuse(answer, refusal),
        }
    }
}

fn port_of(uri: &Uri) -> Option<u16> {
    let authority = uri.authority().filter(|authority| authority.host() == "localhost")?;
    authority.port_u16().filter(|port| *port != 0)
}

async fn connect(port: u16) -> Result<TcpStream, Refusal> {
    let mut refusal = Refusal(StatusCode::BAD_GATEWAY, "connection_refused");
    for address in ADDRESSES {
        match timeout(CONNECT_DEADLINE, TcpStream::connect((address, port))).await {
            Ok(Ok(program)) => {
                // Pieces are as large as they came; waiting would only delay what is typed.
                let _ = program.set_nodelay(true);
                return Ok(program);
            }
            // Not there: as if nobody listened.
            Ok(Err(error))
                if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable) => {}
            Ok(Err(error)) => {
                eprintln!("instavm-agent: port {port} of {address}: {error}");
                refusal = Refusal(StatusCode::BAD_GATEWAY, "io_error");
            }
            Err(_) => return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, "connect_timeout")),
        }
    }
    Err(refusal)
}

fn refuse(mut answer: SendResponse<Bytes>, Refusal(status, reason): Refusal) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(REASON_TRAILER, http::HeaderValue::from_static(reason));
    // An error: the host has given up.
    let _ = answer.send_response(response, true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_port_of_localhost_is_an_authority() {
        let port = |authority: &str| port_of(&Uri::builder().authority(authority).build().unwrap());
        assert_eq!(port("localhost:8000"), Some(8000));
        assert_eq!(port("localhost:65535"), Some(65535));
        for other in
            ["localhost", "localhost:0", "127.0.0.1:8000", "example.com:80", "user@localhost.:80", "localhost:"]
        {
            assert_eq!(port(other), None, "{other}");
        }
    }
}
