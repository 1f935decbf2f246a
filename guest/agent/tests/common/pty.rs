//! Terminals through the real service: creating them, and a viewer that keeps what it saw.

use std::time::Duration;

use instavm_agent::proto::pty_client::PtyClient;
use instavm_agent::proto::*;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::Agent;

pub const PATIENCE: Duration = Duration::from_secs(120);

pub use pty_attach_request::Message;
pub use pty_event::Event;

impl Agent {
    pub fn pty(&self) -> PtyClient<Channel> {
        PtyClient::new(self.channel.clone())
    }

    pub async fn create(&self, request: PtyCreateRequest) -> Result<PtyInfo, Status> {
        Ok(self.pty().create(request).await?.into_inner())
    }

    /// Creates a PTY named `t` that runs a script, and attaches to it from the start, holding.
    pub async fn terminal(&self, script: &str) -> Viewer {
        self.create(bash("t", script)).await.unwrap();
        self.attach(open("t")).await.unwrap()
    }

    pub async fn attach(&self, open: PtyOpen) -> Result<Viewer, Status> {
        Viewer::attach(self.pty(), open).await
    }

    pub async fn info(&self, id: &str) -> Result<PtyInfo, Status> {
        Ok(self.pty().get(PtyRequest { id: id.into() }).await?.into_inner())
    }

    pub async fn close(&self, id: &str) -> Result<(), Status> {
        self.pty().close(PtyRequest { id: id.into() }).await.map(drop)
    }

    pub async fn list(&self) -> Vec<PtyInfo> {
        self.pty().list(PtyListRequest {}).await.unwrap().into_inner().ptys
    }
}

pub fn program(id: &str, args: &[&str]) -> PtyCreateRequest {
    let args = args.iter().map(|arg| (*arg).into()).collect();
    PtyCreateRequest { id: id.into(), args, ..Default::default() }
}

pub fn bash(id: &str, script: &str) -> PtyCreateRequest {
    program(id, &["/bin/bash", "-c", script])
}

/// From the start, holding.
pub fn open(id: &str) -> PtyOpen {
    PtyOpen { id: id.into(), from_start: true, hold: true, ..Default::default() }
}

/// From the start, following at its own speed.
pub fn follow(id: &str) -> PtyOpen {
    PtyOpen { hold: false, ..open(id) }
}

pub fn message(message: Message) -> PtyAttachRequest {
    PtyAttachRequest { message: Some(message) }
}

pub struct Viewer {
    requests: mpsc::Sender<PtyAttachRequest>,
    events: Streaming<PtyEvent>,
    pub opened: PtyOpened,
    holds: bool,
    /// Acknowledges whatever it gets, if it holds.
    pub acknowledges: bool,
    /// Of the next byte.
    pub offset: u64,
    /// All it got since it was attached.
    pub output: Vec<u8>,
    /// The gaps in it: where, and how many bytes.
    pub gaps: Vec<(u64, u64)>,
    pub frames: Vec<usize>,
    pub sizes: Vec<(u32, u32)>,
    /// How much of the output [`until`](Self::until) has looked at.
    seen: usize,
}

impl Viewer {
    pub async fn attach(mut client: PtyClient<Channel>, open: PtyOpen) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let holds = open.hold;
        requests.send(message(Message::Open(open))).await.unwrap();
        let mut events = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
        let first = events.next().await.expect("`opened`")?.event;
        let Some(Event::Opened(opened)) = first else { panic!("`opened` comes first: {first:?}") };
        Ok(Self {
            requests,
            events,
            offset: opened.offset,
            opened,
            holds,
            acknowledges: true,
            output: vec![],
            gaps: vec![],
            frames: vec![],
            sizes: vec![],
            seen: 0,
        })
    }

    pub async fn send(&self, message: Message) {
        // A viewer that was refused hears it from the events.
        let _ = self.requests.send(self::message(message)).await;
    }

    pub async fn type_in(&self, text: impl AsRef<[u8]>) {
        self.send(Message::Input(text.as_ref().to_vec().into())).await;
    }

    pub async fn acknowledge(&self) {
        self.send(Message::Ack(self.offset)).await;
    }

    /// The next event, counted and kept. `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.events.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more after {:?}", self.text()));
        let Some(event) = next.transpose()? else { return Ok(None) };
        let event = event.event.expect("an event");
        match &event {
            Event::Opened(_) => panic!("`opened` comes once"),
            Event::Output(PtyOutput { offset, data }) => {
                assert!((1..=65536).contains(&data.len()), "a frame of {} bytes", data.len());
                assert!(*offset >= self.offset, "bytes are repeated: {offset} after {}", self.offset);
                if *offset > self.offset {
                    self.gaps.push((self.offset, offset - self.offset));
                }
                self.frames.push(data.len());
                self.output.extend_from_slice(data);
                self.offset = offset + data.len() as u64;
                if self.holds && self.acknowledges {
                    self.acknowledge().await;
                }
            }
            Event::Resized(PtySize { cols, rows }) => self.sizes.push((*cols, *rows)),
            Event::Exit(_) => {}
        }
        Ok(Some(event))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Reads until this text appears after what earlier calls looked for; returns what came before it.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let unseen = &self.output[self.seen..];
            if let Some(at) = unseen.windows(text.len()).position(|window| window == text.as_bytes()) {
                let before = String::from_utf8_lossy(&unseen[..at]).into_owned();
                self.seen += at + text.len();
                return before;
            }
            match self.next().await.unwrap() {
                Some(Event::Exit(exit)) => panic!("{exit:?} before {text:?} after {:?}", self.text()),
                None => panic!("the end before {text:?} after {:?}", self.text()),
                _ => {}
            }
        }
    }

    /// Reads at least this many bytes more.
    pub async fn take(&mut self, count: usize) {
        let enough = self.output.len() + count;
        while self.output.len() < enough {
            assert!(matches!(self.next().await.unwrap(), Some(Event::Output(_))), "{:?}", self.text());
        }
    }

    /// Reads all up to the exit, after which the stream ends.
    pub async fn finish(&mut self) -> PtyExit {
        let exit = loop {
            match self.next().await.unwrap() {
                Some(Event::Exit(exit)) => break exit,
                Some(_) => {}
                None => panic!("no exit after {:?}", self.text()),
            }
        };
        assert_eq!(self.next().await.unwrap(), None, "nothing follows the exit");
        exit
    }

    /// Reads up to the refusal that ends the stream.
    pub async fn refusal(&mut self) -> Status {
        loop {
            match self.next().await {
                Err(status) => return status,
                Ok(Some(Event::Output(_) | Event::Resized(_))) => {}
                Ok(other) => panic!("no refusal but {other:?} after {:?}", self.text()),
            }
        }
    }
}
