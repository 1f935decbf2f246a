//! The one reader of a terminal: moves what the program writes into the scrollback, in bursts, as far as viewers that hold allow, and
//! what was typed ahead into the terminal. Knows when all output is there after the program's end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::state::Pty;
use super::terminal::{Master, Slave};
use crate::processors;
use crate::reaper::Ended;

/// The kernel's largest read from a terminal.
const READ_BYTES: usize = 4096;
/// Read at one go, before viewers are told and others get their turn.
const BURST_BYTES: usize = 64 * 1024;
/// Bursts of a flood, before anything else of the terminal gets its turn.
const FLOOD_BURSTS: usize = 4;
/// How long processes that the program left behind on its terminal are listened to.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// More than a terminal holds (64 KiB on its way, one page to be read): what comes after this was written after the program's end.
const TERMINAL_HOLDS: usize = 128 * 1024;

/// Until the program ends. `slave` is held so long: without any opener the master would be at its end, which it may yet not be.
pub async fn run(pty: &Arc<Pty>, master: &Arc<Master>, slave: Slave, mut ended: oneshot::Receiver<Ended>) {
    let mut is_open = true;
    loop {
        let work = pty.work();
        tokio::select! {
            result = &mut ended => {
                let lost = Ended { code: 255, signal: 0, cpu_time_us: 0 };
                pty.set_ended(result.unwrap_or(lost));
                drop(slave);
                return;
            }
            read = master.when_readable(|| read_burst(pty, master).1), if is_open && work.room > 0 => {
                if read.is_ok() {
                    read_flood(pty.clone(), master.clone()).await;
                }
                // Not open: someone hung the terminal up under the program (vhangup(2)).
                is_open = read.is_ok_or_waits();
            }
            written = master.when_writable(|| pty.write_typed(master)), if is_open && work.has_typed => {
                is_open = written.is_ok_or_waits();
            }
            () = pty.woken() => {}
        }
    }
}

/// After the program's end: until all that it wrote is in the scrollback. That is at once, unless a viewer holds, or a process in the
/// background has the terminal open.
pub async fn finish(pty: &Arc<Pty>, master: &Master) {
    let deadline = Instant::now() + LAST_WORDS;
    let mut since_end = 0;
    loop {
        // Not tokio's opinion but the kernel's, which moves what is on its way before it answers.
        let (count, result) = read_burst(pty, master);
        since_end += count;
        let is_late = Instant::now() >= deadline;
        match result {
            Ok(()) if pty.work().room == 0 => {
                if pty.work().abandoned {
                    break;
                }
                pty.woken().await;
            }
            Ok(()) if is_late && since_end >= TERMINAL_HOLDS => break,
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_late => {
                let wait = master.when_readable(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                drop(tokio::time::timeout_at(deadline, wait).await);
            }
            Err(_) => break,
        }
    }
    pty.set_drained();
}

/// Each read of a flood waits for the kernel to bring the next page. That is for a thread of its own: those of the runtime meanwhile
/// send what was read before.
async fn read_flood(pty: Arc<Pty>, master: Arc<Master>) {
    let read = move || {
        processors::stay();
        for _ in 0..FLOOD_BURSTS {
            if read_burst(&pty, &master).1.is_err() || pty.work().room == 0 {
                return;
            }
        }
    };
    // Only the end of the runtime cuts it short.
    drop(tokio::task::spawn_blocking(read).await);
}

/// Reads until there is no more (`WouldBlock`), no room, or enough for one go. Returns how much, too.
fn read_burst(pty: &Pty, master: &Master) -> (usize, io::Result<()>) {
    let mut buffer = [0; READ_BYTES];
    let mut room = pty.work().room;
    let mut count = 0;
    let result = loop {
        if room == 0 || count >= BURST_BYTES {
            break Ok(());
        }
        match master.read(&mut buffer[..room.min(READ_BYTES)]) {
            Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                room = pty.push(&buffer[..length]);
                count += length;
            }
            Err(error) => break Err(error),
        }
    };
    if count > 0 {
        pty.publish();
    }
    (count, result)
}

trait Waits {
    fn is_ok_or_waits(&self) -> bool;
}

impl Waits for io::Result<()> {
    fn is_ok_or_waits(&self) -> bool {
        self.as_ref().err().is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
