//! Serves the agent's services, and tunnels to programs of the guest, over one connection after another.

use std::io;
use std::path::Path;

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;

use super::framed::{Framed, NextHost};
use super::port::{Port, host_left};
use super::tunnel::{MAX_TUNNELS, Tunnels};
use super::{grpc, sync};

/// A stalled stream may hold this much; 64 of them do not exhaust the connection's window.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
const MAX_FRAME: u32 = 256 * 1024;
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What one stream may have waiting for its turn. A keystroke comes behind so much of every bulk transfer that is under way, and the agent's
/// memory is bounded by this times [`MAX_STREAMS`].
const SEND_BUFFER: usize = 64 * 1024;
/// The execs that a sandbox may run at once (256), the [viewers](crate::pty::MAX_VIEWERS) of its PTYs (512), its tunnels, and room for
/// everything else: a stream that finds no place would wait without a word.
pub const MAX_STREAMS: u32 = 1024 + MAX_TUNNELS as u32;

/// Serves hosts that connect to the port, one at a time, for as long as the microVM lives.
pub async fn serve_port(port: Port, routes: Routes) -> io::Result<()> {
    let next_host = NextHost::default();
    loop {
        let early = next_host.take();
        let mut connection = if early.is_some() { port.next_on_same_stream().await? } else { port.accept().await? };
        match sync::accept(&mut connection, early.unwrap_or_default()).await {
            // The host went away before or during the exchange.
            Err(error) if host_left(&error) => continue,
            Err(error) => return Err(error),
            Ok(head) => serve_http2(Framed::new(head, connection, next_host.clone()), routes.clone()).await,
        }
    }
}

/// Serves on a Unix socket as an ordinary process: for tests of the services without a microVM.
pub async fn serve_unix(path: &Path, routes: Routes) -> io::Result<()> {
    let listener = tokio::net::UnixListener::bind(path)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let routes = routes.clone();
        tokio::spawn(async move {
            if let Ok(head) = sync::accept(&mut stream, Vec::new()).await {
                serve_http2(Framed::new(head, stream, NextHost::default()), routes).await;
            }
        });
    }
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: Framed<S>, routes: Routes) {
    let (link, tunnels) = (stream.link(), Tunnels::default());
    let served = async {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(MAX_STREAMS)
            // Visitors of a preview give up by the hundred, and what they gave up is forgotten as fast as the host sends it. The limits are
            // against a hostile peer, and the host is none.
            .max_concurrent_reset_streams(MAX_STREAMS as usize)
            .max_pending_accept_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None)
            .handshake(stream)
            .await?;
        while let Some(accepted) = connection.accept().await {
            let (request, answer) = accepted?;
            if request.method() == Method::CONNECT {
                tokio::spawn(tunnels.clone().open(request, answer));
            } else {
                tokio::spawn(grpc::serve(routes.clone(), link.clone(), request, answer));
            }
        }
        Ok::<_, h2::Error>(())
    };
    if let Err(error) = served.await {
        // A host that vanished is ordinary; the line helps when it is not.
        eprintln!("instavm-agent: connection ended: {error}");
    }
}
