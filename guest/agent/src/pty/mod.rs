//! Terminals that outlive their viewers. `mod` is the registry (ids, limits, lifetime), `session` one PTY with its program, `viewer` one
//! attach stream, `terminal` the device, `ring` the scrollback, `utf8` where output may be cut.

pub mod ring;
pub mod session;
pub mod terminal;
pub mod utf8;
pub mod viewer;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::{AgentError, Result};
use crate::exec::ExecContext;
use crate::proto::{PtyCreateRequest, PtyInfo};
use session::Pty;

const MAX_LIVE: usize = 64;
/// Ended ones that are remembered with their output; the oldest give way.
const MAX_ENDED: usize = 64;
const MAX_ID_BYTES: usize = 128;

/// All PTYs of the sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Ptys {
    context: ExecContext,
    /// In the order of their creation.
    table: Arc<Mutex<Vec<Arc<Pty>>>>,
}

impl Ptys {
    pub fn new(context: ExecContext) -> Self {
        Self { context, table: Arc::default() }
    }

    /// Starts a program on a new terminal.
    /// Errors: `invalid_request`, `pty_exists`, `too_many_ptys`, and as [`crate::exec::spawn::spawn`].
    pub fn create(&self, request: &PtyCreateRequest) -> Result<PtyInfo> {
        check_id(&request.id)?;
        let mut table = self.table();
        if table.iter().any(|pty| pty.id() == request.id && pty.is_alive()) {
            return Err(AgentError::new("pty_exists", format!("a PTY with the id {:?} is running", request.id)));
        }
        if table.iter().filter(|pty| pty.is_alive()).count() >= MAX_LIVE {
            return Err(AgentError::new(
                "too_many_ptys",
                format!("{MAX_LIVE} PTYs are running in this sandbox already; close one"),
            ));
        }
        let pty = Pty::start(&self.context, request)?;
        table.retain(|other| other.id() != request.id);
        let ended = table.iter().filter(|pty| !pty.is_alive()).count();
        let mut surplus = (ended + 1).saturating_sub(MAX_ENDED);
        table.retain(|other| {
            let goes = surplus > 0 && !other.is_alive();
            surplus -= usize::from(goes);
            !goes
        });
        table.push(pty.clone());
        drop(table);
        if request.linger_ms > 0 {
            tokio::spawn(self.clone().close_when_idle(pty.clone(), Duration::from_millis(request.linger_ms.into())));
        }
        Ok(pty.info())
    }

    pub fn list(&self) -> Vec<PtyInfo> {
        self.table().iter().map(|pty| pty.info()).collect()
    }

    /// Errors: `pty_not_found`.
    pub fn get(&self, id: &str) -> Result<Arc<Pty>> {
        self.table()
            .iter()
            .find(|pty| pty.id() == id)
            .cloned()
            .ok_or_else(|| AgentError::new("pty_not_found", format!("there is no PTY {id:?} in this sandbox")))
    }

    /// Ends the program and its session and forgets the PTY; on return its processes are gone.
    /// Errors: `pty_not_found`.
    pub async fn close(&self, id: &str) -> Result<()> {
        let pty = self.get(id)?;
        self.forget(&pty);
        pty.end().await;
        Ok(())
    }

    /// Leaders of the sessions that are alive, for PowerOff.
    pub fn process_groups(&self) -> Vec<i32> {
        self.table().iter().filter(|pty| pty.is_alive()).map(|pty| pty.pid()).collect()
    }

    fn forget(&self, pty: &Arc<Pty>) {
        self.table().retain(|other| !Arc::ptr_eq(other, pty));
    }

    async fn close_when_idle(self, pty: Arc<Pty>, linger: Duration) {
        pty.idle_for(linger).await;
        self.forget(&pty);
        pty.end().await;
    }

    fn table(&self) -> MutexGuard<'_, Vec<Arc<Pty>>> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(AgentError::new("invalid_request", format!("{id:?} is no PTY id: 1 to {MAX_ID_BYTES} of [A-Za-z0-9._:-]")))
}
