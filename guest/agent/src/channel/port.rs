//! A channel to the host as a series of connections: a virtio-serial port on QEMU, a vsock port on Firecracker.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::serial::{SerialConnection, SerialPort};
use super::vsock::{VsockConnection, VsockPort};

#[derive(Clone, Copy, Debug)]
pub enum Channel {
    Control,
    Egress,
}

impl Channel {
    /// The name of its virtio-serial port.
    const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Egress => "egress",
        }
    }

    /// Its vsock port (spec/agent.proto). Below 1024, so that an ordinary user of the sandbox cannot listen there.
    const fn number(self) -> u32 {
        match self {
            Self::Control => 10,
            Self::Egress => 11,
        }
    }
}

pub enum Port {
    Serial(SerialPort),
    Vsock(VsockPort),
}

impl Port {
    /// Must be called on the runtime.
    pub fn open(channel: Channel) -> io::Result<Self> {
        if let Some(serial) = SerialPort::open(channel.name())? {
            return Ok(Self::Serial(serial));
        }
        if !has_vsock_device() {
            let what = format!("this machine has neither a port named {} nor a vsock device", channel.name());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        VsockPort::listen(channel.number()).map(Self::Vsock)
    }

    /// Waits for a host. At most one connection may exist at a time.
    pub async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Serial(port) => port.accept().await.map(Connection::Serial),
            Self::Vsock(port) => port.accept().await.map(Connection::Vsock),
        }
    }

    /// As [`accept`](Self::accept), for a host that has begun to speak on the connection before.
    pub async fn next_on_same_stream(&self) -> io::Result<Connection> {
        match self {
            Self::Serial(port) => port.connection().map(Connection::Serial),
            // A vsock connection belongs to one host.
            Self::Vsock(port) => port.accept().await.map(Connection::Vsock),
        }
    }
}

/// Whether this is how a connection fails when its host has gone, before or while it is served.
pub fn host_left(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// The listener would be made without one, too, and wait in vain.
fn has_vsock_device() -> bool {
    let bound = std::fs::read_dir("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport");
    bound.into_iter().flatten().flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"virtio"))
}

/// The stream to one host.
pub enum Connection {
    Serial(SerialConnection),
    Vsock(VsockConnection),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Vsock(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Serial(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Vsock(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Serial(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Vsock(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Serial(stream) => stream.is_write_vectored(),
            Self::Vsock(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(stream) => Pin::new(stream).poll_flush(context),
            Self::Vsock(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
