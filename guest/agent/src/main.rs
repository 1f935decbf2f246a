//! `instavm-agent`: as PID 1, boots the guest and serves the control channel for as long as the microVM lives. With
//! `--listen-unix PATH` it serves the same services as an ordinary process, for tests without a microVM: it mounts nothing and
//! Personalize changes nothing of the machine.

use std::path::PathBuf;
use std::process::ExitCode;

use instavm_agent::boot;
use instavm_agent::channel::port::{Channel, Port};
use instavm_agent::channel::serve::{MAX_STREAMS, serve_port, serve_unix};
use instavm_agent::egress;
use instavm_agent::exec::ExecContext;
use instavm_agent::pty::Ptys;
use instavm_agent::python::{INTERPRETER, Python};
use instavm_agent::reaper::Reaper;
use instavm_agent::services::{Agent, routes};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_init = std::process::id() == 1;
    let listen = |path: &String, python: &str| Some((PathBuf::from(path), python.to_owned()));
    let process = match &arguments.iter().collect::<Vec<_>>()[..] {
        _ if is_init => None,
        [flag, path] if *flag == "--listen-unix" => listen(path, INTERPRETER),
        [flag, path, other, python] if *flag == "--listen-unix" && *other == "--python" => listen(path, python),
        _ => {
            eprintln!("usage: instavm-agent --listen-unix PATH [--python INTERPRETER]");
            eprintln!("       (or as PID 1 of a microVM, without arguments)");
            return ExitCode::from(2);
        }
    };
    bound_allocator();
    let failed = match (|| {
        if is_init {
            boot::boot()?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // A stalled transfer holds a thread; with one for every stream none waits for another.
            .max_blocking_threads(MAX_STREAMS as usize + 16)
            .enable_all()
            .build()
            .map_err(|error| format!("starting the runtime: {error}"))?;
        // On a worker, like all it starts: between the connection and what it serves no other thread has to wake.
        let serving = runtime.spawn(serve(process));
        runtime.block_on(serving).map_err(|error| format!("serving: {error}"))?
    })() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("instavm-agent: fatal: {failed}");
    if is_init {
        boot::power_off();
    }
    ExitCode::FAILURE
}

/// Keeps the C library's allocator small and quick: two arenas instead of eight per CPU, and chunks of bulk data from the heap, not
/// from an `mmap` each.
fn bound_allocator() {
    // SAFETY: mallopt takes integers; no other thread is running yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1024 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024 * 1024);
    }
}

/// `process`: the socket and the Python interpreter of an agent that is not PID 1.
async fn serve(process: Option<(PathBuf, String)>) -> Result<(), String> {
    let is_init = process.is_none();
    let interpreter = process.as_ref().map_or(INTERPRETER, |(_, python)| python);
    let reaper = Reaper::start().map_err(|error| format!("starting the reaper: {error}"))?;
    let cgroup = is_init
        .then(|| std::fs::File::options().write(true).open(format!("{}/cgroup.procs", boot::USER_CGROUP)))
        .transpose()
        .map_err(|error| format!("opening the user cgroup: {error}"))?;
    let exec = ExecContext::new(reaper, cgroup);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let (python, ptys) = (Python::new(exec.clone(), interpreter), Ptys::new(exec.clone()));
    let routes = routes(Agent { python, ptys, exec, is_init, boot_id });
    match process {
        Some((path, _)) => serve_unix(&path, routes).await.map_err(|error| format!("{}: {error}", path.display())),
        None => {
            if let Err(error) = egress::start().await {
                eprintln!("instavm-agent: no network: {error}");
            }
            let port = Port::open(Channel::Control).map_err(|error| format!("opening the control port: {error}"))?;
            eprintln!("instavm-agent: ready");
            serve_port(port, routes).await.map_err(|error| format!("the control port: {error}"))
        }
    }
}
