//! From a request to a process: command line, environment, working directory, user, session, cgroup, pipes.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::ExecContext;
use crate::accounts::{User, find_user};
use crate::error::{AgentError, Result};
use crate::processors;
use crate::proto::{ExecStart, exec_start};
use crate::reaper::Ended;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub const WORKSPACE: &str = "/workspace";
/// The kernel's limit for one argument is 128 KiB (MAX_ARG_STRLEN); a longer script goes through a file.
const MAX_SCRIPT_ARGUMENT: usize = 64 * 1024;
const SCRIPT_DIRECTORY: &str = "/run/instavm/scripts";
/// Fewer context switches for bulk output.
const PIPE_BYTES: libc::c_int = 256 * 1024;

/// Open files of a user process, as Debian's service manager sets it; the agent's own limit is higher.
const USER_FILE_LIMIT: libc::rlimit = libc::rlimit { rlim_cur: 1024, rlim_max: 524_288 };

pub struct Spawned {
    pub pid: i32,
    pub ended: oneshot::Receiver<Ended>,
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Held until the command has ended.
    pub script: Option<ScriptFile>,
}

/// A script too long for an argument; removed when dropped.
pub struct ScriptFile(PathBuf);

impl Drop for ScriptFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("instavm-agent: cannot remove {}: {error}", self.0.display());
        }
    }
}

impl ScriptFile {
    fn create(script: &str) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Searchable but not listable: a command may run as any user.
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(SCRIPT_DIRECTORY)?;
        let name = format!("{}-{}.sh", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(SCRIPT_DIRECTORY).join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let script_file = Self(path);
        file.write_all(script.as_bytes())?;
        Ok(script_file)
    }
}

/// Starts the command of `start` in a session and process group of its own.
/// Errors: `user_unknown`, `cwd_not_found`, `command_not_found`, `permission_denied`, `process_limit`, `invalid_request`.
pub fn spawn(context: &ExecContext, start: &ExecStart) -> Result<Spawned> {
    let user = find_user(&start.user)?;
    let (mut command, name, script) = command_line(start)?;
    let env = environment(context, &user, &start.env)?;
    let cwd = working_directory(&start.cwd, &user)?;
    command.env_clear().envs(&env).current_dir(&cwd);
    command.stdin(if start.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command, context, &user);
    let (mut child, ended) = context.reaper.spawn(&mut command).map_err(|error| spawn_error(&name, &error))?;
    let pid = child.id() as i32;
    let stdout: OwnedFd = child.stdout.take().ok_or_else(no_pipe)?.into();
    let stderr: OwnedFd = child.stderr.take().ok_or_else(no_pipe)?.into();
    for pipe in [&stdout, &stderr] {
        // SAFETY: plain integers; refusal (the user's pipe limit) leaves the default size.
        unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
    }
    let stdin = child.stdin.take().map(OwnedFd::from);
    Ok(Spawned { pid, ended, stdin, stdout, stderr, script })
}

fn no_pipe() -> AgentError {
    AgentError::new("io_error", "the command was started without a pipe")
}

fn command_line(start: &ExecStart) -> Result<(Command, String, Option<ScriptFile>)> {
    match &start.command {
        Some(exec_start::Command::Argv(argv)) => {
            let command = argv_command(&argv.args)?;
            Ok((command, argv.args[0].clone(), None))
        }
        Some(exec_start::Command::Script(script)) => {
            if script.contains('\0') {
                return Err(AgentError::new("invalid_request", "the script holds a NUL byte"));
            }
            let mut command = Command::new("/bin/bash");
            let file = if script.len() <= MAX_SCRIPT_ARGUMENT {
                command.arg("-c").arg(script);
                None
            } else {
                let file = ScriptFile::create(script).map_err(|error| AgentError::io("the script", &error))?;
                command.arg(&file.0);
                Some(file)
            };
            Ok((command, "/bin/bash".into(), file))
        }
        None => Err(AgentError::new("invalid_request", "neither argv nor script is given")),
    }
}

/// A program and its arguments as they are.
/// Errors: `invalid_request`, also when there is no program.
pub fn argv_command(args: &[String]) -> Result<Command> {
    let [program, arguments @ ..] = args else {
        return Err(AgentError::new("invalid_request", "argv is empty: name a program"));
    };
    if args.iter().any(|argument| argument.contains('\0')) || program.is_empty() {
        return Err(AgentError::new("invalid_request", "an argument is empty or holds a NUL byte"));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The base environment, under the sandbox's, under the request's.
pub fn environment(
    context: &ExecContext,
    user: &User,
    own: &HashMap<String, String>,
) -> Result<HashMap<String, String>> {
    let mut env = base_environment(user);
    env.extend(context.env.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone());
    env.extend(own.clone());
    match env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')) {
        Some((name, _)) => Err(AgentError::new(
            "invalid_request",
            format!("environment variable {name:?} has no usable name, or a NUL byte in its value"),
        )),
        None => Ok(env),
    }
}

/// What a login would set, before the sandbox and the request add to it.
pub fn base_environment(user: &User) -> HashMap<String, String> {
    [
        ("PATH", DEFAULT_PATH),
        ("LANG", "C.UTF-8"),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

pub fn working_directory(asked: &str, user: &User) -> Result<PathBuf> {
    let candidates = if asked.is_empty() { vec![WORKSPACE, &user.home, "/"] } else { vec![asked] };
    match candidates.into_iter().map(Path::new).find(|path| path.is_dir()) {
        Some(path) => Ok(path.to_owned()),
        None => Err(AgentError::new("cwd_not_found", format!("{asked:?} is not a directory in the sandbox"))),
    }
}

/// Own session, the user's ids, the user cgroup, no protection from the out-of-memory killer.
pub fn prepare(command: &mut Command, context: &ExecContext, user: &User) {
    let cgroup = context.cgroup_procs.as_ref().map(|file| file.as_raw_fd());
    let (uid, gid, groups) = (user.uid, user.gid, user.groups.clone());
    let files = context.cgroup_procs.is_some().then_some(USER_FILE_LIMIT);
    // SAFETY: runs between fork and exec, so only async-signal-safe calls on values made before the fork.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            processors::roam();
            if let Some(fd) = cgroup {
                if libc::write(fd, c"0".as_ptr().cast(), 1) < 0 {
                    return Err(io::Error::last_os_error());
                }
                let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if score >= 0 {
                    libc::write(score, c"0".as_ptr().cast(), 1);
                    libc::close(score);
                }
            }
            if let Some(limit) = &files {
                libc::setrlimit(libc::RLIMIT_NOFILE, limit);
            }
            // The agent may run as an ordinary user in tests; then only that user can be asked for.
            if libc::geteuid() == 0
                && (libc::setgroups(groups.len(), groups.as_ptr()) != 0
                    || libc::setgid(gid) != 0
                    || libc::setuid(uid) != 0)
            {
                return Err(io::Error::last_os_error());
            }
            // tokio ignores SIGPIPE in this process; a command expects the default.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            Ok(())
        });
    }
}

pub fn spawn_error(program: &str, error: &io::Error) -> AgentError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => AgentError::new("command_not_found", format!("{program}: no such command in PATH")),
        Some(libc::EAGAIN | libc::ENOMEM) => {
            AgentError::new("process_limit", format!("{program}: the sandbox can start no more processes: {error}"))
        }
        Some(libc::E2BIG) => {
            AgentError::new("invalid_request", format!("{program}: arguments and environment are too long"))
        }
        _ => AgentError::io(program, error),
    }
}
