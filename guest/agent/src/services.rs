//! The gRPC services of spec/agent.proto: each method parses, calls the module that does the work, and maps its error.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::channel::link::HostLink;
use crate::error::AgentError;
use crate::exec::{ExecContext, run, signal_group};
use crate::files::{archive, blocking, ops, outgoing, pump, transfer, watch};
use crate::proto::exec_server::{Exec, ExecServer};
use crate::proto::files_server::{Files, FilesServer};
use crate::proto::lifecycle_server::{Lifecycle, LifecycleServer};
use crate::proto::pty_server::{Pty, PtyServer};
use crate::proto::*;
use crate::pty::Ptys;
use crate::python::Python;
use crate::{boot, identity, processors, stats};

/// Events in flight between a command and its reader.
const EVENT_QUEUE: usize = 4;
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The arguments and environment of a program, which the kernel limits to 2 MiB; what is typed comes in less.
const MAX_PTY_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

type Reply<T> = Result<Response<T>, Status>;
type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub struct Agent {
    pub exec: ExecContext,
    pub python: Python,
    pub ptys: Ptys,
    /// PID 1 of a microVM, as opposed to an ordinary process under test.
    pub is_init: bool,
    pub boot_id: String,
}

/// All services on one router. Cheap to clone.
pub fn routes(agent: Agent) -> Routes {
    let agent = std::sync::Arc::new(agent);
    Routes::new(LifecycleServer::from_arc(agent.clone()))
        .add_service(ExecServer::from_arc(agent.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(PtyServer::from_arc(agent.clone()).max_decoding_message_size(MAX_PTY_MESSAGE_BYTES))
        .add_service(FilesServer::from_arc(agent).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .prepare()
}

#[tonic::async_trait]
impl Lifecycle for Agent {
    async fn ping(&self, _: Request<PingRequest>) -> Reply<PingResponse> {
        Ok(Response::new(PingResponse {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: self.boot_id.clone(),
            uptime_ms: stats::uptime_ms(),
        }))
    }

    async fn personalize(&self, request: Request<PersonalizeRequest>) -> Reply<PersonalizeResponse> {
        let request = request.into_inner();
        let env = request.env.clone();
        let is_init = self.is_init;
        blocking(move || identity::apply(&request, is_init)).await?;
        self.python.reseed();
        *self.exec.env.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = env;
        Ok(Response::new(PersonalizeResponse {}))
    }

    async fn warm(&self, _: Request<WarmRequest>) -> Reply<WarmResponse> {
        for script in ["true", "bash -lc true", "python3 -c pass", "ls -la / >/dev/null; cat /etc/hostname >/dev/null"]
        {
            let start = ExecStart { command: Some(exec_start::Command::Script(script.into())), ..Default::default() };
            let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
            run::start(&self.exec, &start, tokio_stream::pending(), sender, HostLink::default())?;
            drain(receiver).await;
        }
        let cell =
            PythonRequest { code: "import json, os, re, csv, statistics, subprocess\nNone".into(), timeout_ms: 0 };
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        match self.python.run(cell, sender, HostLink::default()).await {
            Ok(()) => drain(receiver).await,
            // A base image without Python makes a template all the same; RunPython says what is missing.
            Err(error) if error.reason == "python_unavailable" => eprintln!("instavm-agent: not warmed: {error}"),
            Err(error) => return Err(error.into()),
        }
        Ok(Response::new(WarmResponse {}))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Reply<SyncResponse> {
        blocking(|| {
            // SAFETY: no preconditions.
            unsafe { libc::sync() };
            Ok(())
        })
        .await?;
        Ok(Response::new(SyncResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Reply<StatsResponse> {
        Ok(Response::new(stats::collect()?))
    }

    async fn power_off(&self, request: Request<PowerOffRequest>) -> Reply<PowerOffResponse> {
        let grace = Duration::from_millis(request.into_inner().grace_ms.into());
        let (exec, ptys, is_init) = (self.exec.clone(), self.ptys.clone(), self.is_init);
        tokio::spawn(async move {
            ptys.hang_up().await;
            if is_init { boot::end_everything(grace).await } else { end_process(exec, ptys, grace).await }
        });
        Ok(Response::new(PowerOffResponse {}))
    }
}

/// What PowerOff is for an agent that is an ordinary process: the end of its commands and terminals and its own.
async fn end_process(exec: ExecContext, ptys: Ptys, grace: Duration) -> ! {
    let deadline = tokio::time::Instant::now() + grace;
    exec.process_groups().iter().for_each(|group| signal_group(*group, libc::SIGTERM));
    while !(exec.process_groups().is_empty() && ptys.none_lives()) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    exec.process_groups().iter().for_each(|group| signal_group(*group, libc::SIGKILL));
    ptys.close_all().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::process::exit(0);
}

async fn drain(mut events: mpsc::Receiver<Result<ExecEvent, Status>>) {
    while events.recv().await.is_some() {}
}

#[tonic::async_trait]
impl Exec for Agent {
    type RunStream = ReceiverStream<Result<ExecEvent, Status>>;
    type RunPythonStream = ReceiverStream<Result<ExecEvent, Status>>;

    async fn run(&self, request: Request<Streaming<ExecRequest>>) -> Reply<Self::RunStream> {
        let link = HostLink::of(&request);
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|request| request.message);
        let Some(exec_request::Message::Start(start)) = first else {
            return Err(AgentError::new("invalid_request", "the first message must be `start`").into());
        };
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        run::start(&self.exec, &start, input, sender, link)?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn run_python(&self, request: Request<PythonRequest>) -> Reply<Self::RunPythonStream> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let link = HostLink::of(&request);
        self.python.run(request.into_inner(), sender, link).await?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Pty for Agent {
    type AttachStream = ReceiverStream<Result<PtyEvent, Status>>;

    async fn create(&self, request: Request<PtyCreateRequest>) -> Reply<PtyInfo> {
        Ok(Response::new(self.ptys.create(request.into_inner()).await?))
    }

    async fn list(&self, _: Request<PtyListRequest>) -> Reply<PtyListResponse> {
        Ok(Response::new(PtyListResponse { ptys: self.ptys.list() }))
    }

    async fn get(&self, request: Request<PtyRequest>) -> Reply<PtyInfo> {
        Ok(Response::new(self.ptys.get(&request.into_inner().id)?))
    }

    async fn attach(&self, request: Request<Streaming<PtyAttachRequest>>) -> Reply<Self::AttachStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.message);
        let Some(pty_attach_request::Message::Open(open)) = first else { return Err(missing_open()) };
        Ok(Response::new(ReceiverStream::new(self.ptys.attach(&open, requests)?)))
    }

    async fn resize(&self, request: Request<PtyResizeRequest>) -> Reply<PtyInfo> {
        Ok(Response::new(self.ptys.resize(&request.into_inner())?))
    }

    async fn signal(&self, request: Request<PtySignalRequest>) -> Reply<PtyInfo> {
        let ptys = self.ptys.clone();
        Ok(Response::new(blocking(move || ptys.signal(&request.into_inner())).await?))
    }

    async fn close(&self, request: Request<PtyRequest>) -> Reply<PtyCloseResponse> {
        self.ptys.close(&request.into_inner().id).await?;
        Ok(Response::new(PtyCloseResponse {}))
    }
}

/// Runs blocking work that fills a reply stream; its error ends the stream.
fn stream_of<M, F>(work: F) -> Reply<EventStream<M>>
where
    M: Send + 'static,
    F: FnOnce(&crate::files::Outgoing<M>) -> crate::error::Result<()> + Send + 'static,
{
    let (sender, receiver) = outgoing();
    tokio::task::spawn_blocking(move || {
        processors::roam();
        if let Err(error) = work(&sender) {
            // A host that has gone needs no error.
            drop(sender.blocking_send(Err(error.into())));
        }
    });
    Ok(Response::new(Box::pin(receiver)))
}

fn missing_open() -> Status {
    AgentError::new("invalid_request", "the first message must be `open`").into()
}

#[tonic::async_trait]
impl Files for Agent {
    type ListStream = EventStream<ListResponse>;
    type ReadStream = EventStream<ReadResponse>;
    type TarOutStream = EventStream<TarOutResponse>;
    type WatchStream = EventStream<WatchEvent>;

    async fn stat(&self, request: Request<StatRequest>) -> Reply<FileInfo> {
        let request = request.into_inner();
        Ok(Response::new(blocking(move || ops::stat(request)).await?))
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<Self::ListStream> {
        let target = request.into_inner().target;
        stream_of(move |reply| ops::list(target, reply))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Reply<Self::ReadStream> {
        let request = request.into_inner();
        stream_of(move |reply| transfer::read(request, reply))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Reply<FileInfo> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|request| request.message);
        let Some(write_request::Message::Open(open)) = first else { return Err(missing_open()) };
        let data = pump(stream, |request: WriteRequest| match request.message {
            Some(write_request::Message::Data(bytes)) => Some(bytes),
            _ => None,
        });
        Ok(Response::new(blocking(move || transfer::write(open, data)).await?))
    }

    async fn mkdir(&self, request: Request<MkdirRequest>) -> Reply<FileInfo> {
        let request = request.into_inner();
        Ok(Response::new(blocking(move || ops::mkdir(request)).await?))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Reply<RemoveResponse> {
        let request = request.into_inner();
        blocking(move || ops::remove(request)).await?;
        Ok(Response::new(RemoveResponse {}))
    }

    async fn rename(&self, request: Request<RenameRequest>) -> Reply<FileInfo> {
        let request = request.into_inner();
        Ok(Response::new(blocking(move || ops::rename(request)).await?))
    }

    async fn tar_in(&self, request: Request<Streaming<TarInRequest>>) -> Reply<TarInResponse> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|request| request.message);
        let Some(tar_in_request::Message::Open(open)) = first else { return Err(missing_open()) };
        let data = pump(stream, |request: TarInRequest| match request.message {
            Some(tar_in_request::Message::Data(bytes)) => Some(bytes),
            _ => None,
        });
        Ok(Response::new(blocking(move || archive::unpack(open, data)).await?))
    }

    async fn tar_out(&self, request: Request<TarOutRequest>) -> Reply<Self::TarOutStream> {
        let request = request.into_inner();
        stream_of(move |reply| archive::pack(request, reply.clone()))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        let (sender, receiver) = outgoing();
        blocking(move || watch::watch(request.into_inner(), sender)).await?;
        Ok(Response::new(Box::pin(receiver.map(|event| event))))
    }
}
