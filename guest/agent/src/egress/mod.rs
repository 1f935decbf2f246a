//! The guest's network: an ordinary one to its programs, a stream of requests to the host's gateway (design D3, D4).
//!
//! [`network`] leads every packet that would leave here. A DNS query is answered with [synthetic addresses](pool); a SYN waits in the
//! [`queue`] until the [`gateway`] has allowed the name behind its address; then its connection is [relayed](crate::relay). This side
//! enforces nothing: whoever is root here can break the guest's own network, and no more.

mod dns;
mod flows;
mod gateway;
pub mod network;
mod packet;
mod pool;
mod queue;
mod sockets;

use std::io;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, UdpSocket};

use self::dns::Server;
use self::flows::Flows;
use self::gateway::Gateway;
use self::network::{DNS_PORT, FLOW_PORT, loopback};
use self::packet::Packet;
use self::pool::{CAPACITY, Pool};
use self::queue::Queue;
use crate::channel::port::{Channel, Port};

const DNS: u16 = 53;

/// Takes over what [`network::configure`] leads here, for as long as the microVM lives.
pub async fn start() -> io::Result<()> {
    let gateway = Gateway::default();
    let pool = Arc::new(Mutex::new(Pool::new(CAPACITY)));
    let dns = Server::new(gateway.clone(), pool.clone());
    let flows = Flows::new(gateway.clone(), pool);
    for address in loopback(DNS) {
        let (udp, tcp) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
        tokio::spawn(dns.clone().serve_udp(udp));
        tokio::spawn(dns.clone().serve_tcp(tcp));
    }
    for address in loopback(DNS_PORT) {
        tokio::spawn(dns.clone().serve_tcp(sockets::listen_transparent(address)?));
    }
    for address in loopback(FLOW_PORT) {
        let (listener, flows) = (sockets::listen_transparent(address)?, flows.clone());
        tokio::spawn(async move { sockets::accept_for_ever(&listener, |program| flows.accepted(program)).await });
    }
    let queue = Queue::open()?;
    tokio::spawn(async move {
        if let Err(error) = take_packets(queue, flows, dns).await {
            eprintln!("instavm-agent: no network any more: {error}");
        }
    });
    let port = Port::open(Channel::Egress)?;
    tokio::spawn(async move {
        if let Err(error) = gateway.serve(&port).await {
            eprintln!("instavm-agent: the egress port: {error}");
        }
    });
    Ok(())
}

async fn take_packets(queue: Queue, flows: Flows, dns: Server) -> io::Result<()> {
    loop {
        let held = queue.next().await?;
        match packet::parse(held.packet()) {
            Some(Packet::Syn { ends, sequence }) => flows.syn(held, ends, sequence),
            // The datagram itself goes no further.
            Some(Packet::Datagram { ends, payload }) => dns.datagram(ends, payload.to_vec()),
            None => {}
        }
    }
}
