//! One PTY: a program on a terminal, its scrollback, and what its viewers share.
//!
//! One task reads the terminal, one writes what was typed, one awaits the program. The terminal is read only while less than
//! [`KEPT_BYTES`] lie beyond the floor, the newest offset that a holding viewer has acknowledged: a flood that nobody takes stops in
//! the kernel, and what such a viewer has not got is still in the ring.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, oneshot, watch};

use super::ring::{KEPT_BYTES, Ring};
use super::terminal::{self, Master, Size, Slave};
use crate::accounts::find_user;
use crate::error::{AgentError, Result};
use crate::exec::{ExecContext, signal_group, spawn};
use crate::proto::{PtyCreateRequest, PtyInfo};
use crate::reaper::Ended;

const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };
const DEFAULT_TERM: &str = "xterm-256color";
const READ_BYTES: usize = 64 * 1024;
/// Typed and not yet taken by the terminal. A viewer that goes beyond is ended: to stop reading it would hold up its acknowledgements,
/// and with them the program that has to take the input.
const MAX_INPUT_BYTES: usize = 4 * 1024 * 1024;
const MAX_VIEWERS: u32 = 16;
/// More than the kernel holds of a terminal's output (tty_buffer.c: 64 KiB, and the line discipline's page). What background processes
/// write after the end of the program is not its output, and may never end.
const LAST_OUTPUT_BYTES: usize = 256 * 1024;
/// From the polite signals to the one that cannot be ignored.
const KILL_GRACE: Duration = Duration::from_millis(200);

pub struct Pty {
    id: String,
    args: Vec<String>,
    user: String,
    pid: i32,
    linger_ms: u32,
    created_unix_ms: u64,
    master: Master,
    state: Mutex<State>,
    /// Viewers wait for changes of the state here.
    changed: watch::Sender<()>,
    /// The floor rose.
    room: Notify,
    typed: Notify,
    viewers_changed: Notify,
    ended: watch::Sender<Option<Ended>>,
}

pub struct State {
    pub ring: Ring,
    floor: u64,
    pub size: Size,
    /// All output is in the ring, or will never be.
    pub drained: bool,
    input: VecDeque<Bytes>,
    input_bytes: usize,
    viewers: u32,
}

impl Pty {
    pub fn start(context: &ExecContext, request: &PtyCreateRequest) -> Result<Arc<Self>> {
        let size = size_of(request.cols, request.rows)?;
        let user = find_user(&request.user)?;
        let [program, arguments @ ..] = &request.args[..] else {
            return Err(AgentError::new("invalid_request", "args is empty: name a program"));
        };
        if program.is_empty() || request.args.iter().any(|argument| argument.contains('\0')) {
            return Err(AgentError::new("invalid_request", "an argument is empty or holds a NUL byte"));
        }
        let mut env: HashMap<String, String> = spawn::environment(context, &user, &request.env)?;
        env.entry("TERM".into()).or_insert_with(|| DEFAULT_TERM.into());
        let cwd = spawn::working_directory(&request.cwd, &user)?;
        let (master, slave) = terminal::open(size, &user).map_err(|error| AgentError::io("a terminal", &error))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&env).current_dir(&cwd);
        slave.attach(&mut command, context, &user).map_err(|error| AgentError::io("the terminal", &error))?;
        let (child, ended) = context.reaper.spawn(&mut command).map_err(|error| spawn::spawn_error(program, &error))?;
        // The command holds copies of the other end.
        drop(command);
        let pty = Arc::new(Self {
            id: request.id.clone(),
            args: request.args.clone(),
            user: user.name,
            pid: child.id() as i32,
            linger_ms: request.linger_ms,
            created_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
            master,
            state: Mutex::new(State {
                ring: Ring::default(),
                floor: 0,
                size,
                drained: false,
                input: VecDeque::new(),
                input_bytes: 0,
                viewers: 0,
            }),
            changed: watch::Sender::new(()),
            room: Notify::new(),
            typed: Notify::new(),
            viewers_changed: Notify::new(),
            ended: watch::Sender::new(None),
        });
        tokio::spawn(await_end(pty.clone(), ended));
        tokio::spawn(read_terminal(pty.clone(), slave));
        tokio::spawn(write_terminal(pty.clone()));
        Ok(pty)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// How the program ended, once it has.
    pub fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    pub fn info(&self) -> PtyInfo {
        let ended = self.ended();
        let state = self.state();
        PtyInfo {
            id: self.id.clone(),
            pid: self.pid,
            alive: ended.is_none(),
            exit_code: ended.map_or(0, |ended| ended.code),
            exit_signal: ended.map_or(0, |ended| ended.signal),
            cols: state.size.cols.into(),
            rows: state.size.rows.into(),
            start_offset: state.ring.start(),
            end_offset: state.ring.end(),
            viewers: state.viewers,
            linger_ms: self.linger_ms,
            user: self.user.clone(),
            args: self.args.clone(),
            created_unix_ms: self.created_unix_ms,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Told of every change that a viewer may have to show.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Errors: `invalid_request` for a size that no terminal has.
    pub fn resize(&self, cols: u32, rows: u32) -> Result<()> {
        let size = size_of(cols, rows)?;
        let mut state = self.state();
        if state.size == size {
            return Ok(());
        }
        self.master.set_size(size).map_err(|error| AgentError::io("the window size", &error))?;
        state.size = size;
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// To the foreground process group, or to every process of the session. Nothing is left to signal after the end.
    pub fn signal(&self, signal: i32, session: bool) -> Result<()> {
        if !(1..=libc::SIGRTMAX()).contains(&signal) {
            return Err(AgentError::new("invalid_request", format!("there is no signal {signal}")));
        }
        if session {
            signal_all(&session_members(self.pid), signal);
        } else if self.is_alive() {
            let group = self.master.foreground_group();
            signal_group(if group > 1 { group } else { self.pid }, signal);
        }
        Ok(())
    }

    /// Hands typed bytes to the terminal, in order. Errors: `input_limit`.
    pub fn type_in(&self, mut bytes: Bytes) -> Result<()> {
        let mut state = self.state();
        if state.input.is_empty() {
            // The usual keystroke goes through without another task.
            while let Ok(count) = self.master.write(&bytes) {
                bytes.advance(count);
                if bytes.is_empty() {
                    return Ok(());
                }
            }
        }
        if !self.is_alive() {
            return Ok(());
        }
        if state.input_bytes + bytes.len() > MAX_INPUT_BYTES {
            return Err(AgentError::new(
                "input_limit",
                format!("more than {MAX_INPUT_BYTES} bytes were typed that the program has not read"),
            ));
        }
        state.input_bytes += bytes.len();
        state.input.push_back(bytes);
        drop(state);
        self.typed.notify_one();
        Ok(())
    }

    /// A holding viewer has every byte before `offset`.
    pub fn raise_floor(&self, offset: u64) {
        let mut state = self.state();
        if offset > state.floor {
            state.floor = offset;
            self.room.notify_one();
        }
    }

    /// Errors: `too_many_viewers`.
    pub fn add_viewer(&self) -> Result<()> {
        let mut state = self.state();
        if state.viewers >= MAX_VIEWERS {
            return Err(AgentError::new("too_many_viewers", format!("{MAX_VIEWERS} viewers are attached to this PTY")));
        }
        state.viewers += 1;
        drop(state);
        self.viewers_changed.notify_one();
        Ok(())
    }

    pub fn remove_viewer(&self) {
        self.state().viewers -= 1;
        self.viewers_changed.notify_one();
    }

    /// Resolves when there was no viewer for this long without a break.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let has_viewers = self.state().viewers > 0;
            if has_viewers {
                self.viewers_changed.notified().await;
            } else if tokio::time::timeout(time, self.viewers_changed.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Ends every process of the session; resolves when the program is gone. What is still unread is given up.
    pub async fn end(&self) {
        self.raise_floor(u64::MAX);
        let members = session_members(self.pid);
        signal_all(&members, libc::SIGHUP);
        // A stopped process does not see the hang-up before it goes on.
        signal_all(&members, libc::SIGCONT);
        let mut ended = self.ended.subscribe();
        let program = ended.wait_for(Option::is_some);
        let gone = tokio::time::timeout(KILL_GRACE, program).await.is_ok() && session_members(self.pid).is_empty();
        if !gone {
            signal_all(&session_members(self.pid), libc::SIGKILL);
        }
        let _ = ended.wait_for(Option::is_some).await;
    }
}

fn size_of(cols: u32, rows: u32) -> Result<Size> {
    let side = |given: u32, default: u16| if given == 0 { Ok(default) } else { u16::try_from(given) };
    match (side(cols, DEFAULT_SIZE.cols), side(rows, DEFAULT_SIZE.rows)) {
        (Ok(cols), Ok(rows)) => Ok(Size { cols, rows }),
        _ => Err(AgentError::new("invalid_request", format!("no terminal has {cols} columns and {rows} rows"))),
    }
}

/// Processes whose session has this leader, zombies not among them; they may be in several process groups.
fn session_members(leader: i32) -> Vec<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return vec![] };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): pid (comm) state ppid pgrp session; comm may hold anything, also parentheses.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().take(4).collect();
        matches!(fields[..], [state, _, _, session] if state != "Z" && session.parse() == Ok(leader))
    })
    .collect()
}

fn signal_all(pids: &[i32], signal: i32) {
    for pid in pids {
        // SAFETY: two integers; the pid is a process's, above 1, for the agent is in no session of a PTY.
        unsafe { libc::kill(*pid, signal) };
    }
}

async fn await_end(pty: Arc<Pty>, ended: oneshot::Receiver<Ended>) {
    let lost = Ended { code: 255, signal: 0, cpu_time_us: 0 };
    pty.ended.send_replace(Some(ended.await.unwrap_or(lost)));
    pty.typed.notify_one();
}

/// `slave` is held while the program lives: one that closes its terminal for a moment must not look like one that has ended.
async fn read_terminal(pty: Arc<Pty>, slave: Slave) {
    let mut slave = Some(slave);
    let mut ended = pty.ended.subscribe();
    let mut buffer = vec![0; READ_BYTES];
    let mut last = LAST_OUTPUT_BYTES;
    loop {
        let room = wait_for_room(&pty).await.min(READ_BYTES);
        let over = ended.borrow().is_some();
        let read = if over {
            slave = None;
            // The end may be noticed before tokio has seen the last bytes, so the kernel is asked.
            read_all(&pty.master, &mut buffer[..room.min(last)])
        } else {
            tokio::select! {
                read = pty.master.when_readable(|| read_all(&pty.master, &mut buffer[..room])) => read,
                _ = ended.changed() => continue,
            }
        };
        match read {
            Ok(count) if count > 0 => {
                pty.state().ring.push(&buffer[..count]);
                pty.changed.send_replace(());
                last -= if over { count } else { 0 };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !over => {}
            _ if over => break,
            // Nobody else has the other end, which is held here: not to be expected, and not to be spun on.
            _ => {
                let _ = ended.wait_for(Option::is_some).await;
            }
        }
    }
    drop(slave);
    pty.state().drained = true;
    pty.changed.send_replace(());
}

async fn wait_for_room(pty: &Pty) -> usize {
    loop {
        let held = {
            let state = pty.state();
            state.ring.end().saturating_sub(state.floor)
        };
        if held < KEPT_BYTES as u64 {
            return KEPT_BYTES - held as usize;
        }
        pty.room.notified().await;
    }
}

/// As much as there is and the buffer takes: the kernel hands out a page at a time. `WouldBlock`: nothing.
fn read_all(master: &Master, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match master.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(count)
}

/// Writes what the terminal did not take at once.
async fn write_terminal(pty: Arc<Pty>) {
    while pty.is_alive() {
        let waiting = pty.state().input.front().cloned();
        let Some(bytes) = waiting else {
            pty.typed.notified().await;
            continue;
        };
        let mut ended = pty.ended.subscribe();
        let written = tokio::select! {
            written = pty.master.when_writable(|| pty.master.write(&bytes)) => written,
            _ = ended.wait_for(Option::is_some) => return,
        };
        let mut state = pty.state();
        match written {
            Ok(count) => {
                state.input_bytes -= count;
                if let Some(front) = state.input.front_mut() {
                    front.advance(count);
                    if front.is_empty() {
                        state.input.pop_front();
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                state.input.clear();
                state.input_bytes = 0;
            }
        }
    }
}
