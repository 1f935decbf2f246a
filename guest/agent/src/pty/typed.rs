//! What was typed and the terminal has not taken yet.

use std::collections::VecDeque;
use std::io;

use super::terminal::Master;
use crate::error::{AgentError, Result};

/// What may be typed ahead of a program that does not read. A viewer that goes on is dropped: its acknowledgements come on the same
/// stream, behind what it types, so to stop reading that could stop the program's output for ever.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// More than this gives its memory back once the program has it.
const KEPT_CAPACITY: usize = 4096;

#[derive(Default)]
pub struct Typed {
    waiting: VecDeque<u8>,
}

impl Typed {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes at once what the terminal takes and keeps the rest, in order. Never blocks.
    /// Errors: `pty_input_full`.
    pub fn add(&mut self, master: &Master, bytes: &[u8]) -> Result<()> {
        // A terminal that takes nothing, for whatever reason, leaves all to `flush`.
        let taken = if self.is_empty() { master.write(bytes).unwrap_or(0) } else { 0 };
        let rest = &bytes[taken..];
        if self.waiting.len() + rest.len() > MAX_WAITING_BYTES {
            return Err(AgentError::new(
                "pty_input_full",
                format!(
                    "the program does not read what is typed, and {} bytes wait for it already",
                    self.waiting.len()
                ),
            ));
        }
        self.waiting.extend(rest);
        Ok(())
    }

    /// Writes until nothing waits or the terminal takes no more (`WouldBlock`).
    pub fn flush(&mut self, master: &Master) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let count = master.write(self.waiting.as_slices().0)?;
            self.waiting.drain(..count);
        }
        self.waiting.shrink_to(KEPT_CAPACITY);
        Ok(())
    }
}
