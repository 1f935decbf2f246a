//! The terminal itself: opening the pair, its size and modes, the program on it, the bytes at its master end.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::io::unix::AsyncFd;

use crate::accounts::User;
use crate::exec::ExecContext;
use crate::exec::spawn;

/// Of the window, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// The end of the terminal that a person would sit at.
pub struct Master(AsyncFd<OwnedFd>);

/// The end that the program has. While the agent has it open too, a program that closes it can open it again.
pub struct Slave(OwnedFd);

/// A new terminal of this size that belongs to `user`.
pub fn open(size: Size, user: &User) -> io::Result<(Master, Slave)> {
    // SAFETY: plain integers; the descriptor is checked, and owned by nothing else.
    let master = unsafe {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        OwnedFd::from_raw_fd(checked(libc::posix_openpt(flags))?)
    };
    let fd = master.as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER takes flags and opens the other end without a path, which a sandbox might have
    // moved. The descriptor is checked, and owned by nothing else.
    let slave = unsafe {
        checked(libc::ioctl(fd, libc::TIOCSPTLCK, &unlock))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        OwnedFd::from_raw_fd(checked(libc::ioctl(fd, libc::TIOCGPTPEER, flags))?)
    };
    set_modes(slave.as_raw_fd())?;
    give_to(slave.as_raw_fd(), user)?;
    // SAFETY: the descriptor is owned, and neither replaced nor handed out while it is registered.
    let master = Master(unsafe { AsyncFd::register(master) }?);
    master.set_size(size)?;
    Ok((master, Slave(slave)))
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The kernel's defaults, and that input is UTF-8: erasing then takes a character and not a byte.
fn set_modes(slave: RawFd) -> io::Result<()> {
    // SAFETY: termios is plain data, valid when zeroed, and filled by the first call.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        checked(libc::tcgetattr(slave, &mut modes))?;
        modes.c_iflag |= libc::IUTF8;
        checked(libc::tcsetattr(slave, libc::TCSANOW, &modes)).map(drop)
    }
}

/// The owner may use it, its group (`tty`, as devpts was mounted) may write to it.
fn give_to(slave: RawFd, user: &User) -> io::Result<()> {
    // SAFETY: plain integers. An agent that is no root (in tests) opened the terminal as the only user it can act as.
    unsafe {
        if libc::geteuid() == 0 {
            checked(libc::fchown(slave, user.uid, libc::gid_t::MAX))?;
        }
        checked(libc::fchmod(slave, 0o620)).map(drop)
    }
}

impl Slave {
    /// Makes this the standard streams of `command`, and its controlling terminal in a session of its own.
    /// To be called once; nothing else may be prepared afterwards.
    pub fn attach(&self, command: &mut Command, context: &ExecContext, user: &User) -> io::Result<()> {
        let stream = || self.0.try_clone().map(Stdio::from);
        command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
        spawn::prepare(command, context, user);
        // SAFETY: runs between fork and exec, after the session was made: only async-signal-safe calls.
        unsafe {
            command.pre_exec(|| {
                checked(libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0))?;
                for signal in 1..=libc::SIGRTMAX() {
                    // Refused for SIGKILL and SIGSTOP, which are never anything but default.
                    libc::signal(signal, libc::SIG_DFL);
                }
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&mut none);
                checked(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())).map(drop)
            });
        }
        Ok(())
    }
}

impl Master {
    /// The foreground process group gets SIGWINCH when the size changed.
    pub fn set_size(&self, size: Size) -> io::Result<()> {
        let window = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &window) }).map(drop)
    }

    /// 0 when there is none.
    pub fn foreground_group(&self) -> i32 {
        let mut group: libc::pid_t = 0;
        // SAFETY: TIOCGPGRP writes one pid_t.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCGPGRP, &mut group) };
        if result == 0 { group } else { 0 }
    }

    /// What the terminal has now. `WouldBlock`: nothing, and the kernel has nothing on its way; any other error, or 0: no one has the
    /// other end open.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most the given length into the buffer.
        retrying(|| unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// As much as the terminal takes now.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel reads at most the given length from the bytes.
        retrying(|| unsafe { libc::write(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
    }

    /// Waits until there may be something to read, then calls `read`, which says `WouldBlock` once it has had all.
    pub async fn when_readable<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.0.readable().await?.try_io(|_| read()) {
            Ok(result) => result,
            Err(_would_block) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub async fn when_writable<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.0.writable().await?.try_io(|_| write()) {
            Ok(result) => result,
            Err(_would_block) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

fn retrying(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match call() {
            count if count >= 0 => return Ok(count as usize),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
