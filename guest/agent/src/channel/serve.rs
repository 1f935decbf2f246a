//! Serves the agent's services over one connection after another.

use std::io;
use std::path::Path;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;

use super::framed::{Framed, NextHost};
use super::port::Port;
use super::sync;

/// A stalled stream may hold this much; 64 of them do not exhaust the connection's window.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
const MAX_FRAME: u32 = 256 * 1024;
/// What one stream holds for a slow reader. The agent's memory is bounded by this times [`MAX_STREAMS`].
const SEND_BUFFER: usize = 512 * 1024;
/// The execs that a sandbox may run at once (256), the [viewers](crate::pty::MAX_VIEWERS) of its PTYs (512), and room for everything
/// else: a stream that finds no place would wait without a word.
pub const MAX_STREAMS: u32 = 1024;

/// Serves hosts that connect to the port, one at a time, for as long as the microVM lives.
pub async fn serve_port(port: Port, routes: Routes) -> io::Result<()> {
    let next_host = NextHost::default();
    loop {
        let early = next_host.take();
        let mut connection = if early.is_some() { port.connection()? } else { port.accept().await? };
        match sync::accept(&mut connection, early.unwrap_or_default()).await {
            // The host went away before or during the exchange.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => continue,
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
    let (link, service) = (stream.link(), TowerToHyperService::new(routes));
    let linked = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(link.clone());
        service.call(request)
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), linked)
        .await;
    if let Err(error) = served {
        // A host that vanished is ordinary; the line helps when it is not.
        eprintln!("instavm-agent: connection ended: {error}");
    }
}
