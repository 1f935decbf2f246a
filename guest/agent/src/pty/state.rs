//! What the parts of one PTY share: the scrollback, how far it may be read, who views it, what was typed, how it ended.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::ring::{KEPT_BYTES, Ring};
use super::terminal::{Master, Size};
use super::typed::Typed;
use crate::error::{AgentError, Result};
use crate::proto::{PtyInfo, PtyOpen};
use crate::reaper::Ended;

const MAX_VIEWERS: usize = 16;
pub struct Pty {
    pub id: String,
    /// Of the program, and the number of its session.
    pub pid: i32,
    pub user: String,
    pub args: Vec<String>,
    pub linger_ms: u32,
    created_unix_ms: u64,
    state: Mutex<State>,
    /// Something happened that a viewer may wait for.
    changes: watch::Sender<()>,
    /// Something happened that the pump waits for: room, typed text, a viewer that left.
    wake: Notify,
    presence: watch::Sender<Presence>,
}

pub struct State {
    pub ring: Ring,
    pub size: Size,
    pub ended: Option<Ended>,
    pub ended_at: Option<Instant>,
    /// The program has ended and the scrollback has all that it wrote.
    pub drained: bool,
    /// The newest offset that a viewer which holds has acknowledged.
    floor: u64,
    viewers: usize,
    /// No longer in the list: for its viewers only.
    forgotten: bool,
    typed: Typed,
    /// Until it is drained.
    master: Option<Arc<Master>>,
}

/// For the linger time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Viewed,
    Alone(Instant),
    Forgotten,
}

/// What the pump may do now.
pub struct Work {
    pub room: usize,
    pub has_typed: bool,
    /// No one is there, or can come, to take the rest.
    pub abandoned: bool,
}

/// How a viewer begins.
pub struct Entrance {
    pub offset: u64,
    pub size: Size,
    pub info: PtyInfo,
}

/// Who started what, for the list.
pub struct Description {
    pub id: String,
    pub user: String,
    pub args: Vec<String>,
    pub linger_ms: u32,
    pub size: Size,
}

impl Pty {
    pub fn new(description: Description, pid: i32, master: Arc<Master>) -> Self {
        let Description { id, user, args, linger_ms, size } = description;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            ring: Ring::default(),
            size,
            ended: None,
            ended_at: None,
            drained: false,
            floor: 0,
            viewers: 0,
            forgotten: false,
            typed: Typed::default(),
            master: Some(master),
        };
        Self {
            id,
            pid,
            user,
            args,
            linger_ms,
            created_unix_ms: since_epoch.as_millis() as u64,
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
            wake: Notify::new(),
            presence: watch::Sender::new(Presence::Alone(Instant::now())),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    pub fn info(&self) -> PtyInfo {
        self.describe(&self.lock())
    }

    fn describe(&self, state: &State) -> PtyInfo {
        PtyInfo {
            id: self.id.clone(),
            pid: self.pid,
            alive: state.ended.is_none(),
            exit_code: state.ended.map_or(0, |ended| ended.code),
            exit_signal: state.ended.map_or(0, |ended| ended.signal),
            cols: state.size.cols.into(),
            rows: state.size.rows.into(),
            start_offset: state.ring.start(),
            end_offset: state.ring.end(),
            viewers: state.viewers as u32,
            linger_ms: self.linger_ms,
            user: self.user.clone(),
            args: self.args.clone(),
            created_unix_ms: self.created_unix_ms,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.lock().ended.is_none()
    }

    /// Waits for the end of the program.
    pub async fn ended(&self) {
        let mut changes = self.changes();
        while self.is_alive() && changes.changed().await.is_ok() {}
    }

    // ------------------------------------------------------------------------------------------------ viewers

    /// Errors: `pty_not_found`, `too_many_viewers`.
    pub fn enter(&self, open: &PtyOpen) -> Result<Entrance> {
        let mut state = self.lock();
        if state.forgotten {
            return Err(super::not_found(&self.id));
        }
        if state.viewers >= MAX_VIEWERS {
            return Err(AgentError::new(
                "too_many_viewers",
                format!("the PTY has {MAX_VIEWERS} viewers already; detach some"),
            ));
        }
        state.viewers += 1;
        self.presence.send_replace(Presence::Viewed);
        let (start, end) = (state.ring.start(), state.ring.end());
        let offset = if open.from_start { start } else { open.offset.clamp(start, end) };
        let entrance = Entrance { offset, size: state.size, info: self.describe(&state) };
        drop(state);
        if open.hold {
            // Whoever begins here has, or does not want, what is before.
            self.acknowledge(offset);
        }
        Ok(entrance)
    }

    pub fn leave(&self) {
        let mut state = self.lock();
        state.viewers -= 1;
        if state.viewers == 0 && !state.forgotten {
            self.presence.send_replace(Presence::Alone(Instant::now()));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A viewer that holds has every byte before `offset`.
    pub fn acknowledge(&self, offset: u64) {
        let mut state = self.lock();
        if offset > state.floor {
            state.floor = offset;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// From now on it is for its viewers only, and ends with them. With `if_alone`, only when it has none.
    /// Returns whether it is so.
    pub fn forget(&self, if_alone: bool) -> bool {
        let mut state = self.lock();
        if if_alone && state.viewers > 0 {
            return false;
        }
        state.forgotten = true;
        self.presence.send_replace(Presence::Forgotten);
        drop(state);
        self.wake.notify_one();
        true
    }

    // ----------------------------------------------------------------------------------------------- terminal

    /// `None` when the program has ended.
    pub fn foreground_group(&self) -> Option<i32> {
        let state = self.lock();
        let master = state.master.as_ref().filter(|_| state.ended.is_none())?;
        Some(master.foreground_group()).filter(|group| *group > 1)
    }

    /// Of a terminal whose program has ended nothing changes.
    pub fn resize(&self, size: Size) -> Result<PtyInfo> {
        let mut state = self.lock();
        if let Some(master) = state.master.as_ref().filter(|_| state.ended.is_none()) {
            master.set_size(size).map_err(|error| AgentError::new("io_error", format!("resizing: {error}")))?;
            state.size = size;
        }
        let info = self.describe(&state);
        drop(state);
        self.changes.send_replace(());
        Ok(info)
    }

    /// Never blocks; what the terminal does not take waits for the pump.
    /// Errors: `pty_input_full`.
    pub fn type_in(&self, bytes: &[u8]) -> Result<()> {
        let state = &mut *self.lock();
        let Some(master) = &state.master else { return Ok(()) };
        state.typed.add(master, bytes)?;
        if !state.typed.is_empty() {
            self.wake.notify_one();
        }
        Ok(())
    }

    // --------------------------------------------------------------------------------------------------- pump

    /// Waits for a reason to ask for [`work`](Self::work) again that is none of the terminal's.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn work(&self) -> Work {
        let state = self.lock();
        Work {
            room: state.room(),
            has_typed: !state.typed.is_empty(),
            abandoned: state.forgotten && state.viewers == 0,
        }
    }

    /// Adds output and returns the room left. Viewers hear of it by [`publish`](Self::publish).
    pub fn push(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        state.ring.push(bytes);
        state.room()
    }

    pub fn publish(&self) {
        self.changes.send_replace(());
    }

    pub fn write_typed(&self, master: &Master) -> io::Result<()> {
        self.lock().typed.flush(master)
    }

    pub fn set_ended(&self, ended: Ended) {
        let mut state = self.lock();
        state.ended = Some(ended);
        state.ended_at = Some(Instant::now());
        drop(state);
        self.publish();
    }

    /// All output is in the scrollback; the terminal is given back.
    pub fn set_drained(&self) {
        let mut state = self.lock();
        state.drained = true;
        state.master = None;
        state.typed = Typed::default();
        drop(state);
        self.publish();
    }
}

impl State {
    /// How much may be read before a viewer that holds would lose something.
    fn room(&self) -> usize {
        (self.floor + KEPT_BYTES as u64).saturating_sub(self.ring.end()) as usize
    }
}
