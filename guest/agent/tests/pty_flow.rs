//! The bytes of terminals: kept, resumed at an offset, held, skipped, cut, and all there before the exit.

mod common;

use std::time::{Duration, Instant};

use common::pty::*;
use common::*;
use instavm_agent::proto::*;

const KEPT: u64 = 1024 * 1024;

#[tokio::test]
async fn what_was_written_before_anyone_looked_and_typed_before_it_was_read_is_kept() {
    let agent = Agent::start().await;
    agent.create(bash("t", "echo before; sleep 0.3; read line; echo \"got $line\"")).await.unwrap();
    while agent.info("t").await.unwrap().end_offset == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut viewer = agent.attach(open("t")).await.unwrap();
    viewer.type_in("ahead\n").await;
    assert_eq!(viewer.finish().await.code, 0);
    assert_eq!(viewer.text(), "before\r\nahead\r\ngot ahead\r\n");
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_moved_to_the_nearest_and_one_inside_a_character_is_kept() {
    let agent = Agent::start().await;
    agent.create(bash("t", "stty -echo; printf 'a中b'; exec cat")).await.unwrap();
    agent.attach(open("t")).await.unwrap().until("b").await;
    for (asked, begins) in [(0, 0), (2, 2), (4, 4), (5, 5), (u64::MAX, 5)] {
        let at = PtyOpen { offset: asked, from_start: false, ..follow("t") };
        let mut viewer = agent.attach(at).await.unwrap();
        assert_eq!(viewer.opened.offset, begins);
        assert_eq!(viewer.opened.info.as_ref().unwrap().end_offset, 5);
        viewer.take(5 - begins as usize).await;
        assert_eq!(viewer.output, "a中b".as_bytes()[begins as usize..]);
    }
}

/// What `seq 1 count` writes.
fn sequence(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[tokio::test]
async fn ten_megabytes_arrive_byte_for_byte_although_the_viewer_is_lost_again_and_again() {
    let agent = Agent::start().await;
    let expected = sequence(1_450_000);
    assert!(expected.len() > 10_000_000);
    agent.create(bash("t", "stty -opost; seq 1 1450000; exit 5")).await.unwrap();
    let mut received = vec![];
    for bytes in [1, 300_000, 70_001, 999_999, 2_000_000, 64, 1_100_000, 3_000_000] {
        let from = received.len() as u64;
        let (channel, socket) = agent.connect_again().await;
        let at = PtyOpen { offset: from, from_start: false, ..open("t") };
        let mut viewer = Viewer::attach(pty_client::PtyClient::new(channel), at).await.unwrap();
        assert_eq!(viewer.opened.offset, from);
        viewer.take(bytes).await;
        // More was sent than is acknowledged, and all that is on its way is lost with the connection.
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        received.extend(viewer.output);
    }
    let at = PtyOpen { offset: received.len() as u64, from_start: false, ..open("t") };
    let mut viewer = agent.attach(at).await.unwrap();
    assert_eq!(viewer.finish().await.code, 5);
    received.extend(viewer.output);
    assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
}

#[tokio::test]
async fn a_flood_that_nobody_takes_costs_its_scrollback_and_disturbs_no_one() {
    let agent = Agent::start().await;
    agent.create(program("other", &["cat"])).await.unwrap();
    let before = agent.memory_bytes();
    let mut held = agent.terminal("exec yes").await;
    held.acknowledges = false;
    // The window, and not a byte more, comes without an acknowledgement.
    held.take(256 * 1024).await;
    while agent.info("t").await.unwrap().end_offset < KEPT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let info = agent.info("t").await.unwrap();
    assert_eq!((info.start_offset, info.end_offset, held.offset), (0, KEPT, 256 * 1024));
    let more = agent.memory_bytes() - before;
    assert!(more < 4 * 1024 * 1024, "{more} bytes more");
    assert_eq!(agent.script("echo beside").await.stdout(), "beside\n");
    let mut other = agent.attach(open("other")).await.unwrap();
    other.type_in("beside\n").await;
    other.until("\r\nbeside\r\n").await;
    // An acknowledgement beyond what was sent, or behind another, is none.
    for wrong in [held.offset + 1, u64::MAX, 0] {
        held.send(Message::Ack(wrong)).await;
    }
    held.send(Message::Ack(100_000)).await;
    held.take(90_000).await;
    while agent.info("t").await.unwrap().end_offset < KEPT + 100_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(agent.info("t").await.unwrap().end_offset, KEPT + 100_000);
    // A flood under way can be interrupted.
    held.type_in("\x03").await;
    held.acknowledges = true;
    held.acknowledge().await;
    assert_eq!(held.finish().await.signal, libc::SIGINT);
}

#[tokio::test]
async fn a_viewer_that_does_not_hold_is_told_what_it_missed_and_one_that_does_gets_all() {
    let agent = Agent::start().await;
    let expected = sequence(1_000_000);
    agent.create(bash("t", "stty -opost -echo; echo ready; read go; seq 1 1000000")).await.unwrap();
    let mut slow = agent.attach(PtyOpen { read_only: true, ..follow("t") }).await.unwrap();
    let mut holding = agent.attach(open("t")).await.unwrap();
    holding.until("ready").await;
    holding.type_in("\n").await;
    assert_eq!(holding.finish().await.code, 0);
    assert!(holding.output == [b"ready\n", &expected[..]].concat(), "{} bytes", holding.output.len());
    // Only now does the slow one look.
    assert_eq!(slow.finish().await.code, 0);
    assert!(!slow.gaps.is_empty() && holding.gaps.is_empty());
    let (mut at, mut output) = (0, &slow.output[..]);
    for (gap_at, gap) in slow.gaps.iter().chain([&(holding.offset, 0)]) {
        let (piece, rest) = output.split_at((gap_at - at) as usize);
        assert!(piece == &holding.output[at as usize..*gap_at as usize], "up to {gap_at}");
        (at, output) = (gap_at + gap, rest);
    }
    assert_eq!(slow.offset, holding.offset);
}

#[tokio::test]
async fn all_output_comes_before_the_exit_which_everyone_can_ask_for_before() {
    let agent = Agent::start().await;
    // A little more than is kept, which the terminal itself holds: the program ends although nothing is taken. (Of much more, the
    // kernel wakes the writer only once nearly all is read.)
    let mut viewer = agent.terminal("stty -opost; head -c 1048676 /dev/zero | tr '\\0' x; exit 9").await;
    viewer.acknowledges = false;
    viewer.take(256 * 1024).await;
    let begun = Instant::now();
    while agent.info("t").await.unwrap().alive {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let info = agent.info("t").await.unwrap();
    assert_eq!((info.exit_code, info.end_offset), (9, KEPT));
    drop(viewer);
    let mut viewer = agent.attach(open("t")).await.unwrap();
    assert_eq!(viewer.finish().await.code, 9);
    assert_eq!(viewer.output.len(), 1_048_676);
    assert_eq!(agent.info("t").await.unwrap().end_offset, 1_048_676);
    // And again, as long as it is remembered.
    let mut later = agent.attach(PtyOpen { offset: 1_048_666, from_start: false, ..open("t") }).await.unwrap();
    assert_eq!((later.finish().await.code, later.text().len()), (9, 10));
}

#[tokio::test]
async fn a_child_left_in_the_background_does_not_hold_up_the_exit() {
    let agent = Agent::start().await;
    let scripts = [
        "trap '' HUP; sleep 300 & echo pid $!.; exit 3",
        "trap '' HUP; yes & echo pid $!.; exit 3",
        "trap '' HUP; (while :; do sleep 0.05; echo tick; done) & echo pid $!.; exit 3",
    ];
    for script in scripts {
        let mut viewer = agent.terminal(script).await;
        viewer.until("pid ").await;
        let child: i32 = viewer.until(".").await.parse().unwrap();
        // It would be held up for as long as the child runs.
        assert_eq!(viewer.finish().await.code, 3, "{script}");
        // SAFETY: a pid that was just reported and belongs to this test.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
}

#[tokio::test]
async fn the_end_of_a_program_is_reported_without_delay() {
    let agent = Agent::start().await;
    let (mut delays, mut of_held) = (vec![], vec![]);
    for _ in 0..9 {
        // The second leaves somebody who could still say something, which the agent waits for a while.
        for (script, delays) in
            [("read go; exec true", &mut delays), ("trap '' HUP; read go; sleep 1 & exec true", &mut of_held)]
        {
            let mut viewer = agent.terminal(script).await;
            viewer.type_in("\n").await;
            viewer.until("\r\n").await;
            let begun = Instant::now();
            viewer.finish().await;
            delays.push(begun.elapsed());
        }
    }
    delays.sort_unstable();
    of_held.sort_unstable();
    assert!(delays[4] + Duration::from_millis(50) < of_held[4], "{delays:?} and {of_held:?}");
}

#[tokio::test]
async fn no_frame_splits_a_character_however_slowly_or_fast_it_comes() {
    let agent = Agent::start().await;
    let text = "é中文😀\u{10ffff}x";
    let slowly =
        "import os,sys,time\ninput()\nfor byte in sys.argv[1].encode(): os.write(1, bytes([byte])); time.sleep(0.02)";
    agent.create(program("slow", &["python3", "-c", slowly, text])).await.unwrap();
    let fast =
        "import os,sys\ninput()\ndata = sys.argv[1].encode() * 60000\nwhile data: data = data[os.write(1, data):]";
    agent.create(program("fast", &["python3", "-c", fast, text])).await.unwrap();
    for (id, times) in [("slow", 1), ("fast", 60000)] {
        let mut viewer = agent.attach(open(id)).await.unwrap();
        viewer.type_in("\n").await;
        viewer.finish().await;
        assert!(viewer.output == [b"\r\n", text.repeat(times).as_bytes()].concat(), "{id}");
        let mut at = 0;
        for frame in &viewer.frames {
            assert!(std::str::from_utf8(&viewer.output[at..at + frame]).is_ok(), "{id}: {frame} bytes at {at}");
            at += frame;
        }
        assert!(viewer.frames.len() > 5);
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_pass_and_the_beginning_of_a_character_waits_only_so_long() {
    let agent = Agent::start().await;
    let script = "stty -opost; printf '\\xff\\xc3(\\x80 \\xf0\\x9f\\x98'; read go; printf '\\xe4\\xb8'";
    let begun = Instant::now();
    let mut viewer = agent.terminal(script).await;
    viewer.take(5).await;
    assert_eq!(viewer.output, b"\xff\xc3(\x80 ");
    viewer.take(3).await;
    assert_eq!(viewer.output[5..], *b"\xf0\x9f\x98");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(1500), "{waited:?}");
    // The end of the program is the end of waiting.
    viewer.type_in("\n").await;
    let begun = Instant::now();
    viewer.finish().await;
    assert!(viewer.output.ends_with(b"\xe4\xb8") && begun.elapsed() < waited, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_typed_reaches_the_program_in_order_and_at_its_own_speed() {
    let agent = Agent::start().await;
    let script = "stty raw -echo; echo ready; sleep 0.3; head -c 1000000 | sha256sum";
    let mut viewer = agent.terminal(script).await;
    viewer.until("ready").await;
    let typed: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    for piece in typed.chunks(30_011) {
        viewer.type_in(piece).await;
    }
    let expected = ExecStart { command: argv(&["sha256sum"]), stdin: true, ..Default::default() };
    let rest = vec![exec_request::Message::Stdin(typed.into()), exec_request::Message::StdinEnd(StdinEnd {})];
    let expected = agent.call(expected, rest).await.unwrap().finish().await.unwrap().stdout();
    viewer.until(expected.trim()).await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_stops_neither_acknowledgements_nor_signals_and_has_a_bound() {
    let agent = Agent::start().await;
    let mut viewer = agent.terminal("stty raw -echo; echo ready; exec yes").await;
    viewer.acknowledges = false;
    viewer.until("ready").await;
    for _ in 0..10 {
        viewer.type_in([b'x'; 100_000]).await;
    }
    // Behind a megabyte that nobody reads.
    viewer.send(Message::Resize(PtySize { cols: 40, rows: 10 })).await;
    viewer.acknowledges = true;
    viewer.acknowledge().await;
    viewer.take(3_000_000).await;
    assert_eq!(agent.info("t").await.unwrap().cols, 40);
    let mut other = agent.attach(follow("t")).await.unwrap();
    for _ in 0..3 {
        viewer.type_in([b'x'; 100_000]).await;
    }
    assert_eq!(reason(&viewer.refusal().await), "pty_input_full");
    // It cost the viewer its place, and no one else anything.
    assert!(agent.info("t").await.unwrap().alive);
    other.take(100_000).await;
    let mut again = agent.attach(open("t")).await.unwrap();
    again.take(10_000).await;
}
