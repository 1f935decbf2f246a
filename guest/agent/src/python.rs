//! The sandbox's IPython kernel: one process, kept warm, whose cells run one after another.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, oneshot};

use crate::accounts::User;
use crate::channel::link::HostLink;
use crate::error::{AgentError, Result};
use crate::exec::output::Output;
use crate::exec::run::{EventSender, TIMED_OUT_CODE, sleep_until};
use crate::exec::{ExecContext, signal_group, spawn};
use crate::proto::{ExecEvent, ExecExit, ExecStarted, PythonRequest, exec_event};
use crate::reaper::Ended;

const DRIVER: &str = include_str!("../python/kernel.py");
/// The interpreter of the base image, which has IPython.
pub const INTERPRETER: &str = "/usr/bin/python3";
const MAX_VERDICT_BYTES: u32 = 64 * 1024;
/// Importing IPython takes a second or two on an emulated CPU.
const START_LIMIT: Duration = Duration::from_secs(60);
/// From the interrupt to the end of the kernel, for a cell that does not react.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// From an interrupt that the kernel ignored to the next.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(20);
const DIED_IN_CELL: &[u8] =
    b"instavm: the Python kernel ended; its variables are lost and the next cell gets a new one\n";
const DIED_BEFORE: &[u8] =
    b"instavm: the Python kernel had ended; its variables are lost and this cell runs in a new one\n";

#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    code: &'a str,
    env: std::collections::HashMap<String, String>,
    /// The clone has got its own randomness from the kernel; the interpreter's generators must take theirs from it.
    reseed: bool,
}

#[derive(Deserialize)]
struct Verdict {
    id: u64,
    exit_code: i32,
    cpu_time_us: u64,
}

struct Kernel {
    pid: i32,
    control: UnixStream,
    stdout: Output,
    stderr: Output,
    ended: oneshot::Receiver<Ended>,
    next_id: u64,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // One that ended a while ago is found by the next cell. Its group is still its own unless somebody has its number.
        if self.ended.is_empty() || !std::fs::exists(format!("/proc/{}", self.pid)).unwrap_or(true) {
            signal_group(self.pid, libc::SIGKILL);
        }
    }
}

/// The kernel slot. Cells queue on its lock.
#[derive(Clone)]
pub struct Python {
    context: ExecContext,
    kernel: Arc<Mutex<Option<Kernel>>>,
    reseed: Arc<AtomicBool>,
    interpreter: Arc<str>,
}

enum CellEnd {
    Verdict(Verdict),
    /// The process died, or had to be ended because it ignored the interrupt.
    KernelLost(i32),
}

impl Python {
    pub fn new(context: ExecContext, interpreter: &str) -> Self {
        Self { context, kernel: Arc::default(), reseed: Arc::default(), interpreter: interpreter.into() }
    }

    /// The next cell reseeds the interpreter's random generators first.
    pub fn reseed(&self) {
        self.reseed.store(true, Ordering::SeqCst);
    }

    /// Runs a cell and sends its events, the exit last. A cell that nobody reads any more is interrupted, unless the whole connection was lost.
    /// Errors, before anything is sent: `python_unavailable`.
    pub async fn run(&self, request: PythonRequest, events: EventSender, link: HostLink) -> Result<()> {
        let mut slot = self.kernel.clone().lock_owned().await;
        let (mut kernel, replaced) = match slot.take_if(|kernel| kernel.ended.is_empty()) {
            Some(kernel) => (kernel, false),
            None => {
                let started = self.start().await?;
                // One that is taken out here died while no cell was running.
                (started, slot.take().is_some())
            }
        };
        let this = self.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let send = async |event| events.send(Ok(ExecEvent { event: Some(event) })).await.is_ok();
            send(exec_event::Event::Started(ExecStarted { pid: kernel.pid })).await;
            if replaced {
                send(exec_event::Event::Stderr(Bytes::from_static(DIED_BEFORE))).await;
            }
            let (end, timed_out) = this.cell(&mut kernel, &request, &events, &link).await;
            let (code, cpu_time_us, lost) = match end {
                CellEnd::Verdict(verdict) => (verdict.exit_code, verdict.cpu_time_us, false),
                CellEnd::KernelLost(code) => (code, 0, true),
            };
            if lost {
                drop(kernel);
                send(exec_event::Event::Stderr(Bytes::from_static(DIED_IN_CELL))).await;
            } else {
                *slot = Some(kernel);
            }
            let exit = ExecExit {
                code: if timed_out { TIMED_OUT_CODE } else { code },
                signal: 0,
                timed_out,
                wall_time_us: started.elapsed().as_micros() as u64,
                cpu_time_us,
                kernel_restarted: lost || replaced,
            };
            send(exec_event::Event::Exit(exit)).await;
            drop(events);
            if lost {
                // The next cell should not wait for it. Should it fail, the next cell tries again and says why.
                *slot = this.start().await.ok();
            }
        });
        Ok(())
    }

    async fn cell(
        &self,
        kernel: &mut Kernel,
        request: &PythonRequest,
        events: &EventSender,
        link: &HostLink,
    ) -> (CellEnd, bool) {
        kernel.next_id += 1;
        let id = kernel.next_id;
        let message = Request {
            id,
            code: &request.code,
            env: self.context.env.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone(),
            reseed: self.reseed.swap(false, Ordering::SeqCst),
        };
        // The limit: a kernel that an earlier cell stopped takes nothing.
        if !matches!(tokio::time::timeout(START_LIMIT, send(&mut kernel.control, &message)).await, Ok(Ok(()))) {
            return (CellEnd::KernelLost(1), false);
        }
        let limit = Duration::from_millis(request.timeout_ms.into());
        let mut deadline = (request.timeout_ms > 0).then(|| tokio::time::Instant::now() + limit);
        let (mut timed_out, mut abandoned, mut interrupted) = (false, false, false);
        let mut interrupt_again = None;
        let mut pending: Option<exec_event::Event> = None;
        let mut verdict_reader = Box::pin(receive(&mut kernel.control));
        let end = loop {
            let idle = pending.is_none();
            tokio::select! {
                () = events.closed(), if !abandoned => {
                    abandoned = true;
                    // To be interrupted again would only disturb a cell that is about to give way.
                    if interrupted || link.is_lost() {
                        continue;
                    }
                    interrupted = true;
                    interrupt_again = interrupt(kernel.pid, -kernel.pid);
                    deadline = Some(tokio::time::Instant::now() + INTERRUPT_GRACE);
                }
                () = sleep_until(deadline), if deadline.is_some() => {
                    timed_out |= !interrupted;
                    if interrupted {
                        break CellEnd::KernelLost(TIMED_OUT_CODE);
                    }
                    interrupted = true;
                    interrupt_again = interrupt(kernel.pid, -kernel.pid);
                    deadline = Some(tokio::time::Instant::now() + INTERRUPT_GRACE);
                }
                () = sleep_until(interrupt_again), if interrupt_again.is_some() => {
                    interrupt_again = interrupt(kernel.pid, kernel.pid);
                }
                verdict = &mut verdict_reader => match verdict {
                    Ok(verdict) if verdict.id == id => break CellEnd::Verdict(verdict),
                    // Closed, or a verdict that a cell forged: this kernel can no longer be trusted to be in step.
                    _ => {
                        let code = match tokio::time::timeout(INTERRUPT_GRACE, &mut kernel.ended).await {
                            Ok(Ok(ended)) => ended.code,
                            _ => 1,
                        };
                        break CellEnd::KernelLost(code);
                    }
                },
                permit = events.reserve(), if !idle => match permit {
                    Ok(permit) => permit.send(Ok(ExecEvent { event: pending.take() })),
                    Err(_gone) => pending = None,
                },
                bytes = kernel.stdout.next(), if idle => pending = bytes.map(exec_event::Event::Stdout),
                bytes = kernel.stderr.next(), if idle => pending = bytes.map(exec_event::Event::Stderr),
            }
        };
        drop(verdict_reader);
        kernel.stdout.end();
        kernel.stderr.end();
        loop {
            if let Some(event) = pending.take() {
                // A reader that has gone needs no output.
                drop(events.send(Ok(ExecEvent { event: Some(event) })).await);
            }
            pending = kernel.stdout.take().map(exec_event::Event::Stdout);
            pending = pending.or_else(|| kernel.stderr.take().map(exec_event::Event::Stderr));
            if pending.is_none() {
                break;
            }
        }
        kernel.stdout.resume();
        kernel.stderr.resume();
        (end, timed_out)
    }

    async fn start(&self) -> Result<Kernel> {
        let unavailable = |what: String| AgentError::new("python_unavailable", what);
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(|error| AgentError::io("kernel socket", &error))?;
        let theirs: OwnedFd = theirs.into();
        let mut command = Command::new(&*self.interpreter);
        command.arg("-c").arg(DRIVER).env_clear();
        command.env("INSTAVM_KERNEL_FD", theirs.as_raw_fd().to_string()).envs(spawn::base_environment(&User::root()));
        command.env("PYTHONWARNINGS", "ignore::DeprecationWarning").env("IPYTHONDIR", "/run/instavm/ipython");
        let workspace = std::path::Path::new(spawn::WORKSPACE);
        command.current_dir(if workspace.is_dir() { workspace } else { std::path::Path::new("/") });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn::prepare(&mut command, &self.context, &User::root());
        let descriptor = theirs.as_raw_fd();
        // SAFETY: one fcntl between fork and exec; the descriptor is open until after the spawn.
        unsafe {
            command.pre_exec(move || match libc::fcntl(descriptor, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let (mut child, ended) = self
            .context
            .reaper
            .spawn(&mut command)
            .map_err(|error| unavailable(format!("{} does not start: {error}", self.interpreter)))?;
        drop(theirs);
        let io = |error: std::io::Error| AgentError::io("kernel pipes", &error);
        let no_pipe = || unavailable("the kernel was started without a pipe".into());
        let stdout = child.stdout.take().ok_or_else(no_pipe)?;
        let stderr = child.stderr.take().ok_or_else(no_pipe)?;
        ours.set_nonblocking(true).map_err(io)?;
        let mut kernel = Kernel {
            pid: child.id() as i32,
            control: UnixStream::from_std(ours).map_err(io)?,
            stdout: Output::new(stdout.into()).map_err(io)?,
            stderr: Output::new(stderr.into()).map_err(io)?,
            ended,
            next_id: 0,
        };
        match tokio::time::timeout(START_LIMIT, receive(&mut kernel.control)).await {
            Ok(Ok(_)) => Ok(kernel),
            _ => {
                let said = kernel.stderr.take().unwrap_or_default();
                let said = String::from_utf8_lossy(&said).chars().take(2_000).collect::<String>();
                Err(unavailable(format!("IPython does not start: {}", said.trim_end())))
            }
        }
    }
}

/// Interrupts a process or a group, as kill(2) has it. Returns when the kernel alone is to be interrupted again: one that has not begun with
/// its cell yet ignores it.
fn interrupt(kernel: i32, to: i32) -> Option<tokio::time::Instant> {
    let ignored = ignores_interrupts(kernel);
    // SAFETY: kill takes two integers; the end of a kernel is noticed long before its number comes again.
    unsafe { libc::kill(to, libc::SIGINT) };
    ignored.then(|| tokio::time::Instant::now() + INTERRUPT_PAUSE)
}

/// From proc_pid_status(5): a set of bits, of which the first is signal 1.
fn ignores_interrupts(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    set & 1 << (libc::SIGINT - 1) != 0
}

async fn send(control: &mut UnixStream, request: &Request<'_>) -> std::io::Result<()> {
    let body = serde_json::to_vec(request)?;
    control.write_u32(body.len() as u32).await?;
    control.write_all(&body).await
}

async fn receive(control: &mut UnixStream) -> std::io::Result<Verdict> {
    let length = control.read_u32().await?;
    if length > MAX_VERDICT_BYTES {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    control.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_got_the_number_of_a_kernel_that_ended_long_ago_is_left_alone() {
        let pipes = || Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let (mut one, mut two) = (pipes(), pipes());
        let mut other = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let (told, ended) = oneshot::channel();
        told.send(Ended { code: 1, signal: 0, cpu_time_us: 0 }).unwrap();
        drop(Kernel {
            pid: other.id() as i32,
            control: UnixStream::pair().unwrap().0,
            stdout: Output::new(one.stdout.take().unwrap().into()).unwrap(),
            stderr: Output::new(two.stdout.take().unwrap().into()).unwrap(),
            ended,
            next_id: 0,
        });
        // A signal takes a moment to end what it is for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(other.try_wait().unwrap().is_none(), "it was killed");
        other.kill().unwrap();
        for mut child in [one, two, other] {
            child.wait().unwrap();
        }
    }
}
