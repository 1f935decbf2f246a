//! A real agent as an ordinary process, and a client that reached it through the real handshake.
#![allow(dead_code)]

pub mod pty;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use instavm_agent::channel::sync::{ACKN, SYNC};
use instavm_agent::proto::exec_client::ExecClient;
use instavm_agent::proto::files_client::FilesClient;
use instavm_agent::proto::lifecycle_client::LifecycleClient;
use instavm_agent::proto::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub struct Agent {
    process: Child,
    pub directory: tempfile::TempDir,
    pub channel: Channel,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().expect("the agent is still running");
        self.process.wait().expect("the agent can be waited for");
    }
}

impl Agent {
    pub async fn start() -> Self {
        Self::start_with("python3").await
    }

    /// `python` runs the cells.
    pub async fn start_with(python: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_instavm-agent"));
        command.arg("--listen-unix").arg(&socket).args(["--python", python]);
        let process = command.spawn().unwrap();
        let (channel, _) = connect(&socket).await;
        Self { process, directory, channel }
    }

    /// A second connection, and the socket to break it by.
    pub async fn connect_again(&self) -> (Channel, std::os::unix::net::UnixStream) {
        connect(&self.directory.path().join("agent.sock")).await
    }

    pub fn lifecycle(&self) -> LifecycleClient<Channel> {
        LifecycleClient::new(self.channel.clone())
    }

    pub fn exec(&self) -> ExecClient<Channel> {
        ExecClient::new(self.channel.clone())
    }

    pub fn files(&self) -> FilesClient<Channel> {
        FilesClient::new(self.channel.clone())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has allocated, without its code.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A path below the agent's scratch directory.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs to the end with no input.
    pub async fn run(&self, start: ExecStart) -> Result<Output, Status> {
        self.call(start, vec![]).await?.finish().await
    }

    pub async fn call(&self, start: ExecStart, rest: Vec<exec_request::Message>) -> Result<Call, Status> {
        call(self.exec(), start, rest).await
    }

    pub async fn script(&self, script: &str) -> Output {
        self.run(ExecStart { command: self::script(script), ..Default::default() }).await.unwrap()
    }
}

/// The stream of a host after the exchange, on which HTTP/2 begins.
pub async fn open_stream(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    let nonce = [7; 16];
    stream.write_all(b"bytes of an earlier connection").await?;
    stream.write_all(&[&SYNC[..], &nonce].concat()).await?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, *[&ACKN[..], &nonce].concat());
    Ok(stream)
}

async fn connect(socket: &Path) -> (Channel, std::os::unix::net::UnixStream) {
    let mut opened = open_stream(socket).await;
    while opened.is_err() {
        // The agent is still starting.
        tokio::time::sleep(Duration::from_millis(10)).await;
        opened = open_stream(socket).await;
    }
    let stream = opened.unwrap().into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream =
            stream.take().ok_or_else(|| std::io::Error::other("the connection is lost")).and_then(UnixStream::from_std);
        async move { stream.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://guest").initial_stream_window_size(1024 * 1024);
    let connected = tokio::time::timeout(Duration::from_secs(120), endpoint.connect_with_connector(connector));
    (connected.await.expect("the agent answers").unwrap(), socket)
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: ExecExit,
}

impl Output {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub async fn collect(mut stream: Streaming<ExecEvent>) -> Result<Output, Status> {
    let (mut stdout, mut stderr, mut exit, mut started) = (vec![], vec![], None, false);
    while let Some(event) = stream.next().await {
        match event?.event.expect("an event") {
            exec_event::Event::Started(_) => {
                assert!(!started && stdout.is_empty() && stderr.is_empty(), "`started` comes once and first");
                started = true;
            }
            exec_event::Event::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            exec_event::Event::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            exec_event::Event::Exit(end) => {
                assert!(started && exit.is_none(), "exactly one `exit`, after `started`");
                exit = Some(end);
            }
        }
    }
    Ok(Output { stdout, stderr, exit: exit.expect("the stream ends with `exit`") })
}

pub fn script(text: &str) -> Option<exec_start::Command> {
    Some(exec_start::Command::Script(text.into()))
}

pub fn argv(args: &[&str]) -> Option<exec_start::Command> {
    Some(exec_start::Command::Argv(Argv { args: args.iter().map(|arg| (*arg).into()).collect() }))
}

/// A call whose request stream stays open. Dropping it cancels the call.
pub struct Call {
    _open: tokio::sync::oneshot::Sender<()>,
    pub events: Streaming<ExecEvent>,
}

impl Call {
    /// Everything up to the end.
    pub async fn finish(self) -> Result<Output, Status> {
        collect(self.events).await
    }

    pub async fn next(&mut self) -> exec_event::Event {
        self.events.next().await.expect("one more event").unwrap().event.expect("an event")
    }
}

/// Sends `start`, then `rest`.
pub async fn call(
    mut client: ExecClient<Channel>,
    start: ExecStart,
    rest: Vec<exec_request::Message>,
) -> Result<Call, Status> {
    let first = exec_request::Message::Start(start);
    let messages: Vec<_> =
        std::iter::once(first).chain(rest).map(|message| ExecRequest { message: Some(message) }).collect();
    let (open, closed) = tokio::sync::oneshot::channel::<()>();
    // hyper's client keeps a call alive while its request stream goes on, so the end of that is part of cancelling.
    let end = ends_with(closed);
    let events = client.run(tokio_stream::iter(messages).chain(end)).await?.into_inner();
    Ok(Call { _open: open, events })
}

/// A stream without items that ends when the other half of `closed` is dropped.
fn ends_with(closed: tokio::sync::oneshot::Receiver<()>) -> impl Stream<Item = ExecRequest> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = closed.await;
        drop(sender);
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

pub fn reason(status: &Status) -> &str {
    status.metadata().get("instavm-reason").and_then(|value| value.to_str().ok()).unwrap_or("no reason")
}

/// Polls until it holds; for the effects of things that end on their own time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within two minutes: {what}");
}

pub fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Tests that act as another user need root; without it the reason is printed and they do nothing.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        eprintln!("skipped: needs root to act as another user");
    }
    root
}
