//! Commands: output, input, ends, limits.

mod common;

use std::time::Duration;

use common::*;
use instavm_agent::proto::*;

#[tokio::test]
async fn output_is_split_by_stream_and_the_exit_code_is_exact() {
    let agent = Agent::start().await;
    let output = agent.script("echo out; echo err >&2; exit 42").await;
    assert_eq!((output.stdout(), output.stderr(), output.exit.code), ("out\n".into(), "err\n".into(), 42));
    assert!(!output.exit.timed_out && output.exit.wall_time_us > 0);
}

#[tokio::test]
async fn a_signal_that_ended_the_command_is_named() {
    let agent = Agent::start().await;
    let output = agent.script("kill -SEGV $$").await;
    assert_eq!((output.exit.code, output.exit.signal), (128 + 11, 11));
}

#[tokio::test]
async fn argv_reaches_the_program_as_it_is_with_environment_and_directory() {
    let agent = Agent::start().await;
    let start = ExecStart {
        command: argv(&[
            "python3",
            "-c",
            "import sys,os;print(sys.argv[1:],os.environ['X'],os.getcwd())",
            "a b",
            "$X",
            "",
        ]),
        env: [("X".to_owned(), "ünï".to_owned())].into(),
        cwd: "/usr".into(),
        ..Default::default()
    };
    assert_eq!(agent.run(start).await.unwrap().stdout(), "['a b', '$X', ''] ünï /usr\n");
}

#[tokio::test]
async fn what_cannot_start_has_a_reason() {
    let agent = Agent::start().await;
    let cases = [
        (ExecStart { command: argv(&["no-such-program"]), ..Default::default() }, "command_not_found"),
        (ExecStart { command: argv(&["/etc"]), ..Default::default() }, "permission_denied"),
        (ExecStart { command: argv(&[]), ..Default::default() }, "invalid_request"),
        (ExecStart { command: None, ..Default::default() }, "invalid_request"),
        (ExecStart { command: script("a\0b"), ..Default::default() }, "invalid_request"),
        (ExecStart { command: script("true"), cwd: "/nowhere".into(), ..Default::default() }, "cwd_not_found"),
        (ExecStart { command: script("true"), user: "nobody-here".into(), ..Default::default() }, "user_unknown"),
        (
            ExecStart { command: script("true"), env: [("A=B".into(), "c".into())].into(), ..Default::default() },
            "invalid_request",
        ),
    ];
    for (start, expected) in cases {
        let status = agent.run(start.clone()).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{start:?}: {status:?}");
    }
}

#[tokio::test]
async fn a_script_of_a_megabyte_runs_and_reads_its_own_stdin() {
    let agent = Agent::start().await;
    let text = format!("# {}\nread line; echo \"got $line\"\n", "x".repeat(1 << 20));
    let start = ExecStart { command: script(&text), stdin: true, ..Default::default() };
    let rest = vec![exec_request::Message::Stdin("hello\n".into()), exec_request::Message::StdinEnd(StdinEnd {})];
    let call = agent.call(start, rest).await.unwrap();
    assert_eq!(call.finish().await.unwrap().stdout(), "got hello\n");
}

#[tokio::test]
async fn stdin_is_fed_to_the_end_and_is_empty_when_not_asked_for() {
    let agent = Agent::start().await;
    let start = ExecStart { command: argv(&["sha256sum"]), stdin: true, ..Default::default() };
    let chunk = bytes::Bytes::from(vec![b'a'; 100_000]);
    let mut rest = vec![exec_request::Message::Stdin(chunk); 50];
    rest.push(exec_request::Message::StdinEnd(StdinEnd {}));
    let call = agent.call(start, rest).await.unwrap();
    let expected = agent.script("head -c 5000000 /dev/zero | tr '\\0' a | sha256sum").await;
    assert_eq!(call.finish().await.unwrap().stdout(), expected.stdout());
    assert_eq!(agent.script("wc -c").await.stdout(), "0\n");
}

#[tokio::test]
async fn a_signal_reaches_a_command_that_does_not_read_its_stdin() {
    let agent = Agent::start().await;
    let start = ExecStart {
        command: script("trap 'echo caught; exit 3' USR1; echo ready; sleep 60 & wait"),
        stdin: true,
        ..Default::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    sender.send(ExecRequest { message: Some(exec_request::Message::Start(start)) }).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut stream = agent.exec().run(requests).await.unwrap().into_inner();
    for _ in 0..3 {
        let stdin = exec_request::Message::Stdin(vec![0; 200_000].into());
        sender.send(ExecRequest { message: Some(stdin) }).await.unwrap();
    }
    let mut next = async || stream.message().await.unwrap().expect("one more event").event.expect("an event");
    assert!(matches!(next().await, exec_event::Event::Started(_)));
    assert_eq!(next().await, exec_event::Event::Stdout("ready\n".into()));
    sender.send(ExecRequest { message: Some(exec_request::Message::Signal(libc::SIGUSR1)) }).await.unwrap();
    assert_eq!(next().await, exec_event::Event::Stdout("caught\n".into()));
    let exec_event::Event::Exit(exit) = next().await else { panic!("it ends") };
    assert_eq!(exit.code, 3);
}

#[tokio::test]
async fn the_time_limit_ends_the_whole_group_even_when_sigterm_is_ignored() {
    let agent = Agent::start().await;
    let text = "trap '' TERM; (trap '' TERM; echo $BASHPID; exec sleep 300) & wait; sleep 300";
    let start = ExecStart { command: script(text), timeout_ms: 2_000, ..Default::default() };
    // Far less than what they would sleep.
    let output = tokio::time::timeout(Duration::from_secs(120), agent.run(start)).await.unwrap().unwrap();
    assert!(output.exit.timed_out);
    assert_eq!((output.exit.code, output.exit.signal), (124, 9));
    let child: i32 = output.stdout().trim().parse().unwrap();
    eventually("the child is gone", || !is_running(child)).await;
}

#[tokio::test]
async fn a_command_that_obeys_sigterm_gets_to_clean_up() {
    let agent = Agent::start().await;
    let start = ExecStart {
        command: script("trap 'echo bye; exit 0' TERM; sleep 300 & wait"),
        timeout_ms: 2_000,
        ..Default::default()
    };
    let output = agent.run(start).await.unwrap();
    assert_eq!((output.stdout(), output.exit.timed_out, output.exit.code), ("bye\n".into(), true, 124));
}

#[tokio::test]
async fn a_cancelled_call_kills_the_process_group() {
    let agent = Agent::start().await;
    let start = ExecStart { command: script("sleep 300 & echo $!; wait"), ..Default::default() };
    let mut call = agent.call(start, vec![]).await.unwrap();
    let child = loop {
        if let exec_event::Event::Stdout(bytes) = call.next().await {
            break String::from_utf8_lossy(&bytes).trim().parse::<i32>().unwrap();
        }
    };
    assert!(is_running(child));
    drop(call);
    eventually("the child is gone", || !is_running(child)).await;
}

#[tokio::test]
async fn a_background_child_delays_nothing_and_outlives_its_writes() {
    let agent = Agent::start().await;
    let (go, marker) = (agent.path("go"), agent.path("marker"));
    let text = format!("(until test -e {go}; do sleep 0.05; done; echo late; echo later; touch {marker}) & echo now");
    // The child's hold on stdout is not waited for: it would be for ever.
    let output = agent.script(&text).await;
    assert_eq!(output.stdout(), "now\n");
    std::fs::write(go, "").unwrap();
    eventually("the child survives writing after its command ended", || std::path::Path::new(&marker).exists()).await;
}

#[tokio::test]
async fn a_background_child_that_never_stops_writing_does_not_keep_the_command_open() {
    let agent = Agent::start().await;
    let output = agent.script("yes & echo $! >&2; sleep 0.2").await;
    let child: i32 = output.stderr().trim().parse().unwrap();
    assert_eq!(output.exit.code, 0);
    // SAFETY: a pid that was just reported and belongs to this test.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

#[tokio::test]
async fn a_background_child_outlives_its_writes_when_the_reader_goes_before_the_rest_of_the_output() {
    let agent = Agent::start().await;
    let (go, marker, leader) = (agent.path("go"), agent.path("marker"), agent.path("leader"));
    let left = format!("until test -e {go}; do sleep 0.05; done; echo late; echo later; touch {marker}");
    // Ends when nothing takes its output any more, and leaves a full pipe.
    let program = format!(
        "import os, subprocess, time
subprocess.Popen(['sh', '-c', '{left}'])
open('{leader}', 'w').write(str(os.getpid()))
os.set_blocking(1, False)
full = 0
while full < 20:
    try:
        os.write(1, bytes(4096))
        full = 0
    except BlockingIOError:
        full += 1
        time.sleep(0.05)
os.set_blocking(1, True)"
    );
    let mut start = ExecStart { command: argv(&["python3", "-c", &program]), ..Default::default() };
    start.cwd = "/".into();
    let call = agent.call(start, vec![]).await.unwrap();
    let has_ended = || {
        let pid = std::fs::read_to_string(&leader).unwrap_or_default();
        !pid.is_empty() && !std::path::Path::new("/proc").join(pid).exists()
    };
    eventually("the command has ended", has_ended).await;
    // Answered after the agent has seen that.
    agent.script("true").await;
    drop(call);
    std::fs::write(go, "").unwrap();
    eventually("the child survives writing after the reader has gone", || std::path::Path::new(&marker).exists()).await;
}

#[tokio::test]
async fn output_waits_for_its_reader_and_none_is_lost() {
    let agent = Agent::start().await;
    let start = ExecStart { command: script("head -c 50000000 /dev/zero; touch \"$DONE\""), ..Default::default() };
    let done = agent.path("done");
    let start = ExecStart { env: [("DONE".to_owned(), done.clone())].into(), ..start };
    let call = agent.call(start, vec![]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!std::path::Path::new(&done).exists(), "50 MB do not fit into what may wait for a reader");
    // Another call goes on meanwhile.
    assert_eq!(agent.script("echo beside").await.stdout(), "beside\n");
    assert_eq!(call.finish().await.unwrap().stdout.len(), 50_000_000);
}

#[tokio::test]
async fn time_spent_waiting_for_the_reader_after_the_end_is_not_a_timeout() {
    let agent = Agent::start().await;
    // Fits the pipe and what may wait, so the command ends at once.
    let start = ExecStart { command: script("head -c 3000000 /dev/zero"), timeout_ms: 1500, ..Default::default() };
    let call = agent.call(start, vec![]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let output = call.finish().await.unwrap();
    assert_eq!((output.stdout.len(), output.exit.timed_out, output.exit.code), (3_000_000, false, 0));
}

#[tokio::test]
async fn fifty_commands_at_once_all_answer_right() {
    let agent = Agent::start().await;
    let calls = (0..50).map(|number| {
        let client = agent.exec();
        tokio::spawn(async move {
            let start = ExecStart { command: script(&format!("echo {number}; exit {number}")), ..Default::default() };
            call(client, start, vec![]).await.unwrap().finish().await.unwrap()
        })
    });
    for (number, answer) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let output = answer.await.unwrap();
        assert_eq!((output.stdout(), output.exit.code), (format!("{number}\n"), number as i32));
    }
}

#[tokio::test]
async fn more_commands_than_allowed_are_refused_by_name() {
    let agent = Agent::start().await;
    let mut held = vec![];
    let refused = loop {
        let start = ExecStart { command: argv(&["sleep", "300"]), ..Default::default() };
        match agent.call(start, vec![]).await {
            Ok(call) => held.push(call),
            Err(status) => break status,
        }
        assert!(held.len() <= 256);
    };
    assert_eq!((reason(&refused), held.len()), ("too_many_execs", 256));
    drop(held);
    eventually_ok(&agent).await;
}

async fn eventually_ok(agent: &Agent) {
    for _ in 0..12_000 {
        if agent.run(ExecStart { command: argv(&["true"]), ..Default::default() }).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("places are not freed when calls are cancelled");
}

#[tokio::test]
async fn a_user_brings_its_ids_groups_and_home() {
    if !is_root() {
        return;
    }
    let agent = Agent::start().await;
    let start = ExecStart {
        command: script("id -u; echo $HOME $USER $LOGNAME"),
        user: "daemon".into(),
        cwd: "/".into(),
        ..Default::default()
    };
    let by_name = agent.run(start.clone()).await.unwrap();
    assert_eq!(by_name.stdout(), "1\n/usr/sbin daemon daemon\n");
    let by_number = agent.run(ExecStart { user: "1".into(), ..start }).await.unwrap();
    assert_eq!(by_number.stdout(), by_name.stdout());
}

#[tokio::test]
async fn cpu_time_counts_the_commands_children() {
    let agent = Agent::start().await;
    let output = agent.script("python3 -c 'import time\nwhile time.process_time() < 0.3: pass'").await;
    assert!(output.exit.cpu_time_us >= 250_000, "{:?}", output.exit);
}

#[tokio::test]
async fn a_command_of_a_lost_host_goes_on_unread_within_its_time_limit() {
    let agent = Agent::start().await;
    let (channel, socket) = agent.connect_again().await;
    let client = instavm_agent::proto::exec_client::ExecClient::new(channel);
    let (go, marker) = (agent.path("go"), agent.path("marker"));
    let busy = format!(
        "for i in $(seq 40); do head -c 100000 /dev/zero; sleep 0.02; done; echo done > {marker}
        until test -e {go}; do sleep 0.05; done"
    );
    let begin = async |text: &str, timeout_ms| {
        let start = ExecStart { command: script(text), timeout_ms, ..Default::default() };
        let mut call = call(client.clone(), start, vec![]).await.unwrap();
        let exec_event::Event::Started(ExecStarted { pid }) = call.next().await else {
            panic!("`started` comes first")
        };
        (call, pid)
    };
    let (_busy, pid) = begin(&busy, 600_000).await;
    let (_limited, limited) = begin("exec sleep 300", 2_000).await;
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("it has written all that nobody reads", || std::fs::read_to_string(&marker).is_ok()).await;
    assert!(is_running(pid));
    assert_eq!(agent.script("echo still here").await.stdout(), "still here\n");
    eventually("the limit ends the other", || !is_running(limited)).await;
    assert!(is_running(pid));
    std::fs::write(go, "").unwrap();
    eventually("it ends", || !is_running(pid)).await;
}

#[tokio::test]
async fn commands_that_were_cancelled_are_killed_even_when_their_host_is_lost_in_the_same_moment() {
    let agent = Agent::start().await;
    let (channel, socket) = agent.connect_again().await;
    let client = instavm_agent::proto::exec_client::ExecClient::new(channel);
    let (mut calls, mut pids) = (vec![], vec![]);
    for _ in 0..20 {
        let start = ExecStart { command: argv(&["sleep", "300"]), ..Default::default() };
        let mut call = call(client.clone(), start, vec![]).await.unwrap();
        let exec_event::Event::Started(ExecStarted { pid }) = call.next().await else {
            panic!("`started` comes first")
        };
        calls.push(call);
        pids.push(pid);
    }
    let agent_pid = agent.pid() as i32;
    // SAFETY: this test's own agent, which sees neither before it has seen both.
    unsafe { libc::kill(agent_pid, libc::SIGSTOP) };
    drop(calls);
    tokio::time::sleep(Duration::from_millis(100)).await;
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    // SAFETY: as above.
    unsafe { libc::kill(agent_pid, libc::SIGCONT) };
    eventually("all are killed", || !pids.iter().any(|pid| is_running(*pid))).await;
}
