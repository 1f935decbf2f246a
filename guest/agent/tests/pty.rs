//! Terminals: what a program finds, how it is driven and ended, who may have how many.

mod common;

use std::time::{Duration, Instant};

use common::pty::*;
use common::*;
use instavm_agent::proto::*;
use proptest::prelude::*;

#[tokio::test]
async fn a_program_finds_a_controlling_terminal_of_the_asked_size() {
    let agent = Agent::start().await;
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo on a terminal; echo by name > /dev/tty
        stty size; stty -a | grep -o ' iutf8'; stat -c %a $(tty); ps -o sid=,pgid=,tpgid= -p $$ | tr -s ' '; echo $$";
    agent.create(PtyCreateRequest { cols: 100, rows: 30, ..bash("t", script) }).await.unwrap();
    let mut viewer = agent.attach(open("t")).await.unwrap();
    assert_eq!(viewer.finish().await, PtyExit { code: 0, signal: 0 });
    let text = viewer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[1..6], ["on a terminal", "by name", "30 100", " iutf8", "620"]);
    let pid = lines[7];
    assert_eq!(
        lines[6].trim(),
        format!("{pid} {pid} {pid}"),
        "session, group and foreground group are the program's own"
    );
    assert_eq!(viewer.opened.info.as_ref().unwrap().pid.to_string(), pid);
}

#[tokio::test]
async fn a_program_inherits_nothing_of_the_agents_descriptors_and_signals() {
    let agent = Agent::start().await;
    agent.create(program("other", &["cat"])).await.unwrap();
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done; grep -E 'Sig(Blk|Ign)' /proc/$$/status";
    let mut viewer = agent.terminal(script).await;
    viewer.finish().await;
    let text = viewer.text();
    assert_eq!(text.matches("/dev/pts/").count(), 3, "{text}");
    // What the agent itself was started with is passed on; its own is not.
    assert!(!["ptmx", "socket", "anon_inode"].iter().any(|its| text.contains(its)), "{text}");
    // Signal 32 belongs to the C library, which lets nobody touch it.
    let signals = text.replace("0000000080000000", "0000000000000000");
    assert_eq!(signals.matches("0000000000000000").count(), 2, "{text}");
}

#[tokio::test]
async fn environment_and_directory_are_as_for_commands_and_term_has_a_default() {
    let agent = Agent::start().await;
    let script = "echo $TERM $X $HOME $LANG $PWD";
    let given = |env: &[(&str, &str)]| env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let request = PtyCreateRequest { cwd: "/usr".into(), env: given(&[("X", "ünï")]), ..bash("t", script) };
    agent.create(request).await.unwrap();
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.finish().await;
    assert_eq!(viewer.text(), "xterm-256color ünï /root C.UTF-8 /usr\r\n");
    agent.create(PtyCreateRequest { env: given(&[("TERM", "dumb")]), ..bash("t", "echo $TERM") }).await.unwrap();
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.finish().await;
    assert_eq!(viewer.text(), "dumb\r\n");
}

#[tokio::test]
async fn the_terminal_belongs_to_the_user_it_is_for() {
    if !is_root() {
        return;
    }
    let agent = Agent::start().await;
    let script = "id -un; stat -c '%U %a' $(tty); echo $HOME; echo yes > /dev/tty";
    let info =
        agent.create(PtyCreateRequest { user: "daemon".into(), cwd: "/".into(), ..bash("t", script) }).await.unwrap();
    assert_eq!(info.user, "daemon");
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.finish().await;
    assert_eq!(viewer.text(), "daemon\r\ndaemon 620\r\n/usr/sbin\r\nyes\r\n");
}

#[tokio::test]
async fn what_cannot_start_has_a_reason_and_leaves_no_pty() {
    let agent = Agent::start().await;
    let cases = [
        (program("t", &["no-such-program"]), "command_not_found"),
        (program("t", &["/etc"]), "permission_denied"),
        (program("t", &[]), "invalid_request"),
        (program("t", &["a\0b"]), "invalid_request"),
        (PtyCreateRequest { cwd: "/nowhere".into(), ..bash("t", "true") }, "cwd_not_found"),
        (PtyCreateRequest { user: "nobody-here".into(), ..bash("t", "true") }, "user_unknown"),
        (PtyCreateRequest { cols: 65536, ..bash("t", "true") }, "invalid_request"),
        (PtyCreateRequest { rows: u32::MAX, ..bash("t", "true") }, "invalid_request"),
        (bash("", "true"), "invalid_request"),
        (bash("a b", "true"), "invalid_request"),
        (bash("ü", "true"), "invalid_request"),
        (bash("../t", "true"), "invalid_request"),
        (bash(&"x".repeat(129), "true"), "invalid_request"),
    ];
    for (request, expected) in cases {
        let status = agent.create(request.clone()).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{request:?}: {status:?}");
    }
    assert_eq!(agent.list().await, vec![]);
    agent.create(bash(&"aZ0._:-".repeat(18), "true")).await.unwrap();
}

#[tokio::test]
async fn exit_code_and_signal_are_exact() {
    let agent = Agent::start().await;
    assert_eq!(agent.terminal("echo bye; exit 42").await.finish().await, PtyExit { code: 42, signal: 0 });
    assert_eq!(agent.terminal("kill -SEGV $$").await.finish().await, PtyExit { code: 139, signal: 11 });
    let info = agent.info("t").await.unwrap();
    assert_eq!((info.alive, info.exit_code, info.exit_signal), (false, 139, 11));
}

#[tokio::test]
async fn a_new_size_reaches_the_program_and_the_other_viewers() {
    let agent = Agent::start().await;
    // Not bash, whose trap forgets a signal that comes while the trap runs.
    let script =
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\nprint('ready', flush=True)
while True:
  signal.sigwait({signal.SIGWINCH})
  print(os.get_terminal_size(0), flush=True)";
    agent.create(program("t", &["python3", "-c", script])).await.unwrap();
    let mut viewer = agent.attach(open("t")).await.unwrap();
    let mut other = agent.attach(follow("t")).await.unwrap();
    viewer.until("ready").await;
    viewer.send(Message::Resize(PtySize { cols: 132, rows: 43 })).await;
    viewer.until("columns=132, lines=43").await;
    other.until("columns=132, lines=43").await;
    let resize = PtyResizeRequest { id: "t".into(), cols: 90, rows: 20 };
    let info = agent.pty().resize(resize).await.unwrap().into_inner();
    assert_eq!((info.cols, info.rows), (90, 20));
    viewer.until("columns=90, lines=20").await;
    other.until("columns=90, lines=20").await;
    assert_eq!((viewer.sizes, other.sizes), (vec![(90, 20)], vec![(132, 43), (90, 20)]));
}

#[tokio::test]
async fn keys_interrupt_and_a_character_is_erased_as_a_whole() {
    let agent = Agent::start().await;
    let mut viewer = agent.terminal("exec cat").await;
    viewer.type_in("aé中😀\x7f\x7f\x7fb\n").await;
    viewer.until("\r\nab\r\n").await;
    viewer.type_in("\x03").await;
    assert_eq!(viewer.finish().await, PtyExit { code: 130, signal: 2 });
}

#[tokio::test]
async fn an_interactive_shell_has_job_control() {
    let agent = Agent::start().await;
    agent.create(program("t", &["bash", "--norc", "-i"])).await.unwrap();
    let mut shell = agent.attach(open("t")).await.unwrap();
    // Typed ahead of the prompt.
    shell.type_in("PS1='> '; sh -c 'echo run''ning; exec sleep 100'\n").await;
    shell.until("running").await;
    shell.type_in("\x1a").await;
    shell.until("Stopped").await;
    shell.type_in("fg\n").await;
    shell.until("fg\r\n").await;
    let foreground = || async {
        let info = agent.info("t").await.unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", info.pid)).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(5).unwrap().parse::<i32>().unwrap() != info.pid
    };
    while !foreground().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // By RPC this time: the job ends, the shell does not.
    signal(&agent, libc::SIGINT, false).await.unwrap();
    shell.type_in("echo code $?\n").await;
    shell.until("\rcode 130").await;
    shell.type_in("exit 7\n").await;
    assert_eq!(shell.finish().await, PtyExit { code: 7, signal: 0 });
    // Too late, and no error.
    signal(&agent, libc::SIGINT, false).await.unwrap();
    signal(&agent, libc::SIGINT, true).await.unwrap();
}

async fn signal(agent: &Agent, signal: i32, session: bool) -> Result<PtyInfo, tonic::Status> {
    Ok(agent.pty().signal(PtySignalRequest { id: "t".into(), signal, session }).await?.into_inner())
}

#[tokio::test]
async fn a_signal_for_the_session_reaches_every_process_group_of_it() {
    let agent = Agent::start().await;
    let mut viewer = agent.terminal("set -m; sleep 100 & echo pid $!.; wait").await;
    viewer.until("pid ").await;
    let child: i32 = viewer.until(".").await.parse().unwrap();
    for wrong in [0, -1, 65, i32::MAX] {
        assert_eq!(reason(&signal(&agent, wrong, true).await.unwrap_err()), "invalid_request");
    }
    signal(&agent, libc::SIGTERM, true).await.unwrap();
    assert_eq!(viewer.finish().await.signal, libc::SIGTERM);
    eventually("the child is gone", || !is_running(child)).await;
}

#[tokio::test]
async fn closing_ends_even_what_ignores_the_hangup_or_left_the_process_group() {
    let agent = Agent::start().await;
    let script = "set -m; (trap '' HUP TERM; echo pid $BASHPID.; while :; do sleep 1; done) &
        sleep 300 & echo pid $!.; trap '' HUP; echo pid $$.; while :; do wait; done";
    let mut viewer = agent.terminal(script).await;
    let mut pids = vec![];
    for _ in 0..3 {
        viewer.until("pid ").await;
        pids.push(viewer.until(".").await.parse::<i32>().unwrap());
    }
    assert!(pids.iter().all(|pid| is_running(*pid)));
    agent.close("t").await.unwrap();
    assert_eq!(pids.iter().find(|pid| is_running(**pid)), None, "of {pids:?}");
    // Who looks on sees the end; for everyone else it never was.
    assert_eq!(viewer.finish().await, PtyExit { code: 137, signal: 9 });
    assert_eq!(reason(&agent.close("t").await.unwrap_err()), "pty_not_found");
    assert_eq!(agent.list().await, vec![]);
}

#[tokio::test]
async fn closing_an_obedient_shell_does_not_wait_for_the_kill() {
    let agent = Agent::start().await;
    agent.create(program("t", &["bash", "--norc", "-i"])).await.unwrap();
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.type_in("echo rea''dy\n").await;
    viewer.until("ready").await;
    let viewing = tokio::spawn(async move { viewer.finish().await });
    agent.close("t").await.unwrap();
    assert_eq!(viewing.await.unwrap().signal, libc::SIGHUP);
    assert_eq!(agent.list().await, vec![]);
}

#[tokio::test]
async fn an_id_is_taken_while_its_program_runs_and_free_when_it_has_ended() {
    let agent = Agent::start().await;
    let first = agent.create(program("t", &["cat"])).await.unwrap();
    assert_eq!(reason(&agent.create(program("t", &["cat"])).await.unwrap_err()), "pty_exists");
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.type_in("\x04").await;
    assert_eq!(viewer.finish().await.code, 0);
    let second = agent.create(program("t", &["sleep", "100"])).await.unwrap();
    assert!(first.pid != second.pid && second.alive && second.end_offset == 0);
    let ids: Vec<_> = agent.list().await.into_iter().map(|info| (info.id, info.pid)).collect();
    assert_eq!(ids, [("t".to_owned(), second.pid)]);
    for id in ["other", ""] {
        assert_eq!(reason(&agent.info(id).await.unwrap_err()), "pty_not_found");
        assert_eq!(reason(&agent.attach(open(id)).await.err().unwrap()), "pty_not_found");
        let resize = PtyResizeRequest { id: id.into(), cols: 1, rows: 1 };
        assert_eq!(reason(&agent.pty().resize(resize).await.unwrap_err()), "pty_not_found");
    }
}

#[tokio::test]
async fn sixty_four_run_at_once_and_the_next_is_refused_until_one_ends() {
    let agent = Agent::start().await;
    let before = agent.memory_bytes();
    let creates = (0..64).map(|number| {
        let mut client = agent.pty();
        tokio::spawn(async move { client.create(program(&format!("t{number}"), &["cat"])).await.map(drop) })
    });
    for create in creates.collect::<Vec<_>>() {
        create.await.unwrap().unwrap();
    }
    assert_eq!(reason(&agent.create(program("one-more", &["cat"])).await.unwrap_err()), "too_many_ptys");
    for number in 0..64 {
        let mut viewer = agent.attach(open(&format!("t{number}"))).await.unwrap();
        viewer.type_in(format!("hello {number}\n")).await;
        viewer.until(&format!("\r\nhello {number}\r\n")).await;
    }
    let each = (agent.memory_bytes() - before) / 64;
    assert!(each < 60 * 1024, "{each} bytes for an idle PTY");
    agent.close("t3").await.unwrap();
    agent.create(program("one-more", &["cat"])).await.unwrap();
    assert_eq!(agent.list().await.len(), 64);
}

#[tokio::test]
async fn sixty_four_that_ended_are_remembered() {
    let agent = Agent::start().await;
    agent.create(program("old", &["cat"])).await.unwrap();
    for number in 0..66 {
        agent.create(program(&format!("t{number}"), &["true"])).await.unwrap();
        agent.attach(open(&format!("t{number}"))).await.unwrap().finish().await;
    }
    let ids: Vec<_> = agent.list().await.into_iter().map(|info| info.id).collect();
    let expected: Vec<_> = std::iter::once("old".into()).chain((2..66).map(|number| format!("t{number}"))).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn sixteen_view_one_pty_and_the_next_is_refused_until_one_leaves() {
    let agent = Agent::start().await;
    agent.create(program("t", &["cat"])).await.unwrap();
    let mut viewers = vec![];
    for _ in 0..16 {
        viewers.push(agent.attach(follow("t")).await.unwrap());
    }
    assert_eq!(reason(&agent.attach(follow("t")).await.err().unwrap()), "too_many_viewers");
    viewers[0].type_in("to all\n").await;
    for viewer in &mut viewers {
        viewer.until("to all\r\nto all\r\n").await;
    }
    assert_eq!(agent.info("t").await.unwrap().viewers, 16);
    viewers.pop();
    while agent.attach(follow("t")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nobody_looking_for_the_linger_time_closes_it_running_or_ended() {
    let agent = Agent::start().await;
    let lingering = |request| PtyCreateRequest { linger_ms: 2_000, ..request };
    let pid = agent.create(lingering(bash("t", "trap '' HUP; while :; do sleep 1; done"))).await.unwrap().pid;
    agent.create(lingering(bash("ended", "echo done"))).await.unwrap();
    agent.create(lingering(program("viewed", &["cat"]))).await.unwrap();
    let mut viewer = agent.attach(open("viewed")).await.unwrap();
    agent.create(program("kept", &["cat"])).await.unwrap();
    let begun = Instant::now();
    while agent.list().await.len() > 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("the program is gone", || !is_running(pid)).await;
    let ids: Vec<_> = agent.list().await.into_iter().map(|info| info.id).collect();
    assert_eq!(ids, ["viewed", "kept"]);
    viewer.type_in("still here\n").await;
    viewer.until("still here\r\nstill here").await;
    // The time begins when the last viewer leaves.
    let left = Instant::now();
    drop(viewer);
    while agent.info("viewed").await.is_ok() {
        assert!(left.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left.elapsed() >= Duration::from_millis(2_000));
}

#[tokio::test]
async fn a_pty_outlives_the_connection_of_its_viewer() {
    let agent = Agent::start().await;
    agent.create(program("t", &["cat"])).await.unwrap();
    let (channel, socket) = agent.connect_again().await;
    let mut viewer = Viewer::attach(pty_client::PtyClient::new(channel), open("t")).await.unwrap();
    viewer.type_in("before\n").await;
    viewer.until("before\r\nbefore\r\n").await;
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    while agent.info("t").await.unwrap().viewers > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut again = agent.attach(PtyOpen { offset: viewer.offset, from_start: false, ..open("t") }).await.unwrap();
    again.type_in("after\n").await;
    again.until("after\r\nafter\r\n").await;
    assert!(!again.text().contains("before"));
}

#[tokio::test]
async fn powering_off_ends_terminals_too() {
    let agent = Agent::start().await;
    let mut viewer = agent.terminal("trap '' TERM; echo pid $$.; while :; do sleep 1; done").await;
    viewer.until("pid ").await;
    let pid: i32 = viewer.until(".").await.parse().unwrap();
    agent.lifecycle().power_off(PowerOffRequest { grace_ms: 5000 }).await.unwrap();
    eventually("the program is gone", || !is_running(pid)).await;
    eventually("the agent is gone", || !is_running(agent.pid() as i32)).await;
}

#[tokio::test]
async fn what_a_viewer_must_not_send_ends_it_by_name_and_nothing_else() {
    let agent = Agent::start().await;
    agent.create(program("t", &["cat"])).await.unwrap();
    let read_only = PtyOpen { read_only: true, ..follow("t") };
    let size = PtySize { cols: 0, rows: 24 };
    let cases = [
        (read_only.clone(), Message::Input("x".into())),
        (read_only.clone(), Message::Resize(PtySize { cols: 10, rows: 10 })),
        (open("t"), Message::Open(open("t"))),
        (open("t"), Message::Resize(size)),
        (open("t"), Message::Resize(PtySize { cols: 80, rows: 70_000 })),
    ];
    for (open, wrong) in cases {
        let mut viewer = agent.attach(open).await.unwrap();
        viewer.send(wrong.clone()).await;
        assert_eq!(reason(&viewer.refusal().await), "invalid_request", "{wrong:?}");
    }
    let holding_reader = agent.attach(PtyOpen { hold: true, ..read_only.clone() }).await.err().unwrap();
    assert_eq!(reason(&holding_reader), "invalid_request");
    let mut reader = agent.attach(read_only).await.unwrap();
    let viewer = agent.attach(open("t")).await.unwrap();
    viewer.type_in("fine\n").await;
    reader.until("fine\r\nfine\r\n").await;
    assert_eq!((agent.info("t").await.unwrap().cols, reader.text()), (80, "fine\r\nfine\r\n".into()));
}

fn any_message() -> impl Strategy<Value = PtyAttachRequest> {
    let open = (any::<bool>(), any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(from_start, read_only, hold, offset)| {
            Message::Open(PtyOpen { id: "t".into(), offset, from_start, read_only, hold })
        },
    );
    let offset = prop_oneof![any::<u64>(), 0u64..200];
    prop_oneof![
        3 => open.prop_map(Some),
        3 => proptest::collection::vec(32u8..127, 0..40).prop_map(|bytes| Some(Message::Input(bytes.into()))),
        2 => (any::<u16>(), 0u32..70_000).prop_map(|(cols, rows)| Some(Message::Resize(PtySize { cols: cols.into(), rows }))),
        3 => offset.prop_map(|offset| Some(Message::Ack(offset))),
        1 => Just(None),
    ]
    .prop_map(|message| PtyAttachRequest { message })
}

#[test]
fn no_sequence_of_requests_breaks_the_agent_or_the_pty() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let agent = runtime.block_on(Agent::start());
    runtime.block_on(agent.create(program("t", &["cat"]))).unwrap();
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() };
    proptest!(config, |(messages in proptest::collection::vec(any_message(), 0..12))| {
        runtime.block_on(async {
            let attached = agent.pty().attach(tokio_stream::iter(messages)).await;
            let end = match attached {
                Ok(stream) => drain(stream.into_inner()).await,
                Err(status) => Err(status),
            };
            if let Err(status) = end {
                assert_eq!(reason(&status), "invalid_request", "{status:?}");
            }
        });
    });
    runtime.block_on(async {
        let mut viewer = agent.attach(open("t")).await.unwrap();
        viewer.type_in("\nstill here\n").await;
        viewer.until("\r\nstill here\r\n").await;
        drop(viewer);
        while agent.info("t").await.unwrap().viewers > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

async fn drain(mut events: tonic::Streaming<PtyEvent>) -> Result<(), tonic::Status> {
    let all = async {
        while events.message().await?.is_some() {}
        Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the end of the requests ends the reply")
}
