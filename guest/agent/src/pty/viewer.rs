//! One viewer of a PTY: its place in the output, its frames, what it types and acknowledges.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::state::Pty;
use super::terminal::Size;
use super::{size_of, utf8};
use crate::error::{AgentError, Result};
use crate::exec::run::{READER_PATIENCE, sleep_until};
use crate::proto::{
    PtyAttachRequest, PtyEvent, PtyExit, PtyOpen, PtyOpened, PtyOutput, PtySize, pty_attach_request, pty_event,
};

const FRAME_BYTES: usize = 64 * 1024;
/// What may be on its way to a viewer that holds, sent and not acknowledged.
const WINDOW_BYTES: u64 = 256 * 1024;
/// Output in pieces of at least this much is bulk: what comes next may gather for a moment, for each message costs the same. What a
/// keystroke echoes is smaller, and goes at once.
const BULK_BYTES: usize = 1024;
const GATHER: Duration = Duration::from_millis(2);
/// How long the beginning of a character waits for its rest.
const CHARACTER_PATIENCE: Duration = Duration::from_secs(2);

pub type Events = mpsc::Receiver<std::result::Result<PtyEvent, Status>>;

/// Follows the PTY in the background until its end, or until the requests end or the reply is given up.
/// `place` is the viewer's among all of the sandbox. Errors: `invalid_request`, `pty_not_found`, `too_many_viewers`.
pub fn attach<S>(pty: Arc<Pty>, place: OwnedSemaphorePermit, open: &PtyOpen, requests: S) -> Result<Events>
where
    S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Send + Unpin + 'static,
{
    if open.hold && open.read_only {
        return Err(AgentError::new("invalid_request", "a read-only viewer cannot hold the program"));
    }
    let changes = pty.changes();
    let entrance = pty.enter(open)?;
    let opened = PtyOpened { offset: entrance.offset, info: Some(entrance.info) };
    let viewer = Viewer {
        pty,
        changes,
        position: entrance.offset,
        hold: open.hold.then_some(entrance.offset),
        read_only: open.read_only,
        size: entrance.size,
        waiting: None,
        gathering: None,
        next: Some(pty_event::Event::Opened(opened)),
        _place: place,
    };
    // One that is on its way, one that is made meanwhile: more would only be older.
    let (sender, events) = mpsc::channel(1);
    tokio::spawn(follow(viewer, requests, sender));
    Ok(events)
}

async fn follow<S>(viewer: Viewer, mut requests: S, events: mpsc::Sender<std::result::Result<PtyEvent, Status>>)
where
    S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Unpin,
{
    if let Err(error) = viewer.follow(&mut requests, &events).await {
        // A host that has gone needs no error.
        drop(events.send(Err(error.into())).await);
    }
    drop(events);
    // HTTP/2 has one reset for both directions: to drop the requests now would cancel what a slow reader has not yet read.
    let rest = async { while let Some(Ok(_)) = requests.next().await {} };
    drop(tokio::time::timeout(READER_PATIENCE, rest).await);
}

struct Viewer {
    pty: Arc<Pty>,
    changes: watch::Receiver<()>,
    /// Of the next byte to send.
    position: u64,
    /// For one that holds: what it has acknowledged.
    hold: Option<u64>,
    read_only: bool,
    /// As this viewer knows it.
    size: Size,
    /// The beginning of a character at this offset waits for its rest until then.
    waiting: Option<(u64, Instant)>,
    /// Bulk output gathers until then.
    gathering: Option<Instant>,
    next: Option<pty_event::Event>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.pty.leave();
    }
}

impl Viewer {
    /// Until the exit is sent, or the viewer goes. An error is the viewer's own.
    async fn follow<S>(
        mut self,
        requests: &mut S,
        events: &mpsc::Sender<std::result::Result<PtyEvent, Status>>,
    ) -> Result<()>
    where
        S: Stream<Item = std::result::Result<PtyAttachRequest, Status>> + Unpin,
    {
        loop {
            // Before the look at the state: what happens after it is a change.
            self.changes.mark_unchanged();
            if self.next.is_none() {
                self.next = self.event();
            }
            let idle = self.next.is_none();
            let until = self.gathering.or(self.waiting.map(|(_, until)| until));
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.take(request)?,
                    Some(Err(_)) | None => return Ok(()),
                },
                permit = events.reserve(), if !idle => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let event = self.next.take();
                    let is_last = matches!(event, Some(pty_event::Event::Exit(_)));
                    permit.send(Ok(PtyEvent { event }));
                    if is_last {
                        return Ok(());
                    }
                }
                _ = self.changes.changed(), if idle && self.gathering.is_none() => {}
                () = sleep_until(until), if idle && until.is_some() => {}
                () = events.closed(), if idle => return Ok(()),
            }
        }
    }

    /// What there is to say now.
    fn event(&mut self) -> Option<pty_event::Event> {
        let state = self.pty.lock();
        if state.size != self.size {
            self.size = state.size;
            let (cols, rows) = (state.size.cols.into(), state.size.rows.into());
            return Some(pty_event::Event::Resized(PtySize { cols, rows }));
        }
        let (start, end) = (state.ring.start(), state.ring.end());
        if self.position < start {
            self.position = start;
            // What is lost to it is not on its way.
            self.hold = self.hold.map(|acknowledged| acknowledged.max(start));
        }
        if let Some(until) = self.gathering {
            if Instant::now() < until && end - self.position < FRAME_BYTES as u64 {
                return None;
            }
            self.gathering = None;
        }
        let on_its_way = self.hold.map_or(0, |acknowledged| self.position - acknowledged);
        let limit = FRAME_BYTES.min(WINDOW_BYTES.saturating_sub(on_its_way) as usize);
        let mut data = state.ring.read(self.position, limit);
        let tail = utf8::incomplete_tail(&data);
        let is_cut = self.position + (data.len() as u64) < end;
        let (ended, is_over) = (state.ended, state.drained);
        drop(state);
        if data.len() > tail {
            data.truncate(data.len() - tail);
        } else if tail > 0 && (is_cut || !is_over && !self.has_waited()) {
            return None;
        }
        self.waiting = None;
        if data.is_empty() {
            let ended = ended.filter(|_| is_over && !is_cut)?;
            return Some(pty_event::Event::Exit(PtyExit { code: ended.code, signal: ended.signal }));
        }
        self.gathering = (data.len() >= BULK_BYTES).then(|| Instant::now() + GATHER);
        let offset = self.position;
        self.position += data.len() as u64;
        Some(pty_event::Event::Output(PtyOutput { offset, data: data.into() }))
    }

    /// Whether the character that begins at this place had its time.
    fn has_waited(&mut self) -> bool {
        match self.waiting {
            Some((offset, until)) if offset == self.position => Instant::now() >= until,
            _ => {
                self.waiting = Some((self.position, Instant::now() + CHARACTER_PATIENCE));
                false
            }
        }
    }

    fn take(&mut self, request: PtyAttachRequest) -> Result<()> {
        let refused = |what: &str| Err(AgentError::new("invalid_request", what));
        match request.message {
            Some(pty_attach_request::Message::Ack(offset)) => {
                let position = self.position;
                // For one that does not hold it says nothing.
                let Some(acknowledged) = self.hold.as_mut() else { return Ok(()) };
                if offset > *acknowledged && offset <= position {
                    *acknowledged = offset;
                    self.pty.acknowledge(offset);
                }
                Ok(())
            }
            Some(pty_attach_request::Message::Input(_) | pty_attach_request::Message::Resize(_)) if self.read_only => {
                refused("a read-only viewer neither types nor resizes")
            }
            Some(pty_attach_request::Message::Input(bytes)) => self.pty.type_in(&bytes),
            Some(pty_attach_request::Message::Resize(size)) => {
                let size = size_of(size.cols, size.rows)?;
                self.size = size;
                self.pty.resize(size).map(drop)
            }
            Some(pty_attach_request::Message::Open(_)) => refused("`open` comes once"),
            None => refused("a message without content, or of a kind that this agent does not know"),
        }
    }
}
