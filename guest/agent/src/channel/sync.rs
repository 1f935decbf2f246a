//! The SYNC/ACKN exchange of spec/agent.proto: finds where the host's connection begins in a stream that may still carry bytes of
//! an earlier one.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const SYNC: &[u8; 16] = b"INSTAVM-SYNC-01\n";
pub const ACKN: &[u8; 16] = b"INSTAVM-ACKN-01\n";
pub const NONCE_BYTES: usize = 16;
/// RFC 9113 §3.4.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds a SYNC frame in bytes that arrive in pieces of any size.
#[derive(Default)]
pub struct Scanner {
    /// Bytes of SYNC matched so far, then the nonce; never longer than a frame.
    matched: Vec<u8>,
}

impl Scanner {
    /// Takes one byte; the nonce when it completes a frame.
    pub fn push(&mut self, byte: u8) -> Option<[u8; NONCE_BYTES]> {
        if self.matched.len() < SYNC.len() {
            if byte == SYNC[self.matched.len()] {
                self.matched.push(byte);
            } else {
                // 'I' stands only at the start of SYNC and in "INSTAVM"'s head, so no longer partial match can be lost.
                self.matched.clear();
                if byte == SYNC[0] {
                    self.matched.push(byte);
                }
            }
            return None;
        }
        self.matched.push(byte);
        if self.matched.len() < SYNC.len() + NONCE_BYTES {
            return None;
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.matched[SYNC.len()..]);
        self.matched.clear();
        Some(nonce)
    }
}

/// Where a connection stands after its bytes so far. Sans I/O; the host decides what comes.
#[derive(Default)]
pub struct Opening {
    scanner: Scanner,
    /// What followed the answered SYNC; `None` before one was seen, or when it was no beginning of HTTP/2.
    head: Option<Vec<u8>>,
}

/// What the agent must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Read,
    /// Answer this nonce. A later one replaces it.
    Answer([u8; NONCE_BYTES]),
    /// HTTP/2 has begun, with these bytes.
    Serve(Vec<u8>),
}

impl Opening {
    pub fn push(&mut self, bytes: &[u8]) -> Next {
        let mut answer = None;
        for byte in bytes {
            if let Some(head) = &mut self.head {
                head.push(*byte);
            }
            if let Some(nonce) = self.scanner.push(*byte) {
                answer = Some(nonce);
                self.head = Some(Vec::new());
            }
        }
        if let Some(nonce) = answer {
            return Next::Answer(nonce);
        }
        match &mut self.head {
            Some(head) if head.starts_with(PREFACE) => Next::Serve(std::mem::take(head)),
            Some(head) if PREFACE.starts_with(head) => Next::Read,
            _ => {
                // A host that gave up and came again: its SYNC is on its way through the scanner.
                self.head = None;
                Next::Read
            }
        }
    }
}

/// Reads up to and with the host's SYNC, discards what precedes it, answers, and waits for the beginning of HTTP/2, which it returns. A
/// SYNC in that place comes from a host that gave the first one up, and is answered in its turn.
/// `early` is what was read before.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, early: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut opening = Opening::default();
    let mut buffer = [0; 4096];
    let mut next = opening.push(&early);
    loop {
        match next {
            Next::Read => {
                let count = stream.read(&mut buffer).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                next = opening.push(&buffer[..count]);
            }
            Next::Answer(nonce) => {
                answer(stream, nonce).await?;
                // Nothing follows before the ACKN, by contract; a host that was hasty is served all the same.
                next = opening.push(&[]);
            }
            Next::Serve(head) => return Ok(head),
        }
    }
}

/// As [`accept`], for the channel on which the guest speaks first after the exchange. Returns what the host has sent since: another
/// host's SYNC, if one came meanwhile.
pub async fn accept_to_speak<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, early: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut scanner = Scanner::default();
    let mut bytes = early;
    let mut buffer = [0; 4096];
    loop {
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(nonce) = scanner.push(*byte) {
                answer(stream, nonce).await?;
                return Ok(bytes.split_off(at + 1));
            }
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = buffer[..count].to_vec();
    }
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, nonce: [u8; NONCE_BYTES]) -> io::Result<()> {
    let mut bytes = [0; ACKN.len() + NONCE_BYTES];
    bytes[..ACKN.len()].copy_from_slice(ACKN);
    bytes[ACKN.len()..].copy_from_slice(&nonce);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_found_behind_any_bytes_that_do_not_themselves_begin_one(
            stale in proptest::collection::vec(any::<u8>(), 0..300),
            nonce in any::<[u8; NONCE_BYTES]>(),
        ) {
            prop_assume!(!stale.windows(SYNC.len()).any(|window| window == SYNC));
            let mut scanner = Scanner::default();
            let found: Vec<_> = stale.iter().chain(SYNC).chain(&nonce).filter_map(|byte| scanner.push(*byte)).collect();
            prop_assert_eq!(found, vec![nonce]);
        }
    }

    #[test]
    fn a_frame_cut_off_by_a_new_frame_is_not_mistaken_for_it() {
        let mut scanner = Scanner::default();
        let bytes = [&SYNC[..9], SYNC, &[7; 16]].concat();
        assert_eq!(bytes.iter().filter_map(|byte| scanner.push(*byte)).collect::<Vec<_>>(), vec![[7; 16]]);
    }

    #[test]
    fn http2_begins_at_the_preface_after_the_last_answered_sync() {
        let mut opening = Opening::default();
        assert_eq!(opening.push(&[b"stale", &SYNC[..], &[1; 16]].concat()), Next::Answer([1; 16]));
        assert_eq!(opening.push(&SYNC[..5]), Next::Read, "another host came instead of the preface");
        assert_eq!(opening.push(&[&SYNC[5..], &[2; 16]].concat()), Next::Answer([2; 16]));
        assert_eq!(opening.push(&PREFACE[..10]), Next::Read);
        let rest = [&PREFACE[10..], b"frames"].concat();
        assert_eq!(opening.push(&rest), Next::Serve([&PREFACE[..], b"frames"].concat()));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_and_cut_never_begin_http2_without_a_sync(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut opening = Opening::default();
            for piece in pieces {
                prop_assert!(!matches!(opening.push(&piece), Next::Serve(_)));
                prop_assert!(opening.head.is_none());
            }
        }
    }
}
