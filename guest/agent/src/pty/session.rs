//! The processes of a terminal's session, found in proc(5): whoever is in it, in whatever process group, is ended with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::state::Pty;
use crate::files::blocking;

/// From the polite signal to the one that cannot be ignored.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// A process may fork while the list is read, so the list is read again until it is empty; one that the kernel does not let go is left.
const KILL_ROUNDS: usize = 50;
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// What a terminal that goes away tells its session; a stopped process hears it too.
pub const HANG_UP: &[i32] = &[libc::SIGHUP, libc::SIGCONT];

/// Sends signals to every process of the session. Blocks. Returns how many processes there are.
pub fn signal(pty: &Pty, signals: &[i32]) -> usize {
    let members = members(pty.pid, pty.is_alive());
    for (member, signal) in members.iter().flat_map(|member| signals.iter().map(move |signal| (*member, *signal))) {
        // SAFETY: kill takes two integers; a member's pid is above 1.
        unsafe { libc::kill(member, signal) };
    }
    members.len()
}

/// [`signal`], from a thread that may block.
pub async fn send(pty: &Arc<Pty>, signals: &'static [i32]) -> usize {
    let pty = pty.clone();
    // A search that was cut short (the agent ends) has found no one.
    blocking(move || Ok(signal(&pty, signals))).await.unwrap_or(0)
}

/// Ends every process of the session: as when the terminal hangs up, then for good. Returns when none is left.
pub async fn end(pty: Arc<Pty>) {
    let deadline = Instant::now() + KILL_GRACE;
    if send(&pty, HANG_UP).await == 0 {
        return;
    }
    drop(tokio::time::timeout_at(deadline, pty.ended()).await);
    if send(&pty, &[]).await == 0 {
        return;
    }
    sleep_until(deadline).await;
    for _ in 0..KILL_ROUNDS {
        if send(&pty, &[libc::SIGKILL]).await == 0 {
            return;
        }
        sleep(ROUND_PAUSE).await;
    }
    eprintln!("instavm-agent: session {} of a closed terminal does not end", pty.pid);
}

/// The number of a session whose leader has ended is not given to a new process while it has members; a process that has it is the
/// leader of another session then.
fn members(session: i32, leader_is_alive: bool) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let members: Vec<i32> = pids
        .filter(|pid| *pid > 1)
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| live_session(&stat) == Some(session))
        })
        .collect();
    if !leader_is_alive && members.contains(&session) { vec![] } else { members }
}

/// proc_pid_stat(5): pid (name) state ppid pgrp session …; the name may hold anything, parentheses too. `None` for one that has ended.
fn live_session(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_session_is_found_behind_any_name_and_the_dead_have_none() {
        assert_eq!(live_session("7 (a) b) S 1 2 33 0 -1"), Some(33));
        assert_eq!(live_session("7 (sh) Z 1 7 7 0 -1"), None);
        // SAFETY: no preconditions.
        let ours = unsafe { libc::getsid(0) };
        assert!(members(ours, true).contains(&(std::process::id() as i32)));
        assert_eq!(members(i32::MAX, false), Vec::<i32>::new());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(stat in ".{0,80}") {
            let _ = live_session(&stat);
        }
    }
}
