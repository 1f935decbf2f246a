//! A virtio-serial port as a series of async connections.
//!
//! The kernel's port device answers `read` with 0 and `poll` with HUP while the host side is closed, and wakes pollers when that
//! changes (drivers/char/virtio_console.c). tokio never forgets a hang-up that it saw on a registration, so each connection
//! registers the device anew, and waiting for the next host happens on an epoll instance of its own, edge-triggered.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub struct Port {
    device: Arc<File>,
}

impl Port {
    /// Opens the port that QEMU calls `name`, found through sysfs. It can be opened only once.
    pub fn open(name: &str) -> io::Result<Self> {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            let port_name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if port_name.trim_end() == name {
                let device = std::path::Path::new("/dev").join(entry.file_name());
                let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
                return Ok(Self { device: Arc::new(file) });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio-serial port is named {name}")))
    }

    /// Waits until the host side is open. At most one connection may exist at a time.
    pub async fn accept(&self) -> io::Result<Connection> {
        let device = self.device.clone();
        tokio::task::spawn_blocking(move || wait_for_host(&device)).await.map_err(io::Error::other)??;
        // SAFETY: the registration shares ownership of the open file and is dropped before the next one is made.
        let device = unsafe { AsyncFd::register(self.device.clone())? };
        Ok(Connection { device })
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

/// The stream from one opening of the host side to its closing.
pub struct Connection {
    device: AsyncFd<Arc<File>>,
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.device.poll_read_ready(context))?;
            let hung_up = guard.ready().is_read_closed();
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|device| (&**device.get_ref()).read(unfilled)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                // Nothing to read after a hang-up: another host has opened the port already. This connection is over.
                Err(_would_block) if hung_up => return Poll::Ready(Ok(())),
                Err(_would_block) => continue,
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The device stays open for the next connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
