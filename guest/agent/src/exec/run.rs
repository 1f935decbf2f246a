//! Carries one command: output as it comes and only as fast as the reader takes it, stdin, signals, the time limit, the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::output::Output;
use super::{ExecContext, ExecPlace, signal_group, spawn};
use crate::channel::link::HostLink;
use crate::error::{AgentError, Result};
use crate::proto::{ExecEvent, ExecExit, ExecRequest, ExecStart, ExecStarted, exec_event, exec_request};
use crate::reaper::Ended;

/// From the polite signal to the one that cannot be ignored.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// Chunks of stdin that may wait for the command.
const STDIN_QUEUE: usize = 4;
/// How long the request stream of a command (or a terminal) that has ended is kept for a reader of its answer; a lost connection ends it sooner.
pub const READER_PATIENCE: Duration = Duration::from_secs(3600);
/// The exit code of a command that ran out of time, as timeout(1) has it.
pub const TIMED_OUT_CODE: i32 = 124;

pub type EventSender = mpsc::Sender<std::result::Result<ExecEvent, Status>>;

/// Starts the command and carries it in the background until its end. When `events` is closed earlier, it ends with that; but when the
/// whole connection was lost it goes on, within its time limit, and its output is thrown away.
pub fn start<S>(context: &ExecContext, start: &ExecStart, input: S, events: EventSender, link: HostLink) -> Result<()>
where
    S: Stream<Item = std::result::Result<ExecRequest, Status>> + Send + Unpin + 'static,
{
    let mut place = context.take_place()?;
    let spawned = spawn::spawn(context, start)?;
    place.set_group(spawned.pid);
    let (signal_sender, signals) = mpsc::channel(8);
    let stdin = spawned
        .stdin
        .map(pipe::Sender::from_owned_fd)
        .transpose()
        .map_err(|error| AgentError::io("stdin pipe", &error))?;
    let command = Running {
        place,
        group: spawned.pid,
        started: Instant::now(),
        limit: (start.timeout_ms > 0).then(|| Duration::from_millis(start.timeout_ms.into())),
        outputs: [
            Output::new(spawned.stdout).map_err(|error| AgentError::io("output pipe", &error))?,
            Output::new(spawned.stderr).map_err(|error| AgentError::io("output pipe", &error))?,
        ],
        discards: context.discards.clone(),
        ended: spawned.ended,
        signals,
        events,
        link,
        _script: spawned.script,
    };
    let mut feeder = tokio::spawn(feed(input, stdin, signal_sender));
    tokio::spawn(async move {
        command.carry().await;
        // HTTP/2 has one reset for both directions: to drop the request now would cancel what a slow reader has not yet read.
        if tokio::time::timeout(READER_PATIENCE, &mut feeder).await.is_err() {
            feeder.abort();
        }
    });
    Ok(())
}

/// Moves stdin and signals from the request stream; stdin is closed when the stream says so or ends. A few chunks of stdin may wait for
/// the command, so that a signal behind them is not held up by a command that does not read.
async fn feed<S>(mut input: S, stdin: Option<pipe::Sender>, signals: mpsc::Sender<i32>) -> mpsc::Sender<i32>
where
    S: Stream<Item = std::result::Result<ExecRequest, Status>> + Unpin,
{
    let (chunks, mut waiting) = mpsc::channel::<Bytes>(STDIN_QUEUE);
    let read = async move {
        let mut chunks = Some(chunks);
        while let Some(Ok(request)) = input.next().await {
            match request.message {
                Some(exec_request::Message::Stdin(bytes)) => {
                    if let Some(sender) = &chunks
                        && sender.send(bytes).await.is_err()
                    {
                        chunks = None;
                    }
                }
                Some(exec_request::Message::StdinEnd(_)) => chunks = None,
                Some(exec_request::Message::Signal(signal)) => {
                    // Too late for a command that has ended.
                    let _ = signals.send(signal).await;
                }
                Some(exec_request::Message::Start(_)) | None => {}
            }
        }
        // The signal channel stays open in the result: its end would look like one more event to the carrier.
        signals
    };
    let write = async move {
        let Some(mut pipe) = stdin else { return };
        while let Some(bytes) = waiting.recv().await {
            if pipe.write_all(&bytes).await.is_err() {
                // The command closed its stdin; what it no longer reads is dropped, as a shell pipe would.
                return;
            }
        }
    };
    tokio::join!(read, write).0
}

struct Running {
    place: ExecPlace,
    group: i32,
    started: Instant,
    limit: Option<Duration>,
    outputs: [Output; 2],
    ended: tokio::sync::oneshot::Receiver<Ended>,
    signals: mpsc::Receiver<i32>,
    discards: Arc<Semaphore>,
    events: EventSender,
    link: HostLink,
    _script: Option<spawn::ScriptFile>,
}

impl Running {
    async fn carry(mut self) {
        let mut pending = Some(exec_event::Event::Started(ExecStarted { pid: self.group }));
        let mut ended: Option<Ended> = None;
        let (mut timed_out, mut unread) = (false, false);
        let mut deadline = self.limit.map(|limit| tokio::time::Instant::from_std(self.started + limit));
        loop {
            let [stdout, stderr] = &mut self.outputs;
            if pending.is_none() && ended.is_some() {
                pending = stdout.take().map(exec_event::Event::Stdout);
                pending = pending.or_else(|| stderr.take().map(exec_event::Event::Stderr));
                if pending.is_none() {
                    break;
                }
            }
            let idle = pending.is_none();
            tokio::select! {
                () = self.events.closed(), if !unread => {
                    if ended.is_none() && !self.link.is_lost() {
                        signal_group(self.group, libc::SIGKILL);
                    }
                    // What a command left in the background when it ended is not cancelled with the reading of its output.
                    if ended.is_some() || !self.link.is_lost() {
                        // Nor does it die of its next log line.
                        return self.outputs.into_iter().for_each(|output| output.discard(&self.discards));
                    }
                    unread = true;
                }
                () = sleep_until(deadline), if deadline.is_some() => {
                    signal_group(self.group, if timed_out { libc::SIGKILL } else { libc::SIGTERM });
                    deadline = (!timed_out).then(|| tokio::time::Instant::now() + KILL_GRACE);
                    timed_out = true;
                }
                Some(signal) = self.signals.recv(), if ended.is_none() => signal_group(self.group, signal),
                permit = self.events.reserve(), if !idle => {
                    let event = pending.take();
                    if let Ok(permit) = permit {
                        permit.send(Ok(ExecEvent { event }));
                    }
                }
                bytes = stdout.next(), if idle && ended.is_none() => pending = bytes.map(exec_event::Event::Stdout),
                bytes = stderr.next(), if idle && ended.is_none() => pending = bytes.map(exec_event::Event::Stderr),
                result = &mut self.ended, if ended.is_none() => {
                    let lost = Ended { code: 255, signal: 0, cpu_time_us: 0 };
                    ended = Some(result.unwrap_or(lost));
                    // A slow reader of the rest is not the command's time.
                    deadline = None;
                    if timed_out {
                        // Members that ignored SIGTERM must not outlive the limit.
                        signal_group(self.group, libc::SIGKILL);
                    }
                    stdout.end();
                    stderr.end();
                }
            }
        }
        let Some(ended) = ended else { return };
        let exit = ExecExit {
            code: if timed_out { TIMED_OUT_CODE } else { ended.code },
            signal: ended.signal,
            timed_out,
            wall_time_us: self.started.elapsed().as_micros() as u64,
            cpu_time_us: ended.cpu_time_us,
            kernel_restarted: false,
        };
        drop(self.place);
        self.outputs.into_iter().for_each(|output| output.discard(&self.discards));
        // A reader that has gone needs no exit.
        drop(self.events.send(Ok(ExecEvent { event: Some(exec_event::Event::Exit(exit)) })).await);
    }
}

pub async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
