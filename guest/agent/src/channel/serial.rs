//! A virtio-serial port as a series of async connections.
//!
//! The kernel's port device answers `read` with 0 and `poll` with HUP while the host side is closed, and wakes pollers when that
//! changes (drivers/char/virtio_console.c). tokio never forgets a hang-up that it saw on a registration, so each connection
//! registers the device anew, and waiting for the next host happens on an epoll instance of its own, edge-triggered.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub struct SerialPort {
    device: Arc<File>,
}

impl SerialPort {
    /// Opens the port that QEMU calls `name`, found through sysfs; `None` when there is none. It can be opened only once.
    pub fn open(name: &str) -> io::Result<Option<Self>> {
        // The class is not there before the first device is.
        for entry in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten() {
            let entry = entry?;
            let port_name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if port_name.trim_end() == name {
                let device = std::path::Path::new("/dev").join(entry.file_name());
                let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
                return Ok(Some(Self { device: Arc::new(file) }));
            }
        }
        Ok(None)
    }

    /// Waits until the host side is open. At most one connection may exist at a time.
    pub async fn accept(&self) -> io::Result<SerialConnection> {
        let device = self.device.clone();
        tokio::task::spawn_blocking(move || wait_for_host(&device)).await.map_err(io::Error::other)??;
        self.connection()
    }

    /// As [`accept`](Self::accept), for a host that is known to be there.
    pub fn connection(&self) -> io::Result<SerialConnection> {
        // SAFETY: the registration shares ownership of the open file and is dropped before the next one is made.
        let device = unsafe { AsyncFd::register(self.device.clone())? };
        Ok(SerialConnection { device, joined: Vec::with_capacity(WRITE_BYTES) })
    }
}

fn wait_for_host(device: &File) -> io::Result<()> {
    // SAFETY: no preconditions; the descriptor is checked before it is owned.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
    // SAFETY: open descriptors and a valid event.
    if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, device.as_raw_fd(), &mut event) } != 0 {
        return Err(io::Error::last_os_error());
    }
    loop {
        let mut poll = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, no timeout: returns at once.
        unsafe { libc::poll(&mut poll, 1, 0) };
        if poll.revents & libc::POLLHUP == 0 {
            return Ok(());
        }
        // A change between the poll and this wait is an edge that the wait still reports.
        // SAFETY: room for one event.
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, -1) };
    }
}

/// What the driver takes at once: one buffer of this size per write, each with a notification of the host (`port_fops_write`).
const WRITE_BYTES: usize = 32 * 1024;

/// The stream from one opening of the host side to its closing.
pub struct SerialConnection {
    device: AsyncFd<Arc<File>>,
    /// Where small pieces of one vectored write are joined.
    joined: Vec<u8>,
}

impl SerialConnection {
    fn poll_write_bytes(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.device.poll_write_ready(context))?;
            let hung_up = guard.ready().is_write_closed();
            match guard.try_io(|device| (&**device.get_ref()).write(bytes)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) if hung_up => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_would_block) => continue,
            }
        }
    }
}

impl AsyncRead for SerialConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // The driver hands out one page per read; a caller that has room gets several.
        while buffer.remaining() > 0 {
            let mut guard = match self.device.poll_read_ready(context) {
                Poll::Ready(guard) => guard?,
                Poll::Pending if buffer.filled().len() > before => break,
                Poll::Pending => return Poll::Pending,
            };
            let hung_up = guard.ready().is_read_closed();
            match guard.try_io(|device| read_into(device.get_ref(), buffer)) {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) if buffer.filled().len() == before => return Poll::Ready(Err(error)),
                // What was read comes first; the error is still there the next time.
                Ok(Err(_)) => break,
                // Nothing to read after a hang-up: another host has opened the port already. This connection is over.
                Err(_would_block) if hung_up => break,
                Err(_would_block) if buffer.filled().len() > before => break,
                Err(_would_block) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads into the unfilled part without clearing it first: with a page per read, that would cost more than the read.
fn read_into(device: &File, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the given length into the unfilled part; only what it wrote is declared initialized.
    unsafe {
        let room = buffer.unfilled_mut();
        let count = libc::read(device.as_raw_fd(), room.as_mut_ptr().cast(), room.len());
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        buffer.assume_init(count as usize);
        buffer.advance(count as usize);
        Ok(count as usize)
    }
}

impl AsyncWrite for SerialConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(context, bytes)
    }

    /// Joins a frame's header and its data, which would else be two buffers and two notifications.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        for piece in pieces {
            let room = WRITE_BYTES - joined.len();
            joined.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let written = self.poll_write_bytes(context, &joined);
        self.joined = joined;
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The device stays open for the next connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
