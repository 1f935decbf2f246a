//! A vsock port as a series of connections, of which the latest counts.
//!
//! A microVM that was restored has lost its connections, but a program that waits to read from one is not always told: the kernel reports
//! the reset as an error alone (`virtio_vsock_reset_sock`), for which tokio wakes no reader. And a host may be accepted just before the reset.
//! So every new host ends the connection of the one before.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

pub struct VsockPort {
    /// The latest host and its number, until it is served.
    waiting: Arc<Mutex<Option<(u64, VsockStream)>>>,
    /// The number of the latest host. Closed when no more can come.
    arrivals: watch::Receiver<u64>,
}

impl VsockPort {
    pub fn listen(number: u32) -> io::Result<Self> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, number))?;
        let waiting = Arc::new(Mutex::new(None));
        let (latest, arrivals) = watch::channel(0);
        let place = waiting.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // A program of the sandbox may connect where it likes; only the host is served.
                    Ok((_, peer)) if peer.cid() != VMADDR_CID_HOST => {}
                    Ok((stream, _)) => {
                        let number = *latest.borrow() + 1;
                        *place.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((number, stream));
                        latest.send_replace(number);
                    }
                    // One that came and went.
                    Err(error) if super::port::host_left(&error) => {}
                    Err(error) => {
                        eprintln!("instavm-agent: the vsock port {number}: {error}");
                        return;
                    }
                }
            }
        });
        Ok(Self { waiting, arrivals })
    }

    pub async fn accept(&self) -> io::Result<VsockConnection> {
        let mut arrivals = self.arrivals.clone();
        loop {
            arrivals.mark_unchanged();
            let waiting = self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            if let Some((number, stream)) = waiting {
                let replaced = Box::pin(async move {
                    // An error says that no other will come.
                    if arrivals.wait_for(|latest| *latest > number).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                });
                return Ok(VsockConnection { stream, replaced, is_replaced: false });
            }
            arrivals.changed().await.map_err(|_| io::Error::other("the port is closed"))?;
        }
    }
}

/// The stream to one host; ends when another comes.
pub struct VsockConnection {
    stream: VsockStream,
    replaced: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_replaced: bool,
}

impl AsyncRead for VsockConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        self.is_replaced = self.is_replaced || self.replaced.as_mut().poll(context).is_ready();
        // Reads nothing, which is the end.
        if self.is_replaced { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for VsockConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
