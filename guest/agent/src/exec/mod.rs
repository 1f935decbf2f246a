//! Running commands: `spawn` makes the process, `run` carries its bytes and its end, `output` reads its pipes.

pub mod output;
pub mod run;
pub mod spawn;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::Semaphore;

use crate::error::{AgentError, Result};
use crate::reaper::Reaper;

/// Commands running at once in one sandbox.
const MAX_EXECS: usize = 256;
const MAX_DISCARDS: usize = 512;

/// What every command needs: the reaper, the sandbox's own environment, the cgroup of user processes.
#[derive(Clone)]
pub struct ExecContext {
    pub reaper: Reaper,
    /// Set by Personalize; under each request's own environment.
    pub env: Arc<RwLock<HashMap<String, String>>>,
    /// `cgroup.procs` of the cgroup whose `pids.max` keeps a fork bomb away from the agent; none outside a microVM.
    pub cgroup_procs: Option<Arc<std::fs::File>>,
    /// One for each pipe that a background process may keep open after its command.
    pub discards: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    /// Process groups of running commands, for PowerOff and a lost host.
    groups: Arc<Mutex<Vec<i32>>>,
}

/// Frees a command's place when dropped.
pub struct ExecPlace {
    context: ExecContext,
    group: i32,
}

impl ExecContext {
    pub fn new(reaper: Reaper, cgroup_procs: Option<std::fs::File>) -> Self {
        Self {
            reaper,
            env: Arc::default(),
            cgroup_procs: cgroup_procs.map(Arc::new),
            discards: Arc::new(Semaphore::new(MAX_DISCARDS)),
            running: Arc::default(),
            groups: Arc::default(),
        }
    }

    /// Errors: `too_many_execs`.
    pub fn take_place(&self) -> Result<ExecPlace> {
        if self.running.fetch_add(1, Ordering::SeqCst) >= MAX_EXECS {
            self.running.fetch_sub(1, Ordering::SeqCst);
            return Err(AgentError::new(
                "too_many_execs",
                format!("{MAX_EXECS} commands are running in this sandbox already; wait for one to end"),
            ));
        }
        Ok(ExecPlace { context: self.clone(), group: 0 })
    }

    pub fn process_groups(&self) -> Vec<i32> {
        self.groups.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl ExecPlace {
    pub fn set_group(&mut self, group: i32) {
        self.group = group;
        self.context.groups.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(group);
    }
}

impl Drop for ExecPlace {
    fn drop(&mut self) {
        self.context.running.fetch_sub(1, Ordering::SeqCst);
        self.context
            .groups
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .retain(|group| *group != self.group);
    }
}

/// Signals a process group; one that is gone needs no signal.
pub fn signal_group(group: i32, signal: i32) {
    if group > 1 {
        // SAFETY: kill takes two integers; a group above 1 is neither "all processes" nor the agent's own.
        unsafe { libc::kill(-group, signal) };
    }
}
