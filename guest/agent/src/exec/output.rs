//! The reading end of an output pipe: bytes as they come, then only what was written before the end, then nothing but patience.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

const CHUNK_BYTES: usize = 128 * 1024;
/// Less room than this and the next read gets a new buffer.
const LEAST_ROOM: usize = 16 * 1024;
/// A discarded pipe gets this many reads, then a pause: a child that writes without end cannot keep the agent busy.
const DISCARD_READS: usize = 16;
const DISCARD_PAUSE: Duration = Duration::from_millis(10);

pub struct Output {
    pipe: pipe::Receiver,
    open: bool,
    buffer: BytesMut,
    /// Set at the end: what was in the pipe then.
    left: Option<usize>,
}

impl Output {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(fd)?, open: true, buffer: BytesMut::new(), left: None })
    }

    /// Waits for bytes, and takes them; `None` is a spurious wake-up. For ever pending once the pipe is closed.
    pub async fn next(&mut self) -> Option<Bytes> {
        if !self.open || self.pipe.readable().await.is_err() {
            self.open = false;
            std::future::pending::<()>().await;
        }
        self.take()
    }

    /// What is in the pipe now. `None`: nothing, or closed.
    pub fn take(&mut self) -> Option<Bytes> {
        if !self.open || self.left == Some(0) {
            return None;
        }
        if self.buffer.capacity() < LEAST_ROOM {
            self.buffer = BytesMut::with_capacity(CHUNK_BYTES);
        }
        let read = match self.left {
            None => self.pipe.try_read_buf(&mut self.buffer),
            Some(left) => self.read_now(left),
        };
        match read {
            Ok(0) => self.open = false,
            Ok(count) => {
                self.left = self.left.map(|left| left - count);
                return Some(self.buffer.split().freeze());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.open = false,
        }
        None
    }

    /// Asks the kernel and not tokio, which answers "would block" until its driver has seen the bytes: the end of a process may be
    /// noticed before its last output.
    fn read_now(&mut self, limit: usize) -> io::Result<usize> {
        let room = self.buffer.spare_capacity_mut();
        let length = room.len().min(limit);
        // SAFETY: the kernel writes at most `length` bytes into the spare capacity, and only what it wrote becomes part of the buffer.
        unsafe {
            let count = libc::read(self.pipe.as_raw_fd(), room.as_mut_ptr().cast(), length);
            if count < 0 {
                return Err(io::Error::last_os_error());
            }
            self.buffer.set_len(self.buffer.len() + count as usize);
            Ok(count as usize)
        }
    }

    /// From here on only what is in the pipe already is taken: a background child may hold it open, and write, for ever.
    pub fn end(&mut self) {
        let mut available: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        let result = unsafe { libc::ioctl(self.pipe.as_raw_fd(), libc::FIONREAD, &mut available) };
        self.left = Some(if result == 0 { available as usize } else { 0 });
    }

    /// Undoes [`end`](Self::end), for a pipe that outlives what ran.
    pub fn resume(&mut self) {
        self.left = None;
    }

    /// Keeps the pipe open and throws away what comes until its last writer has gone, so that a server left in the background does
    /// not die of a log line. Without a permit the pipe is closed instead.
    pub fn discard(self, permits: &Arc<Semaphore>) {
        let Ok(permit) = permits.clone().try_acquire_owned() else { return };
        if !self.open {
            return;
        }
        tokio::spawn(async move {
            let mut nowhere = [0; 4096];
            while self.pipe.readable().await.is_ok() {
                for _ in 0..DISCARD_READS {
                    match self.pipe.try_read(&mut nowhere) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(_) => return,
                    }
                }
                tokio::time::sleep(DISCARD_PAUSE).await;
            }
            drop(permit);
        });
    }
}
