//! The one owner of `waitpid(-1)`. As PID 1 the agent inherits every orphan, so a second waiter would steal statuses.
//!
//! Spawning holds the same lock as reaping: `std::process` waits for its child itself when `exec` fails, and a child may end before
//! its pid is registered; under the lock neither can race with the reaper.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Exit status when no signal ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// User plus system time of the process and its reaped children.
    pub cpu_time_us: u64,
}

type Waiters = HashMap<i32, oneshot::Sender<Ended>>;

#[derive(Clone, Default)]
pub struct Reaper {
    waiters: Arc<Mutex<Waiters>>,
}

impl Reaper {
    /// Starts reaping on the current runtime.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut child_changed = signal(SignalKind::child())?;
        let waiters = reaper.waiters.clone();
        tokio::spawn(async move {
            loop {
                reap_all(&waiters);
                if child_changed.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Spawns, and promises the status. The returned `Child` is for its pipes and pid; never wait on it.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, oneshot::Receiver<Ended>)> {
        let mut waiters = self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let child = command.spawn()?;
        let (sender, receiver) = oneshot::channel();
        waiters.insert(child.id() as i32, sender);
        Ok((child, receiver))
    }
}

fn reap_all(waiters: &Mutex<Waiters>) {
    let mut waiters = waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let mut status = 0;
        // SAFETY: rusage is plain data, valid when zeroed; both pointers outlive the call.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
        if pid <= 0 {
            return;
        }
        let Some(waiter) = waiters.remove(&pid) else { continue };
        let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + signal };
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        let cpu_time_us = micros(usage.ru_utime) + micros(usage.ru_stime);
        // The exec may have been given up; its process is reaped all the same.
        let _ = waiter.send(Ended { code, signal, cpu_time_us });
    }
}
