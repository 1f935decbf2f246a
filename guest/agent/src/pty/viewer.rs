//! One viewer of a PTY: an attach stream. Output goes out as the viewer's window and the stream take it; input, sizes and
//! acknowledgements are read all the while by a task of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::session::Pty;
use super::utf8::incomplete_tail;
use crate::error::{AgentError, Result};
use crate::exec::run::sleep_until;
use crate::proto::{
    PtyAttachRequest, PtyEvent, PtyExit, PtyOpen, PtyOpened, PtyOutput, PtySize, pty_attach_request, pty_event,
};

/// Sent to a holding viewer and not yet acknowledged. Small enough that a flood on one terminal delays a keystroke on another by
/// milliseconds, large enough that the round trip of an acknowledgement does not limit the rate.
const WINDOW_BYTES: u64 = 256 * 1024;
const FRAME_BYTES: usize = 64 * 1024;
/// Output in pieces of at least this much is bulk: the next piece may gather for a moment, for each message costs the same. What a
/// keystroke echoes is smaller, and goes at once.
const BULK_BYTES: usize = 1024;
const GATHER: Duration = Duration::from_millis(2);
/// How long the beginning of a character waits for its rest.
const CHARACTER_PATIENCE: Duration = Duration::from_secs(2);
/// How long the request stream of a viewer that was told the end is kept, so that what it has not read is not cut off.
const READER_PATIENCE: Duration = Duration::from_secs(3600);

pub type EventSender = mpsc::Sender<std::result::Result<PtyEvent, Status>>;

/// Attaches and serves in the background. Errors: `too_many_viewers`.
pub fn attach<S>(pty: Arc<Pty>, open: PtyOpen, requests: S, events: EventSender) -> Result<()>
where
    S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Send + Unpin + 'static,
{
    pty.add_viewer()?;
    let guard = Attached(pty.clone());
    let position = {
        let ring = &pty.state().ring;
        if open.from_start { ring.start() } else { open.offset.clamp(ring.start(), ring.end()) }
    };
    let hold = open.hold && !open.read_only;
    if hold && !open.from_start {
        // Whoever begins here has what was before.
        pty.raise_floor(position);
    }
    let window = Arc::new(Window {
        acknowledged: AtomicU64::new(position),
        sent: AtomicU64::new(position),
        moved: Notify::new(),
    });
    let size = pty.state().size;
    let viewer = Viewer {
        pty: pty.clone(),
        position,
        hold,
        window: window.clone(),
        size,
        tail_since: None,
        gather_until: None,
        events,
    };
    tokio::spawn(async move {
        let mut reading = tokio::spawn(take(pty, requests, window, hold, open.read_only));
        let viewer = viewer;
        let events = viewer.events.clone();
        tokio::select! {
            () = viewer.show() => {
                drop(guard);
                drop(events);
                if tokio::time::timeout(READER_PATIENCE, &mut reading).await.is_err() {
                    reading.abort();
                }
            }
            ended = &mut reading => {
                if let Ok(Err(error)) = ended {
                    // A viewer that has gone needs no reason.
                    let _ = events.send(Err(error.into())).await;
                }
            }
        }
    });
    Ok(())
}

/// Counts as a viewer until dropped.
struct Attached(Arc<Pty>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.remove_viewer();
    }
}

struct Window {
    acknowledged: AtomicU64,
    sent: AtomicU64,
    moved: Notify,
}

/// Reads the viewer's requests until they end.
async fn take<S>(pty: Arc<Pty>, mut requests: S, window: Arc<Window>, hold: bool, read_only: bool) -> Result<()>
where
    S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Unpin,
{
    while let Some(Ok(request)) = requests.next().await {
        match request.message {
            Some(pty_attach_request::Message::Input(_) | pty_attach_request::Message::Resize(_)) if read_only => {
                return Err(AgentError::new("invalid_request", "this viewer may only read"));
            }
            Some(pty_attach_request::Message::Input(bytes)) => pty.type_in(bytes)?,
            Some(pty_attach_request::Message::Resize(size)) => pty.resize(size.cols, size.rows)?,
            Some(pty_attach_request::Message::Ack(offset)) => {
                let sent = window.sent.load(Ordering::Acquire);
                if hold && offset <= sent && window.acknowledged.fetch_max(offset, Ordering::AcqRel) < offset {
                    pty.raise_floor(offset);
                    window.moved.notify_one();
                }
            }
            Some(pty_attach_request::Message::Open(_)) | None => {
                return Err(AgentError::new("invalid_request", "`open` comes once and first"));
            }
        }
    }
    Ok(())
}

struct Viewer {
    pty: Arc<Pty>,
    /// Of the next byte to send.
    position: u64,
    hold: bool,
    window: Arc<Window>,
    /// As the viewer knows it.
    size: super::terminal::Size,
    /// Since when nothing but the beginning of a character has been there to send.
    tail_since: Option<tokio::time::Instant>,
    /// Bulk output gathers until then.
    gather_until: Option<tokio::time::Instant>,
    events: EventSender,
}

enum Next {
    Event(pty_event::Event),
    Gather(tokio::time::Instant),
    Wait,
    End,
}

impl Viewer {
    async fn show(mut self) {
        let mut changes = self.pty.changes();
        let opened = PtyOpened { offset: self.position, info: Some(self.pty.info()) };
        let mut next = Next::Event(pty_event::Event::Opened(opened));
        loop {
            match next {
                Next::Event(event) => {
                    let is_exit = matches!(event, pty_event::Event::Exit(_));
                    if self.events.send(Ok(PtyEvent { event: Some(event) })).await.is_err() || is_exit {
                        return;
                    }
                }
                Next::Gather(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = self.events.closed() => return,
                    }
                }
                Next::Wait => {
                    let deadline = self.tail_since.map(|since| since + CHARACTER_PATIENCE);
                    tokio::select! {
                        _ = changes.changed() => {}
                        () = self.window.moved.notified() => {}
                        () = sleep_until(deadline), if deadline.is_some() => {}
                        () = self.events.closed() => return,
                    }
                }
                Next::End => return,
            }
            next = self.next();
        }
    }

    /// What the viewer has to be told now.
    fn next(&mut self) -> Next {
        let state = self.pty.state();
        if self.size != state.size {
            self.size = state.size;
            let size = PtySize { cols: state.size.cols.into(), rows: state.size.rows.into() };
            return Next::Event(pty_event::Event::Resized(size));
        }
        self.position = self.position.max(state.ring.start());
        let available = state.ring.end() - self.position;
        let allowed = match self.hold {
            true => WINDOW_BYTES
                .saturating_sub(self.position.saturating_sub(self.window.acknowledged.load(Ordering::Acquire))),
            false => u64::MAX,
        };
        let limit = available.min(allowed).min(FRAME_BYTES as u64) as usize;
        let is_last = state.drained && limit as u64 == available;
        if limit > 0 {
            if let Some(until) = self.gather_until.take()
                && limit < FRAME_BYTES
                && until > tokio::time::Instant::now()
            {
                return Next::Gather(until);
            }
            let mut data = state.ring.read(self.position, limit);
            drop(state);
            let waiting = if is_last { 0 } else { incomplete_tail(&data) };
            let impatient = self.tail_since.is_some_and(|since| since.elapsed() >= CHARACTER_PATIENCE);
            if waiting < data.len() || impatient {
                data.truncate(if waiting < data.len() { data.len() - waiting } else { waiting });
                self.tail_since = None;
                self.gather_until = (data.len() >= BULK_BYTES).then(|| tokio::time::Instant::now() + GATHER);
                let offset = self.position;
                self.position += data.len() as u64;
                self.window.sent.store(self.position, Ordering::Release);
                return Next::Event(pty_event::Event::Output(PtyOutput { offset, data: data.into() }));
            }
            self.tail_since.get_or_insert_with(tokio::time::Instant::now);
            return Next::Wait;
        }
        if !state.drained || available > 0 {
            return Next::Wait;
        }
        match self.pty.ended() {
            Some(ended) => Next::Event(pty_event::Event::Exit(PtyExit { code: ended.code, signal: ended.signal })),
            None => Next::End,
        }
    }
}
