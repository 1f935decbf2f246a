//! The SYNC/ACKN exchange of spec/agent.proto: finds where the host's connection begins in a stream that may still carry bytes of
//! an earlier one.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const SYNC: &[u8; 16] = b"INSTAVM-SYNC-01\n";
pub const ACKN: &[u8; 16] = b"INSTAVM-ACKN-01\n";
pub const NONCE_BYTES: usize = 16;

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

/// Reads up to and with the host's SYNC, discards what precedes it, and answers. HTTP/2 follows.
/// Nothing of HTTP/2 can follow in the same read: the host sends none before it has the ACKN.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut scanner = Scanner::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let nonce = buffer[..count].iter().filter_map(|byte| scanner.push(*byte)).last();
        if let Some(nonce) = nonce {
            let mut answer = [0; ACKN.len() + NONCE_BYTES];
            answer[..ACKN.len()].copy_from_slice(ACKN);
            answer[ACKN.len()..].copy_from_slice(&nonce);
            stream.write_all(&answer).await?;
            return stream.flush().await;
        }
    }
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
}
