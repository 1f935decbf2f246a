//! Terminals that outlive their viewers. `terminal` opens one and starts the program on it, `ring` keeps the output, `pump` moves the
//! bytes, `typed` holds those not taken yet, `viewer` follows the output, `state` is what these share, `session` ends the processes.
//! This file keeps the list.

mod pump;
mod ring;
mod session;
mod state;
mod terminal;
mod typed;
mod utf8;
mod viewer;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::Status;

use crate::accounts::find_user;
use crate::error::{AgentError, Result};
use crate::exec::{ExecContext, signal_group, spawn};
use crate::files::blocking;
use crate::proto::{PtyAttachRequest, PtyCreateRequest, PtyInfo, PtyOpen, PtyResizeRequest, PtySignalRequest};
use state::{Description, Presence, Pty};
use terminal::Size;
pub use viewer::Events;

const MAX_LIVE: usize = 64;
/// Ended ones that are remembered; the one that ended first gives way.
const MAX_ENDED: usize = 64;
/// Of all PTYs together, so that they leave streams of the connection to everything else.
pub const MAX_VIEWERS: usize = 512;
const MAX_ID_LENGTH: usize = 128;
const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };
const DEFAULT_TERM: &str = "xterm-256color";

/// All PTYs of the sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Ptys {
    exec: ExecContext,
    list: Arc<Mutex<List>>,
    /// Held while a program is being started.
    starting: Arc<tokio::sync::Mutex<()>>,
    viewers: Arc<Semaphore>,
}

#[derive(Default)]
struct List {
    /// In the order of their creation.
    ptys: Vec<Arc<Pty>>,
}

fn lock(list: &Mutex<List>) -> MutexGuard<'_, List> {
    list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn not_found(id: &str) -> AgentError {
    AgentError::new("pty_not_found", format!("no PTY {id:?}"))
}

fn check_id(id: &str) -> Result<()> {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=MAX_ID_LENGTH).contains(&id.len()) && id.bytes().all(is_usual) {
        return Ok(());
    }
    Err(AgentError::new("invalid_request", format!("the id of a PTY is 1 to {MAX_ID_LENGTH} of [A-Za-z0-9._:-]")))
}

fn size_of(cols: u32, rows: u32) -> Result<Size> {
    match (u16::try_from(cols), u16::try_from(rows)) {
        (Ok(cols @ 1..), Ok(rows @ 1..)) => Ok(Size { cols, rows }),
        _ => Err(AgentError::new("invalid_request", format!("{cols} columns, {rows} rows: each is 1 to 65535"))),
    }
}

impl Ptys {
    pub fn new(exec: ExecContext) -> Self {
        Self { exec, list: Arc::default(), starting: Arc::default(), viewers: Arc::new(Semaphore::new(MAX_VIEWERS)) }
    }

    /// Starts the program.
    /// Errors: `invalid_request`, `pty_exists`, `too_many_ptys`, and those of [`spawn::spawn`].
    pub async fn create(&self, request: PtyCreateRequest) -> std::result::Result<PtyInfo, Status> {
        // Processes are started one after another in any case; only one of the waiting needs a thread.
        let turn = self.starting.clone().lock_owned().await;
        let ptys = self.clone();
        blocking(move || {
            let pty = ptys.start(request)?;
            drop(turn);
            Ok(pty.info())
        })
        .await
    }

    fn start(&self, request: PtyCreateRequest) -> Result<Arc<Pty>> {
        check_id(&request.id)?;
        let or = |asked: u32, usual: u16| if asked == 0 { usual.into() } else { asked };
        let size = size_of(or(request.cols, DEFAULT_SIZE.cols), or(request.rows, DEFAULT_SIZE.rows))?;
        self.check_room(&request.id)?;
        let pty = self.spawn(request, size)?;
        let mut list = lock(&self.list);
        list.remove(&pty.id);
        list.ptys.push(pty.clone());
        list.forget_oldest();
        drop(list);
        if pty.linger_ms > 0 {
            tokio::spawn(linger(self.clone(), pty.clone()));
        }
        Ok(pty)
    }

    fn check_room(&self, id: &str) -> Result<()> {
        let live = self.live();
        if live.iter().any(|pty| pty.id == id) {
            return Err(AgentError::new("pty_exists", format!("a PTY {id:?} is running already")));
        }
        if live.len() >= MAX_LIVE {
            return Err(AgentError::new(
                "too_many_ptys",
                format!("{MAX_LIVE} PTYs are running in this sandbox already; close some"),
            ));
        }
        Ok(())
    }

    fn spawn(&self, request: PtyCreateRequest, size: Size) -> Result<Arc<Pty>> {
        let user = find_user(&request.user)?;
        let mut own = request.env;
        own.entry("TERM".into()).or_insert_with(|| DEFAULT_TERM.into());
        let env = spawn::environment(&self.exec, &user, &own)?;
        let cwd = spawn::working_directory(&request.cwd, &user)?;
        let mut command = spawn::argv_command(&request.args)?;
        command.env_clear().envs(&env).current_dir(&cwd);
        let no_terminal = |error| AgentError::new("io_error", format!("opening a terminal: {error}"));
        let (master, slave) = terminal::open(size, &user).map_err(no_terminal)?;
        slave.attach(&mut command, &self.exec, &user).map_err(no_terminal)?;
        let spawned = self.exec.reaper.spawn(&mut command);
        let (child, ended) = spawned.map_err(|error| spawn::spawn_error(&request.args[0], &error))?;
        let master = Arc::new(master);
        let PtyCreateRequest { id, args, linger_ms, .. } = request;
        let description = Description { id, user: user.name, args, linger_ms, size };
        let pty = Arc::new(Pty::new(description, child.id() as i32, master.clone()));
        let (pumped, ptys) = (pty.clone(), self.clone());
        tokio::spawn(async move {
            pump::run(&pumped, &master, slave, ended).await;
            lock(&ptys.list).forget_oldest();
            pump::finish(&pumped, &master).await;
        });
        Ok(pty)
    }

    pub fn list(&self) -> Vec<PtyInfo> {
        lock(&self.list).ptys.iter().map(|pty| pty.info()).collect()
    }

    fn find(&self, id: &str) -> Result<Arc<Pty>> {
        lock(&self.list).ptys.iter().find(|pty| pty.id == id).cloned().ok_or_else(|| not_found(id))
    }

    pub fn get(&self, id: &str) -> Result<PtyInfo> {
        Ok(self.find(id)?.info())
    }

    /// Errors: `pty_not_found`, `too_many_viewers`, `invalid_request`.
    pub fn attach<S>(&self, open: &PtyOpen, requests: S) -> Result<Events>
    where
        S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Send + Unpin + 'static,
    {
        let pty = self.find(&open.id)?;
        let place = self.viewers.clone().try_acquire_owned().map_err(|_| {
            AgentError::new("too_many_viewers", format!("the sandbox's PTYs have {MAX_VIEWERS} viewers already"))
        })?;
        viewer::attach(pty, place, open, requests)
    }

    pub fn resize(&self, request: &PtyResizeRequest) -> Result<PtyInfo> {
        let size = size_of(request.cols, request.rows)?;
        self.find(&request.id)?.resize(size)
    }

    /// Does nothing to a PTY whose program has ended. Blocks when it is for the session.
    pub fn signal(&self, request: &PtySignalRequest) -> Result<PtyInfo> {
        let pty = self.find(&request.id)?;
        if !(1..=libc::SIGRTMAX()).contains(&request.signal) {
            return Err(AgentError::new("invalid_request", format!("there is no signal {}", request.signal)));
        }
        if !request.session {
            pty.foreground_group().inspect(|group| signal_group(*group, request.signal));
        } else if pty.is_alive() {
            session::signal(&pty, &[request.signal]);
        }
        Ok(pty.info())
    }

    /// Returns when no process of the session is left; goes on to the end when it is not waited for.
    /// Errors: `pty_not_found`.
    pub async fn close(&self, id: &str) -> Result<()> {
        let pty = lock(&self.list).remove(id).ok_or_else(|| not_found(id))?;
        let cut_short = |error| AgentError::new("io_error", format!("closing was cut short: {error}"));
        tokio::spawn(session::end(pty)).await.map_err(cut_short)
    }

    /// As when every terminal is hung up: shells, which ignore SIGTERM, end of it.
    pub async fn hang_up(&self) {
        for pty in self.live() {
            session::send(&pty, session::HANG_UP).await;
        }
    }

    pub fn none_lives(&self) -> bool {
        self.live().is_empty()
    }

    /// Ends every live PTY, whatever its processes do about it.
    pub async fn close_all(&self) {
        let ends: Vec<_> = self.live().into_iter().map(|pty| tokio::spawn(session::end(pty))).collect();
        for end in ends {
            // One that panicked must not keep the others from their end.
            drop(end.await);
        }
    }

    fn live(&self) -> Vec<Arc<Pty>> {
        lock(&self.list).ptys.iter().filter(|pty| pty.is_alive()).cloned().collect()
    }
}

impl List {
    fn remove(&mut self, id: &str) -> Option<Arc<Pty>> {
        let at = self.ptys.iter().position(|pty| pty.id == id)?;
        let pty = self.ptys.remove(at);
        pty.forget(false);
        Some(pty)
    }

    fn forget_oldest(&mut self) {
        let ended_at = |pty: &Arc<Pty>| Some((pty.lock().ended_at?, pty.id.clone()));
        let mut ended: Vec<_> = self.ptys.iter().filter_map(ended_at).collect();
        ended.sort_unstable();
        for (_, oldest) in ended.iter().rev().skip(MAX_ENDED) {
            self.remove(oldest);
        }
    }
}

/// Closes the PTY once nobody has viewed it for its time. One that has ended is only forgotten: what it left in the background was meant
/// to stay.
async fn linger(ptys: Ptys, pty: Arc<Pty>) {
    let time = Duration::from_millis(pty.linger_ms.into());
    let mut presence = pty.presence();
    loop {
        let now = *presence.borrow_and_update();
        let alone_since = match now {
            Presence::Forgotten => return,
            Presence::Viewed => None,
            Presence::Alone(since) => Some(since + time),
        };
        tokio::select! {
            changed = presence.changed() => if changed.is_err() { return },
            () = crate::exec::run::sleep_until(alone_since), if alone_since.is_some() => {
                if pty.forget(true) {
                    break;
                }
            }
        }
    }
    lock(&ptys.list).ptys.retain(|other| !Arc::ptr_eq(other, &pty));
    if pty.is_alive() {
        session::end(pty).await;
    }
}
