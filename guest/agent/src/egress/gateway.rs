//! The guest's side of the egress channel: HTTP/2 with prior knowledge, in which the host's gateway is the server. One `CONNECT` stream for
//! each flow (RFC 9113 §8.5), one `POST /dns-query` for each look-up (RFC 8484).
//!
//! Without a host every request fails at once; the next host's SYNC brings them back.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};

use super::packet::Unreachable;
use crate::channel::framed::{Framed, NextHost};
use crate::channel::port::{Connection, Port, host_left};
use crate::channel::sync;
use crate::relay::Flow;

/// What a channel that carries 100 MB/s holds in 10 ms, and little enough that 63 stalled programs do not stop the others.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
const MAX_FRAME: u32 = 256 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
const MAX_HEADER_LIST: u32 = 8 * 1024;
/// Together the gateway's limit of streams.
pub const MAX_FLOWS: usize = 1024;
pub const MAX_LOOKUPS: usize = 64;
/// A look-up that takes longer failed; `options timeout` of resolv.conf is longer still.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
const MAX_DNS_MESSAGE: usize = 65_535;
const REASON: &str = "instavm-reason";

/// How a connection fails in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `ECONNREFUSED`: denied, refused by its destination, or too many.
    Refused,
    Unreachable(Unreachable),
}

/// What the gateway knows of a name.
pub struct Lookup {
    pub message: Bytes,
    /// No rule allows the name; nobody was asked.
    pub denied: bool,
}

#[derive(Clone, Default)]
pub struct Gateway(Arc<Mutex<Option<SendRequest<Bytes>>>>);

impl Gateway {
    /// Asks for a connection to `authority`, `host:port`. Waits for as long as the gateway tries; dropping the future gives it up.
    pub async fn connect(&self, authority: &str) -> Result<Flow, Refusal> {
        const LOST: Refusal = Refusal::Unreachable(Unreachable::Network);
        let request = Request::builder().method(Method::CONNECT).uri(authority).body(());
        let mut sender = self.sender().await.ok_or(LOST)?;
        // A name that is no authority is no host's.
        let request = request.map_err(|_| Refusal::Unreachable(Unreachable::Host))?;
        let (response, to_host) = sender.send_request(request, false).map_err(|_| LOST)?;
        drop(sender);
        let mut flow = Asked { to_host: Some(to_host) };
        let response = response.await.map_err(|error| if error.is_reset() { Refusal::Refused } else { LOST })?;
        if let Some(refusal) = refusal(&response) {
            return Err(refusal);
        }
        let to_host = flow.to_host.take().ok_or(LOST)?;
        Ok(Flow { to_host, from_host: response.into_body() })
    }

    /// Relays a DNS query. `None` when no answer came.
    pub async fn look_up(&self, query: Vec<u8>) -> Option<Lookup> {
        tokio::time::timeout(LOOKUP_DEADLINE, self.ask(query)).await.ok().flatten()
    }

    async fn ask(&self, query: Vec<u8>) -> Option<Lookup> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://gateway/dns-query")
            .header("content-type", "application/dns-message")
            .body(())
            .ok()?;
        let mut sender = self.sender().await?;
        let (response, mut body) = sender.send_request(request, false).ok()?;
        drop(sender);
        body.send_data(query.into(), true).ok()?;
        let response = response.await.ok()?;
        let denied = response.headers().get(REASON).is_some_and(|reason| reason == "egress_denied");
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut message = BytesMut::new();
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.ok()?;
            body.flow_control().release_capacity(chunk.len()).ok()?;
            if message.len() + chunk.len() > MAX_DNS_MESSAGE {
                return None;
            }
            message.extend_from_slice(&chunk);
        }
        Some(Lookup { message: message.freeze(), denied })
    }

    async fn sender(&self) -> Option<SendRequest<Bytes>> {
        let sender = self.current().clone();
        sender?.ready().await.ok()
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Serves hosts that connect to the port, one at a time, for as long as the microVM lives.
    pub async fn serve(&self, port: &Port) -> io::Result<()> {
        let next_host = NextHost::default();
        loop {
            let early = next_host.take();
            let mut connection =
                if early.is_some() { port.next_on_same_stream().await? } else { port.accept().await? };
            match sync::accept_to_speak(&mut connection, early.unwrap_or_default()).await {
                // The host went away before or during the exchange.
                Err(error) if host_left(&error) => {}
                Err(error) => return Err(error),
                Ok(head) => self.speak(Framed::from_server(head, connection, next_host.clone())).await,
            }
        }
    }

    async fn speak(&self, stream: Framed<Connection>) {
        let connected = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            .initial_max_send_streams(MAX_FLOWS + MAX_LOOKUPS)
            // Flows that programs gave up; what the gateway still sends on one is no mistake of its.
            .max_concurrent_reset_streams(MAX_FLOWS)
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake(stream)
            .await;
        let ended = match connected {
            Ok((sender, connection)) => {
                *self.current() = Some(sender);
                let ended = connection.await;
                *self.current() = None;
                ended
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended.map_err(|error| error.to_string()) {
            // A host that vanished is ordinary; the line helps when it is not.
            eprintln!("instavm-agent: egress connection ended: {error}");
        }
    }
}

/// A CONNECT that is given up before it was answered is reset, so that the gateway gives up too.
struct Asked {
    to_host: Option<SendStream<Bytes>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.to_host {
            stream.send_reset(Reason::CANCEL);
        }
    }
}

fn refusal(response: &Response<RecvStream>) -> Option<Refusal> {
    if response.status().is_success() {
        return None;
    }
    let reason = response.headers().get(REASON).map(|value| value.as_bytes());
    Some(match reason {
        // TCP has no message that means ETIMEDOUT; "no route to host" is the nearest that comes at once.
        Some(b"connect_timeout" | b"name_not_found" | b"unreachable") => Refusal::Unreachable(Unreachable::Host),
        _ => Refusal::Refused,
    })
}
