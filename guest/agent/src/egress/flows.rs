//! Connections of programs, from the SYN to the end.
//!
//! The kernel holds a SYN until the gateway has answered, so that a program's `connect()` tells the truth: granted, refused, unreachable.
//! While it waits, its sender sends it again after 1, 3, 7 … s; one that stops has gone, and its request is given up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gateway::{Gateway, MAX_FLOWS, Refusal};
use super::network::REFUSED_MARK;
use super::packet::{Ends, Unreachable, unreachable};
use super::pool::{Owner, Pool};
use super::queue::Held;
use super::sockets::send_icmp;
use crate::relay::{relay, reset};

/// Of the kernel: the first SYN is repeated after a second, and each pause is twice the one before (`TCP_TIMEOUT_INIT`).
const FIRST_REPEAT: Duration = Duration::from_secs(1);
/// How late a repeated SYN may be on a busy machine.
const REPEAT_SLACK: Duration = Duration::from_secs(2);
/// A SYN that was let through becomes a connection at once, or its program has gone.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(5);
/// A socket that is still within `connect()` takes "unreachable" for a hint, and its program would wait for the next SYN. So it is told again;
/// one that has heard is closed, and a later one on the same port has another sequence number.
const REPEATS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

struct Waiting {
    sequence: u32,
    first: Instant,
    last: Instant,
    stage: Stage,
}

enum Stage {
    /// The gateway is being asked.
    Asked(AbortHandle),
    /// The SYN went on; its connection is expected.
    Granted(oneshot::Sender<TcpStream>),
}

#[derive(Clone)]
pub struct Flows {
    gateway: Gateway,
    pool: Arc<Mutex<Pool>>,
    waiting: Arc<Mutex<HashMap<Ends, Waiting>>>,
    permits: Arc<Semaphore>,
}

impl Flows {
    pub fn new(gateway: Gateway, pool: Arc<Mutex<Pool>>) -> Self {
        Self { gateway, pool, waiting: Arc::default(), permits: Arc::new(Semaphore::new(MAX_FLOWS)) }
    }

    /// Takes a SYN. What a program sends again of one that waits is dropped; another in its place is another connection.
    pub fn syn(&self, held: Held, ends: Ends, sequence: u32) {
        let mut waiting = self.waiting();
        if let Some(known) = waiting.get_mut(&ends) {
            if known.sequence == sequence {
                known.last = Instant::now();
                if matches!(known.stage, Stage::Granted(_)) {
                    held.accept();
                }
                return;
            }
            if let Stage::Asked(task) = &known.stage {
                task.abort();
            }
            waiting.remove(&ends);
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            held.accept_marked(REFUSED_MARK);
            return;
        };
        let flows = self.clone();
        // Held back by the lock until its entry is there.
        let task = tokio::spawn(async move {
            let _permit = permit;
            flows.run(held, ends, sequence).await;
        });
        let now = Instant::now();
        waiting.insert(ends, Waiting { sequence, first: now, last: now, stage: Stage::Asked(task.abort_handle()) });
    }

    /// Takes a connection that the kernel has made of a SYN.
    pub fn accepted(&self, program: TcpStream) {
        let (Ok(peer), Ok(destination)) = (program.peer_addr(), program.local_addr()) else { return };
        let entry = self.waiting().remove(&Ends { program: peer, destination });
        match entry.map(|entry| entry.stage) {
            Some(Stage::Granted(expected)) => {
                // Nobody waits any more: it came too late.
                if let Err(program) = expected.send(program) {
                    reset(program);
                }
            }
            // Not held by the queue: a program spoke to the agent's port itself, or changed the rules.
            _ => reset(program),
        }
    }

    async fn run(&self, held: Held, ends: Ends, sequence: u32) {
        let owner = self.pool().owner(ends.destination.ip());
        let name = match owner {
            Owner::Name(name) => Some(name),
            Owner::Literal => None,
            Owner::Nobody => {
                self.forget(ends, sequence);
                return refuse(held, ends, Refusal::Unreachable(Unreachable::Host));
            }
        };
        let _in_use = name.as_deref().map(|name| InUse::new(self.pool.clone(), name));
        let port = ends.destination.port();
        let authority = name.as_deref().map_or_else(|| ends.destination.to_string(), |name| format!("{name}:{port}"));
        let answer = tokio::select! {
            answer = self.gateway.connect(&authority) => answer,
            () = self.gone(ends, sequence) => {
                self.forget(ends, sequence);
                return;
            }
        };
        let flow = match answer {
            Ok(flow) => flow,
            Err(refusal) => {
                self.forget(ends, sequence);
                return refuse(held, ends, refusal);
            }
        };
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            let Some(entry) = waiting.get_mut(&ends).filter(|entry| entry.sequence == sequence) else { return };
            entry.stage = Stage::Granted(sender);
        }
        held.accept();
        match timeout(ACCEPT_DEADLINE, receiver).await {
            Ok(Ok(program)) => relay(program, flow).await,
            _ => self.forget(ends, sequence),
        }
    }

    /// Returns when the SYN should have come again and has not.
    async fn gone(&self, ends: Ends, sequence: u32) {
        loop {
            let deadline = match self.waiting().get(&ends) {
                Some(entry) if entry.sequence == sequence => next_syn_by(entry.first, entry.last),
                _ => return,
            };
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    fn forget(&self, ends: Ends, sequence: u32) {
        let mut waiting = self.waiting();
        if waiting.get(&ends).is_some_and(|entry| entry.sequence == sequence) {
            waiting.remove(&ends);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ends, Waiting>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn next_syn_by(first: Instant, last: Instant) -> Instant {
    first + 2 * (last - first) + FIRST_REPEAT + REPEAT_SLACK
}

/// A name that must not be forgotten.
struct InUse {
    pool: Arc<Mutex<Pool>>,
    name: Arc<str>,
}

impl InUse {
    fn new(pool: Arc<Mutex<Pool>>, name: &str) -> Self {
        pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flow_began(name);
        Self { pool, name: name.into() }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flow_ended(&self.name);
    }
}

/// Tells the program. Where "unreachable" cannot be sent, it is refused: the way to a container is too narrow for the message over IPv4.
fn refuse(held: Held, ends: Ends, refusal: Refusal) {
    let Refusal::Unreachable(why) = refusal else { return held.accept_marked(REFUSED_MARK) };
    let (packet, program) = (held.packet().to_vec(), ends.program.ip());
    let tell = move || send_icmp(&unreachable(&packet, program, why), program);
    if tell().is_err() {
        return held.accept_marked(REFUSED_MARK);
    }
    drop(held);
    tokio::spawn(async move {
        for pause in REPEATS {
            sleep(pause).await;
            if tell().is_err() {
                // The program's network has gone.
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_expected_again_after_1_3_and_7_seconds() {
        let first = Instant::now();
        for (last, next) in [(0, 1), (1, 3), (3, 7), (7, 15)] {
            let last = first + Duration::from_secs(last);
            assert_eq!(next_syn_by(first, last), first + Duration::from_secs(next) + REPEAT_SLACK);
        }
    }
}
