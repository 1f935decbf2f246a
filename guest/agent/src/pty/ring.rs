//! The scrollback of one PTY: its newest bytes, addressed by their offset in all that was ever written. Memory grows with use, in
//! blocks, and stops at [`KEPT_BYTES`].

/// How much of the output is kept.
pub const KEPT_BYTES: usize = 1024 * 1024;
/// The kernel hands out a terminal's output in pieces of at most this much.
const BLOCK_BYTES: usize = 4096;

#[derive(Default)]
pub struct Ring {
    blocks: Vec<Box<[u8; BLOCK_BYTES]>>,
    end: u64,
}

impl Ring {
    /// Of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(KEPT_BYTES as u64)
    }

    /// Of the next byte that will be written.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds bytes at the end, in place of the oldest when there is no more room.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (block, within) = place_of(self.end);
            if block == self.blocks.len() {
                self.blocks.push(Box::new([0; BLOCK_BYTES]));
            }
            let count = bytes.len().min(BLOCK_BYTES - within);
            self.blocks[block][within..within + count].copy_from_slice(&bytes[..count]);
            self.end += count as u64;
            bytes = &bytes[count..];
        }
    }

    /// At most `limit` bytes from `offset` on, which must not lie before [`start`](Self::start).
    pub fn read(&self, offset: u64, limit: usize) -> Vec<u8> {
        debug_assert!(offset >= self.start());
        let mut left = limit.min(self.end.saturating_sub(offset) as usize);
        let mut bytes = Vec::with_capacity(left);
        while left > 0 {
            let (block, within) = place_of(offset + bytes.len() as u64);
            let count = left.min(BLOCK_BYTES - within);
            bytes.extend_from_slice(&self.blocks[block][within..within + count]);
            left -= count;
        }
        bytes
    }
}

/// The block that holds the byte at `offset`, and where in it.
fn place_of(offset: u64) -> (usize, usize) {
    let place = (offset % KEPT_BYTES as u64) as usize;
    (place / BLOCK_BYTES, place % BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_grows_with_use_and_stops_at_the_bound() {
        let mut ring = Ring::default();
        assert_eq!(ring.blocks.len(), 0);
        ring.push(b"$ ");
        assert_eq!(ring.blocks.len(), 1);
        for _ in 0..3000 {
            ring.push(&[b'x'; 1000]);
        }
        assert_eq!(ring.blocks.len() * BLOCK_BYTES, KEPT_BYTES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_reads_as_the_end_of_all_that_was_written(
            pieces in proptest::collection::vec((any::<u8>(), 0usize..200_000), 0..24),
            reads in proptest::collection::vec((0usize..KEPT_BYTES + 10, 0usize..70_000), 0..24),
        ) {
            let (mut ring, mut all) = (Ring::default(), Vec::new());
            for (seed, length) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| seed.wrapping_mul(31).wrapping_add((at % 251) as u8)).collect();
                ring.push(&piece);
                all.extend(piece);
            }
            prop_assert_eq!((ring.start() as usize, ring.end() as usize), (all.len().saturating_sub(KEPT_BYTES), all.len()));
            for (back, limit) in reads {
                let offset = all.len().saturating_sub(back).max(ring.start() as usize);
                let expected = &all[offset..(offset + limit).min(all.len())];
                prop_assert!(ring.read(offset as u64, limit) == expected);
            }
        }
    }
}
