//! The sockets of the DNS server: UDP and TCP on both loopback addresses, and whatever a program sends to port 53 of any other address.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer;
use super::question::{Question, Transport};
use crate::egress::gateway::{Gateway, LOOKUP_DEADLINE, MAX_LOOKUPS};
use crate::egress::packet::Ends;
use crate::egress::pool::Pool;
use crate::egress::sockets::{accept_for_ever, set_transparent};

/// Larger queries are cut, and then malformed.
const MAX_UDP_QUERY: usize = 1232;
const MAX_TCP_QUERY: usize = 4096;
/// RFC 7766 §6.2.3: an idle connection need not be kept.
const TCP_IDLE: Duration = Duration::from_secs(10);
const MAX_TCP_CLIENTS: usize = 64;
/// Two for each of the connections that there may be, one a family.
const MAX_WAITING: usize = 2048;

#[derive(Clone)]
pub struct Server {
    gateway: Gateway,
    pool: Arc<Mutex<Pool>>,
    lookups: Arc<Semaphore>,
    /// Look-ups under way, and those that wait for one to end.
    places: Arc<Semaphore>,
    tcp_clients: Arc<Semaphore>,
}

impl Server {
    pub fn new(gateway: Gateway, pool: Arc<Mutex<Pool>>) -> Self {
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        Self { gateway, pool, lookups, places, tcp_clients: Arc::new(Semaphore::new(MAX_TCP_CLIENTS)) }
    }

    /// `None` when the bytes deserve no answer.
    pub async fn respond(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match Question::parse(query, transport) {
            Ok(question) => question,
            Err(answer) => return answer,
        };
        let own_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        if let Some(answer) = answer::local(&question, own_name.trim_end(), &self.pool) {
            return Some(answer);
        }
        // Hundreds of programs that ask at once get their turns; a flood beyond that waits for no room that the gateway does not have.
        let Ok(_place) = self.places.try_acquire() else { return Some(answer::failure(&question)) };
        let Ok(Ok(_permit)) = timeout(LOOKUP_DEADLINE, self.lookups.acquire()).await else {
            return Some(answer::failure(&question));
        };
        let lookup = self.gateway.look_up(question.query()?).await;
        Some(answer::from_gateway(&question, lookup, &self.pool, Instant::now()))
    }

    /// Serves UDP on a loopback address.
    pub async fn serve_udp(self, socket: UdpSocket) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = [0; MAX_UDP_QUERY];
        loop {
            // An error is a client's that has gone (ICMP); the next call is another's.
            let Ok((count, client)) = socket.recv_from(&mut buffer).await else { continue };
            let (server, socket, query) = (self.clone(), socket.clone(), buffer[..count].to_vec());
            tokio::spawn(async move {
                if let Some(answer) = server.respond(&query, Transport::Udp).await {
                    // The client may have gone meanwhile.
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
    }

    /// Serves TCP on a socket that listens.
    pub async fn serve_tcp(self, listener: TcpListener) {
        accept_for_ever(&listener, |stream| {
            let Ok(permit) = self.tcp_clients.clone().try_acquire_owned() else { return };
            let server = self.clone();
            tokio::spawn(async move {
                let _permit = permit;
                // However it ends, the client sees its connection close.
                let _ = server.serve_client(stream).await;
            });
        })
        .await;
    }

    async fn serve_client(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut query = vec![0; MAX_TCP_QUERY];
        loop {
            let length = usize::from(timeout(TCP_IDLE, stream.read_u16()).await??);
            let query = query.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            timeout(TCP_IDLE, stream.read_exact(query)).await??;
            let answer = self.respond(query, Transport::Tcp).await.ok_or(io::ErrorKind::InvalidData)?;
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            timeout(TCP_IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// Answers a query that was sent to another server, in that server's name.
    pub fn datagram(&self, ends: Ends, query: Vec<u8>) {
        let server = self.clone();
        tokio::spawn(async move {
            let Some(answer) = server.respond(&query, Transport::Udp).await else { return };
            if let Err(error) = send_from(ends.destination, ends.program, &answer) {
                eprintln!("instavm-agent: an answer of {} was not sent: {error}", ends.destination);
            }
        });
    }
}

fn send_from(server: SocketAddr, program: SocketAddr, answer: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
    set_transparent(&socket, server.is_ipv4())?;
    // Answers of one server to several programs may be under way at once.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(server))?;
    socket.send_to(answer, &SockAddr::from(program)).map(|_| ())
}
