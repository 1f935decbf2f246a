//! Cells in the persistent IPython kernel. Each test is skipped, with the reason, where python3 has no IPython.

mod common;

use std::time::Duration;

use common::*;
use instavm_agent::proto::*;

/// The agent, when its python3 can import IPython.
async fn agent() -> Option<Agent> {
    let probe =
        std::process::Command::new("python3").args(["-c", "import IPython, sys; print(sys.executable)"]).output();
    let probe = probe.unwrap();
    if !probe.status.success() {
        eprintln!("skipped: python3 cannot import IPython: {}", String::from_utf8_lossy(&probe.stderr).trim_end());
        return None;
    }
    Some(Agent::start_with(String::from_utf8_lossy(&probe.stdout).trim()).await)
}

async fn cell_within(agent: &Agent, code: &str, timeout_ms: u32) -> Output {
    let request = PythonRequest { code: code.into(), timeout_ms };
    collect(agent.exec().run_python(request).await.unwrap().into_inner()).await.unwrap()
}

async fn cell(agent: &Agent, code: &str) -> Output {
    cell_within(agent, code, 0).await
}

#[tokio::test]
async fn state_persists_and_the_last_expression_is_shown_bare() {
    let Some(agent) = agent().await else { return };
    assert_eq!(cell(&agent, "x = 41\nprint('hi')").await.stdout(), "hi\n");
    assert_eq!(cell(&agent, "x + 1").await.stdout(), "42\n");
    assert_eq!(cell(&agent, "x;").await.stdout(), "");
    assert_eq!(cell(&agent, "class R:\n  def __repr__(self): return 'a\\nb'\nR()").await.stdout(), "a\nb\n");
    assert_eq!(cell(&agent, "").await.exit.code, 0);
}

#[tokio::test]
async fn an_exception_is_a_traceback_on_stderr_and_code_1() {
    let Some(agent) = agent().await else { return };
    let output = cell(&agent, "print('before')\n1/0").await;
    assert_eq!((output.stdout(), output.exit.code), ("before\n".into(), 1));
    assert!(output.stderr().contains("ZeroDivisionError: division by zero"));
    assert!(!output.stderr().contains('\u{1b}'), "no colours: {:?}", output.stderr());
    let syntax = cell(&agent, "def").await;
    assert!(syntax.exit.code == 1 && syntax.stderr().contains("SyntaxError"), "{syntax:?}");
}

#[tokio::test]
async fn sys_exit_ends_the_cell_and_not_the_kernel() {
    let Some(agent) = agent().await else { return };
    let output = cell(&agent, "kept = 1\nimport sys\nsys.exit(3)").await;
    assert_eq!((output.exit.code, output.exit.kernel_restarted, output.stderr()), (3, false, String::new()));
    assert_eq!(cell(&agent, "kept").await.stdout(), "1\n");
    assert_eq!(cell(&agent, "sys.exit('why')").await.stderr(), "why\n");
}

#[tokio::test]
async fn shell_lines_share_the_cells_output_in_order() {
    let Some(agent) = agent().await else { return };
    let output = cell(&agent, "print('a', end=' ')\n!echo b; echo e >&2\nprint('c')").await;
    assert_eq!((output.stdout(), output.stderr()), ("a b\nc\n".into(), "e\n".into()));
}

#[tokio::test]
async fn a_dead_kernel_is_replaced_and_said_to_be() {
    let Some(agent) = agent().await else { return };
    assert_eq!(cell(&agent, "x = 1").await.exit.code, 0);
    let output = cell(&agent, "import os\nos._exit(7)").await;
    assert_eq!((output.exit.code, output.exit.kernel_restarted), (7, true));
    assert!(output.stderr().contains("variables are lost"));
    let next = cell(&agent, "'x' in globals()").await;
    assert_eq!((next.stdout(), next.exit.kernel_restarted), ("False\n".into(), false));
    let crash = cell(&agent, "import ctypes\nctypes.string_at(0)").await;
    assert_eq!((crash.exit.code, crash.exit.kernel_restarted), (128 + 11, true));
}

#[tokio::test]
async fn a_kernel_that_died_between_cells_does_not_cost_the_next_cell() {
    let Some(agent) = agent().await else { return };
    let pid: i32 = cell(&agent, "import os; os.getpid()").await.stdout().trim().parse().unwrap();
    // SAFETY: the kernel of this test's own agent.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    eventually("the kernel is gone", || !is_running(pid)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let output = cell(&agent, "6 * 7").await;
    assert_eq!((output.stdout(), output.exit.code, output.exit.kernel_restarted), ("42\n".into(), 0, true));
}

#[tokio::test]
async fn the_time_limit_interrupts_a_cell_and_keeps_its_variables() {
    let Some(agent) = agent().await else { return };
    let output = cell_within(&agent, "y = 5\nimport time\ntime.sleep(300)", 3_000).await;
    assert_eq!((output.exit.code, output.exit.timed_out, output.exit.kernel_restarted), (124, true, false));
    assert_eq!(cell(&agent, "y").await.stdout(), "5\n");
}

#[tokio::test]
async fn a_cell_that_ignores_the_interrupt_costs_the_kernel() {
    let Some(agent) = agent().await else { return };
    let code = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(300)";
    // Far less than what it would sleep.
    let output = tokio::time::timeout(Duration::from_secs(120), cell_within(&agent, code, 3_000)).await.unwrap();
    assert_eq!((output.exit.code, output.exit.timed_out, output.exit.kernel_restarted), (124, true, true));
    assert_eq!(cell(&agent, "1").await.stdout(), "1\n");
}

#[tokio::test]
async fn a_cancelled_cell_is_interrupted() {
    let Some(agent) = agent().await else { return };
    cell(&agent, "z = 9").await;
    let request = PythonRequest { code: "import time\ntime.sleep(300)".into(), timeout_ms: 0 };
    let mut events = agent.exec().run_python(request).await.unwrap().into_inner();
    events.message().await.unwrap().expect("started");
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(events);
    assert_eq!(cell_within(&agent, "z", 30_000).await.stdout(), "9\n");
}

/// What the kernel's own code sees under its names.
const DRIVER: &str = "driver = type(get_ipython()).system.__globals__";

#[tokio::test]
async fn an_interrupt_that_comes_before_the_cell_has_begun_is_not_lost() {
    let Some(agent) = agent().await else { return };
    let slow = "import time\nkept = 1\napply = driver['SandboxEnvironment'].apply
driver['SandboxEnvironment'].apply = lambda *arguments: (time.sleep(0.3), apply(*arguments))";
    assert_eq!(cell(&agent, &format!("{DRIVER}\n{slow}")).await.exit.code, 0);
    let output = cell_within(&agent, "time.sleep(300)", 1).await;
    assert_eq!((output.exit.timed_out, output.exit.kernel_restarted), (true, false));
    assert_eq!(cell(&agent, "kept").await.stdout(), "1\n");
}

#[tokio::test]
async fn an_interrupt_that_comes_when_the_cell_has_just_ended_does_not_end_the_kernel() {
    let Some(agent) = agent().await else { return };
    let late = "import os, signal
class Late:
    def __getattr__(self, name):
        return getattr(signal, name)
    def signal(self, number, handler):
        if handler == signal.SIG_IGN:
            driver['signal'] = signal
            os.kill(os.getpid(), signal.SIGINT)
        return signal.signal(number, handler)
driver['signal'] = Late()
kept = 1";
    let output = cell(&agent, &format!("{DRIVER}\n{late}")).await;
    assert_eq!((output.exit.code, output.exit.kernel_restarted), (1, false), "{output:?}");
    assert_eq!(cell(&agent, "kept").await.stdout(), "1\n");
}

#[tokio::test]
async fn a_cell_that_is_given_up_while_it_obeys_its_time_limit_is_not_interrupted_again() {
    let Some(agent) = agent().await else { return };
    let code = "import time
try:
    time.sleep(300)
except KeyboardInterrupt:
    print('obeys', flush=True)
    time.sleep(1)
    cleaned = True";
    let request = PythonRequest { code: code.into(), timeout_ms: 2_000 };
    let mut events = agent.exec().run_python(request).await.unwrap().into_inner();
    for _ in ["started", "output"] {
        events.message().await.unwrap().expect("one more event");
    }
    drop(events);
    assert_eq!(cell_within(&agent, "cleaned", 30_000).await.stdout(), "True\n");
}

#[tokio::test]
async fn a_replaced_kernel_is_said_to_be_one_when_the_cell_it_was_started_for_was_given_up() {
    let Some(agent) = agent().await else { return };
    let pid: i32 = cell(&agent, "import os; os.getpid()").await.stdout().trim().parse().unwrap();
    // SAFETY: the kernel of this test's own agent.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    eventually("the kernel is gone", || !std::path::Path::new("/proc").join(pid.to_string()).exists()).await;
    // Far less than a kernel takes to start.
    let given_up = async { agent.exec().run_python(PythonRequest { code: "1".into(), timeout_ms: 0 }).await };
    assert!(tokio::time::timeout(Duration::from_millis(30), given_up).await.is_err());
    assert!(cell(&agent, "1").await.exit.kernel_restarted);
}

#[tokio::test]
async fn large_output_comes_whole_and_a_background_writer_does_not_keep_the_cell_open() {
    let Some(agent) = agent().await else { return };
    assert_eq!(cell(&agent, "print('x' * 20_000_000)").await.stdout.len(), 20_000_001);
    let output = cell(&agent, "import subprocess\np = subprocess.Popen(['yes'])").await;
    assert_eq!(output.exit.code, 0);
    assert_eq!(cell(&agent, "p.kill(); p.wait()").await.exit.code, 0);
}

#[tokio::test]
async fn the_sandboxs_environment_is_that_of_the_cells_and_personalizing_reseeds() {
    let Some(agent) = agent().await else { return };
    let personalize = |env: &[(&str, &str)]| PersonalizeRequest {
        entropy: vec![1; 64].into(),
        hostname: "sandbox".into(),
        machine_id: "0".repeat(32),
        env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..Default::default()
    };
    cell(&agent, "import os, random\nrandom.seed(1)\nstate = random.getstate()").await;
    agent.lifecycle().personalize(personalize(&[("TOKEN", "a"), ("PATH", "/bin")])).await.unwrap();
    let seen = cell(&agent, "os.environ['TOKEN'], os.environ['PATH'], random.getstate() == state").await;
    assert_eq!(seen.stdout(), "('a', '/bin', False)\n");
    cell(&agent, "os.environ['TOKEN'] = 'mine'").await;
    assert_eq!(cell(&agent, "os.environ['TOKEN']").await.stdout(), "'mine'\n");
    agent.lifecycle().personalize(personalize(&[])).await.unwrap();
    assert_eq!(cell(&agent, "'TOKEN' in os.environ, len(os.environ['PATH']) > 5").await.stdout(), "(False, True)\n");
    assert_eq!(agent.script("echo [$TOKEN]").await.stdout(), "[]\n");
}

#[tokio::test]
async fn warming_needs_no_identity_and_leaves_the_kernel_ready() {
    let Some(agent) = agent().await else { return };
    agent.lifecycle().warm(WarmRequest {}).await.unwrap();
    assert_eq!(cell(&agent, "1").await.stdout(), "1\n");
}

#[tokio::test]
async fn a_cell_of_a_lost_host_runs_to_its_end() {
    let Some(agent) = agent().await else { return };
    let (channel, socket) = agent.connect_again().await;
    let mut client = instavm_agent::proto::exec_client::ExecClient::new(channel);
    let code = "import time\nfor n in range(20):\n    time.sleep(0.05)\n    print('x' * 10000)\nkept = n";
    let request = PythonRequest { code: code.into(), timeout_ms: 0 };
    let mut events = client.run_python(request).await.unwrap().into_inner();
    events.message().await.unwrap().expect("started");
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(cell(&agent, "kept").await.stdout(), "19\n");
}
