//! One host's HTTP/2 on a stream that outlives it: begins with bytes that were read already, and ends where the next host's SYNC begins.
//!
//! A host may go and another come before the guest looks: then no end of file lies between the two. But a SYNC at a frame's border cannot be
//! mistaken for a frame, whose length would be "INS", far above any that was agreed on (RFC 9113 §4.1, §4.2).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::HostLink;
use super::sync::{PREFACE, SYNC};

const FRAME_HEADER_BYTES: usize = 9;
/// Of a frame's length, and of what tells a SYNC from it.
const LENGTH_BYTES: usize = 3;

/// Follows the frames of HTTP/2.
pub struct Frames {
    /// Of the preface at first, then of the current frame.
    payload_left: usize,
    header: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { payload_left: PREFACE.len(), header: Vec::with_capacity(FRAME_HEADER_BYTES) }
    }
}

impl Frames {
    /// How many of these bytes belong to HTTP/2, and, when that is not all, the beginning of the SYNC after them. A piece of it that came
    /// with earlier bytes is part of what is returned.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.payload_left.min(bytes.len() - at);
            self.payload_left -= skipped;
            at += skipped;
            while self.payload_left == 0 && at < bytes.len() {
                self.header.push(bytes[at]);
                at += 1;
                if self.header.len() == LENGTH_BYTES && self.header == SYNC[..LENGTH_BYTES] {
                    let ours = at.saturating_sub(LENGTH_BYTES);
                    let sync = [&std::mem::take(&mut self.header)[..], &bytes[at..]].concat();
                    return (ours, Some(sync));
                }
                if self.header.len() == FRAME_HEADER_BYTES {
                    self.payload_left = usize::from(self.header[0]) << 16
                        | usize::from(self.header[1]) << 8
                        | usize::from(self.header[2]);
                    self.header.clear();
                }
            }
        }
        (bytes.len(), None)
    }
}

/// What the next host has said already.
#[derive(Clone, Default)]
pub struct NextHost(Arc<Mutex<Option<Vec<u8>>>>);

impl NextHost {
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn set(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(bytes);
    }
}

pub struct Framed<S> {
    head: Vec<u8>,
    stream: S,
    frames: Frames,
    over: bool,
    next_host: NextHost,
    link: HostLink,
}

impl<S> Framed<S> {
    /// `head` begins with the preface. What a next host says is left in `next_host`.
    pub fn new(head: Vec<u8>, stream: S, next_host: NextHost) -> Self {
        Self { head, stream, frames: Frames::default(), over: false, next_host, link: HostLink::default() }
    }

    /// As [`new`](Self::new) when the host is the server: its first bytes are a frame's, or the next host's SYNC.
    pub fn from_server(head: Vec<u8>, stream: S, next_host: NextHost) -> Self {
        let frames = Frames { payload_left: 0, ..Frames::default() };
        Self { frames, ..Self::new(head, stream, next_host) }
    }

    /// Lost as soon as the stream is, before HTTP/2 hears of it.
    pub fn link(&self) -> HostLink {
        self.link.clone()
    }

    fn noticed<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.link.lose();
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if self.head.is_empty() {
            let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
            self.noticed(read)?;
            if buffer.filled().len() == before && buffer.remaining() > 0 {
                self.link.lose();
            }
        } else {
            let count = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head[..count]);
            self.head.drain(..count);
        }
        let (ours, sync) = self.frames.push(&buffer.filled()[before..]);
        if let Some(sync) = sync {
            buffer.set_filled(before + ours);
            let rest = std::mem::take(&mut self.head);
            self.next_host.set([sync, rest].concat());
            self.over = true;
            self.link.lose();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.over {
            // These bytes were for the host that has gone.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        written.map(|result| self.noticed(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        written.map(|result| self.noticed(result))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[1..], &[0, 0, 0, 0, 0, 1], payload].concat()
    }

    proptest! {
        #[test]
        fn a_sync_after_any_frames_cut_anywhere_is_found_and_one_inside_a_frame_is_not(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
            cut in 1usize..40,
        ) {
            let quoted = [SYNC.to_vec(), SYNC.to_vec()].concat();
            let frames: Vec<u8> = payloads.iter().chain([&quoted]).flat_map(|payload| frame(payload)).collect();
            let ours = [&PREFACE[..], &frames].concat();
            let all = [&ours[..], SYNC, b"nonce"].concat();
            let (mut tracker, mut passed, mut next) = (Frames::default(), 0, None);
            for piece in all.chunks(cut) {
                if let Some(sync) = &mut next {
                    Vec::extend_from_slice(sync, piece);
                    continue;
                }
                let (count, sync) = tracker.push(piece);
                passed += count;
                next = sync;
            }
            prop_assert_eq!(next, Some([&SYNC[..], b"nonce"].concat()));
            // Up to two bytes of the SYNC may have gone to HTTP/2 before they could be told apart.
            prop_assert!((ours.len()..ours.len() + LENGTH_BYTES).contains(&passed));
        }
    }
}
