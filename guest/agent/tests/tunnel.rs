//! Tunnels to programs, over the agent's own HTTP/2: answers, ends, resets, and hosts that go.

mod common;

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::Bytes;
use common::{Agent, eventually};
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);
const MAX_TUNNELS: usize = 1024;

struct Host {
    sender: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<()>,
}

struct Tunnel {
    to_program: SendStream<Bytes>,
    from_program: RecvStream,
}

impl Host {
    async fn attach(agent: &Agent) -> Self {
        let stream = common::open_stream(&agent.directory.path().join("agent.sock")).await.unwrap();
        let (sender, connection) =
            h2::client::Builder::new().initial_max_send_streams(2 * MAX_TUNNELS).handshake(stream).await.unwrap();
        // Ends with an error when the test lets it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender, connection }
    }

    async fn ask(&self, authority: &str) -> (Response<RecvStream>, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri(authority).body(()).unwrap();
        let (response, to_program) = sender.send_request(request, false).unwrap();
        (timeout(PATIENCE, response).await.expect("an answer").unwrap(), to_program)
    }

    /// Status and reason.
    async fn refusal(&self, authority: &str) -> (u16, String) {
        let (response, _) = self.ask(authority).await;
        let reason = response.headers().get("instavm-reason").map(|value| value.to_str().unwrap());
        (response.status().as_u16(), reason.unwrap_or("none").to_owned())
    }

    /// A tunnel to a program, and the program's end of it.
    async fn open(&self, listener: &TcpListener) -> (Tunnel, TcpStream) {
        let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (answer, program) = tokio::join!(self.ask(&authority), listener.accept());
        assert_eq!(answer.0.status(), 200);
        (Tunnel { to_program: answer.1, from_program: answer.0.into_body() }, program.unwrap().0)
    }

    /// As a daemon that dies, or a microVM that is suspended: without a word on any stream.
    fn vanish(self) {
        self.connection.abort();
    }
}

impl Tunnel {
    fn send(&mut self, text: &'static str, is_last: bool) {
        self.to_program.send_data(Bytes::from_static(text.as_bytes()), is_last).unwrap();
    }

    /// All up to the end, or how it was reset.
    async fn rest(&mut self) -> Result<Vec<u8>, Option<Reason>> {
        let mut all = vec![];
        while let Some(piece) = timeout(PATIENCE, self.from_program.data()).await.expect("more") {
            let piece = piece.map_err(|error| error.reason())?;
            self.from_program.flow_control().release_capacity(piece.len()).unwrap();
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn outcome(program: &mut TcpStream) -> std::io::Result<usize> {
    timeout(PATIENCE, program.read(&mut [0; 64])).await.expect("the end of its connection")
}

/// Of a program that has read to the end already.
async fn eventually_reset(program: &mut TcpStream) {
    while program.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_side_ends_without_the_other() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let (mut tunnel, mut program) = host.open(&listener).await;
    tunnel.send("question", true);
    let mut asked = String::new();
    program.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "question");
    program.write_all(b"answer").await.unwrap();
    drop(program);
    assert_eq!(tunnel.rest().await.unwrap(), b"answer");

    let (mut tunnel, mut program) = host.open(&listener).await;
    program.write_all(b"greeting").await.unwrap();
    program.shutdown().await.unwrap();
    assert_eq!(tunnel.rest().await.unwrap(), b"greeting");
    tunnel.send("late", true);
    let mut late = String::new();
    program.read_to_string(&mut late).await.unwrap();
    assert_eq!(late, "late");
}

#[tokio::test]
async fn what_either_side_breaks_off_is_reset_for_the_other() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let (mut tunnel, mut program) = host.open(&listener).await;
    tunnel.to_program.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(outcome(&mut program).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    // At once, also when it had nothing more to say.
    let (mut tunnel, mut program) = host.open(&listener).await;
    tunnel.send("question", true);
    program.read_to_string(&mut String::new()).await.unwrap();
    let begun = std::time::Instant::now();
    tunnel.to_program.send_reset(Reason::CANCEL);
    eventually_reset(&mut program).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());

    let (mut tunnel, program) = host.open(&listener).await;
    program.set_zero_linger().unwrap();
    drop(program);
    assert_eq!(tunnel.rest().await, Err(Some(Reason::CANCEL)));
}

/// As a server that answers and closes before it has read all of the request: the kernel resets such a connection behind the answer.
#[tokio::test]
async fn what_a_program_said_arrives_before_the_reset() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    for round in 0..40 {
        let (mut tunnel, mut program) = host.open(&listener).await;
        tunnel.send("question", false);
        assert!(program.peek(&mut [0; 8]).await.unwrap() > 0);
        if round % 2 == 0 {
            tunnel.to_program.send_data(vec![7; 4 << 20].into(), false).unwrap();
        }
        program.write_all(b"answer").await.unwrap();
        drop(program);
        let mut answer = vec![];
        let end = loop {
            match timeout(PATIENCE, tunnel.from_program.data()).await.expect("the end") {
                Some(Ok(piece)) => answer.extend_from_slice(&piece),
                Some(Err(error)) => break error.reason(),
                None => break None,
            }
        };
        assert_eq!((&answer[..], end), (&b"answer"[..], Some(Reason::CANCEL)), "in round {round}");
    }
}

#[tokio::test]
async fn what_the_host_sent_reaches_the_program_before_the_reset() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let agent_pid = agent.pid() as i32;
    for _ in 0..5 {
        let (mut tunnel, mut program) = host.open(&listener).await;
        // SAFETY: this test's own agent, which sees nothing of the three before it has seen all.
        unsafe { libc::kill(agent_pid, libc::SIGSTOP) };
        for text in ["one ", "two"] {
            tunnel.send(text, false);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tunnel.to_program.send_reset(Reason::CANCEL);
        tokio::time::sleep(Duration::from_millis(20)).await;
        // SAFETY: as above.
        unsafe { libc::kill(agent_pid, libc::SIGCONT) };
        let mut received = vec![];
        let end = timeout(PATIENCE, program.read_to_end(&mut received)).await.expect("the end");
        assert_eq!((&received[..], end.unwrap_err().kind()), (&b"one two"[..], ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_with_a_reason() {
    let agent = Agent::start().await;
    let host = Host::attach(&agent).await;
    // Nobody else gets the port, and nobody listens on it.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = bound.local_addr().unwrap().port();
    assert_eq!(host.refusal(&format!("localhost:{port}")).await, (502, "connection_refused".into()));
    for authority in ["localhost:0", "127.0.0.1:80", "example.com:80"] {
        assert_eq!(host.refusal(authority).await, (400, "invalid_request".into()), "{authority}");
    }
}

#[tokio::test]
async fn a_host_that_vanishes_ends_its_tunnels_even_of_a_program_that_said_all_and_reads_nothing() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let (_idle, mut waiting) = host.open(&listener).await;
    let (mut stalled, mut deaf) = host.open(&listener).await;
    deaf.shutdown().await.unwrap();
    assert_eq!(stalled.rest().await.unwrap(), b"");
    // More than the kernel keeps for the program: the agent cannot write any more.
    stalled.to_program.reserve_capacity(1 << 20);
    stalled.to_program.send_data(vec![7; 32 << 20].into(), false).unwrap();
    stalls(&deaf).await;
    let before = open_files(&agent);
    host.vanish();
    assert_eq!(outcome(&mut waiting).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually("its connection and both programs' are closed", || open_files(&agent) <= before - 3).await;
    let before = processor_time(&agent);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(processor_time(&agent) - before <= 5, "it is idle");
    let mut rest = vec![];
    assert_eq!(deaf.read_to_end(&mut rest).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn beyond_the_limit_a_tunnel_is_refused_and_calls_are_answered_and_a_place_is_free_again_at_once() {
    raise_file_limit();
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let mut open = vec![];
    for _ in 0..MAX_TUNNELS {
        open.push(host.open(&listener).await);
    }
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    assert_eq!(host.refusal(&authority).await, (429, "too_many_tunnels".into()));
    assert_eq!(agent.script("echo alive").await.stdout(), "alive\n");
    drop(open.pop());
    while host.ask(&authority).await.0.status() != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn thousands_that_are_given_up_at_once_leave_the_connection_as_it_is() {
    let (agent, listener) = (Agent::start().await, listener().await);
    let host = Host::attach(&agent).await;
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    for _ in 0..3000 {
        let mut sender = host.sender.clone().ready().await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri(&authority).body(()).unwrap();
        let (_response, mut to_program) = sender.send_request(request, false).unwrap();
        to_program.send_data(Bytes::from_static(b"x"), false).unwrap();
        to_program.send_reset(Reason::CANCEL);
    }
    let (answer, _to_program) = host.ask(&authority).await;
    assert_eq!(answer.status(), 200);
}

/// Waits until no more arrives at a program that does not read.
async fn stalls(program: &TcpStream) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut unread: libc::c_int = 0;
        // SAFETY: a socket, and an int to write to.
        assert_eq!(unsafe { libc::ioctl(program.as_raw_fd(), libc::FIONREAD, &mut unread) }, 0);
        if unread > 0 && unread == seen {
            return;
        }
        seen = unread;
    }
}

fn open_files(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

/// Of all its threads, in ticks of 10 ms.
fn processor_time(agent: &Agent) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Of this process and the agents that it starts.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid rlimit, for both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(16_384);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}
