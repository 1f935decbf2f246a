//! A virtio-serial port as an async byte stream.
//!
//! The kernel's port device answers `read` with 0 and `poll` with HUP while the host side is closed, and wakes pollers when that
//! changes (drivers/char/virtio_console.c). So an end of file is reported once to the HTTP/2 layer, and `wait_for_host` sleeps until the
//! next edge instead of spinning on HUP.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Cloning shares the one open device: it can be opened only once.
#[derive(Clone)]
pub struct Port {
    device: Arc<AsyncFd<File>>,
}

impl Port {
    /// Opens the port that QEMU calls `name`, found through sysfs.
    pub fn open(name: &str) -> io::Result<Self> {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            let port_name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if port_name.trim_end() == name {
                let device = std::path::Path::new("/dev").join(entry.file_name());
                let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
                // SAFETY: the AsyncFd owns the file for its whole life and never hands it out mutably.
                let device = unsafe { AsyncFd::register(file)? };
                return Ok(Self { device: Arc::new(device) });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio-serial port is named {name}")))
    }

    /// Resolves when the host side is open. The poll is repeated after readiness is cleared, so no change between the two is lost.
    pub async fn wait_for_host(&self) -> io::Result<()> {
        loop {
            let mut poll = libc::pollfd {
                fd: std::os::fd::AsRawFd::as_raw_fd(self.device.get_ref()),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd, no timeout: returns at once.
            let count = unsafe { libc::poll(&mut poll, 1, 0) };
            if count == 0 || poll.revents & libc::POLLHUP == 0 {
                return Ok(());
            }
            self.device.readable().await?.clear_ready();
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.device.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|device| device.get_ref().read(unfilled)) {
                Ok(Ok(0)) => {
                    guard.clear_ready();
                    return Poll::Ready(Ok(()));
                }
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => continue,
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.device.poll_write_ready(context))?;
            // The driver copies into one kmalloc'ed buffer of at most 32 KiB per call.
            match guard.try_io(|device| device.get_ref().write(bytes)) {
                Ok(result) => return Poll::Ready(result),
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
