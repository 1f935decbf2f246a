//! Reading and writing one file as a stream.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use super::identity::acting_as;
use super::locate::{Located, locate, make_parents};
use super::ops::{Ownership, describe, describe_located, required};
use super::{CHUNK_BYTES, Incoming, Outgoing};
use crate::error::{AgentError, Result};
use crate::proto::{FileInfo, ReadRequest, ReadResponse, WriteOpen};

const DEFAULT_MODE: u32 = 0o644;

pub fn read(request: ReadRequest, reply: &Outgoing<ReadResponse>) -> Result<()> {
    let target = required(request.target)?;
    acting_as(&target.user, |_| {
        let located = locate(&target, true)?;
        let io = |error| AgentError::io(&target.path, &error);
        // O_NONBLOCK: opening a FIFO must not wait for its other end.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(located.path())
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(AgentError::new("is_a_directory", format!("{}: is a directory", target.path)));
        }
        if !metadata.is_file() {
            return Err(AgentError::new("not_a_file", format!("{}: not a regular file", target.path)));
        }
        let info = describe(located.name(), &located.path(), &metadata);
        file.seek(SeekFrom::Start(request.offset_bytes)).map_err(io)?;
        let mut left = if request.length_bytes == 0 { u64::MAX } else { request.length_bytes };
        let mut first = ReadResponse { info: Some(info), data: Default::default() };
        loop {
            let mut buffer = BytesMut::zeroed(left.min(CHUNK_BYTES as u64) as usize);
            let count = file.read(&mut buffer).map_err(io)?;
            buffer.truncate(count);
            left -= count as u64;
            let message = ReadResponse { info: first.info.take(), data: buffer.freeze() };
            let over = count == 0 || left == 0;
            // The first message goes out even when the file is empty.
            if (count > 0 || message.info.is_some()) && reply.blocking_send(Ok(message)).is_err() || over {
                return Ok(());
            }
        }
    })
}

/// Writes what `data` brings. Without `append` the bytes go to a temporary file beside the target, which takes its name at the end.
pub fn write(open: WriteOpen, mut data: Incoming) -> Result<FileInfo> {
    let target = required(open.target)?;
    let ownership = Ownership::resolve(&open.owner, &open.group)?;
    acting_as(&target.user, |user| {
        if open.parents {
            make_parents(&target, &|path| {
                if let Err(error) = ownership.apply(path) {
                    eprintln!("instavm-agent: owner of a new parent directory: {error}");
                }
            })?;
        }
        let located = locate(&target, true)?;
        let io = |error| AgentError::io(&target.path, &error);
        let existing = match std::fs::symlink_metadata(located.path()) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(AgentError::new("is_a_directory", format!("{}: is a directory", target.path)));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(AgentError::new(
                    "not_a_file",
                    format!("{}: exists and is not a regular file", target.path),
                ));
            }
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let mode = open.mode.or(existing.as_ref().map(|metadata| metadata.mode())).unwrap_or(DEFAULT_MODE) & 0o7777;
        if open.append {
            let mut file = OpenOptions::new().append(true).create(true).mode(mode).open(located.path()).map_err(io)?;
            receive_into(&mut file, &mut data).map_err(|error| error.about(&target.path))?;
            set_modified(&file, open.modified_unix_ns).map_err(io)?;
        } else {
            if existing.is_some() && user.uid != 0 {
                // Replacing by rename asks for rights on the directory only; a write must be allowed on the file.
                OpenOptions::new().write(true).open(located.path()).map_err(io)?;
            }
            let mut temporary = Temporary::create(&located).map_err(io)?;
            receive_into(&mut temporary.file, &mut data).map_err(|error| error.about(&target.path))?;
            if let Some(metadata) = &existing
                && user.uid == 0
            {
                fchown(&temporary.file, Some(metadata.uid()), Some(metadata.gid())).map_err(io)?;
            }
            ownership.apply(&temporary.path)?;
            temporary.file.set_permissions(Permissions::from_mode(mode)).map_err(io)?;
            set_modified(&temporary.file, open.modified_unix_ns).map_err(io)?;
            std::fs::rename(&temporary.path, located.path()).map_err(io)?;
            temporary.kept = true;
            return describe_located(&located);
        }
        if let Some(mode) = open.mode {
            std::fs::set_permissions(located.path(), Permissions::from_mode(mode & 0o7777)).map_err(io)?;
        }
        ownership.apply(&located.path())?;
        describe_located(&located)
    })
}

fn set_modified(file: &File, unix_ns: Option<u64>) -> std::io::Result<()> {
    unix_ns.map_or(Ok(()), |ns| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)))
}

enum WriteError {
    Disk(std::io::Error),
    Abandoned,
}

impl WriteError {
    fn about(self, path: &str) -> AgentError {
        match self {
            Self::Disk(error) => AgentError::io(path, &error),
            Self::Abandoned => {
                AgentError::new("io_error", format!("{path}: the upload broke off; nothing was changed"))
            }
        }
    }
}

fn receive_into(file: &mut File, data: &mut Incoming) -> std::result::Result<(), WriteError> {
    while let Some(chunk) = data.blocking_recv() {
        let chunk = chunk.map_err(|_| WriteError::Abandoned)?;
        file.write_all(&chunk).map_err(WriteError::Disk)?;
    }
    Ok(())
}

/// A file beside the target that goes away unless it took the target's name.
struct Temporary {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn create(located: &Located) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!(".instavm-{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = located.sibling(name.as_ref());
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                // Left behind when the machine was ended under a write: its agent counted from 0 too.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                opened => return Ok(Self { file: opened?, path, kept: false }),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            eprintln!("instavm-agent: cannot remove a partial file: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Target;

    #[test]
    fn a_written_file_counts_as_modified_when_it_is_said() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file").to_str().unwrap().to_owned();
        for (append, modified_unix_ns) in [(false, 1_577_934_245_250_000_000), (true, 1_000_000_000)] {
            let (sender, data) = tokio::sync::mpsc::channel(1);
            sender.blocking_send(Ok("x".into())).unwrap();
            drop(sender);
            let target = Some(Target { path: path.clone(), ..Default::default() });
            let open = WriteOpen { target, append, modified_unix_ns: Some(modified_unix_ns), ..Default::default() };
            assert_eq!(write(open, data).unwrap().modified_unix_ns, modified_unix_ns);
        }
    }

    #[test]
    fn what_an_earlier_boot_left_behind_is_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..100 {
            let name = format!(".instavm-{}-{number}.part", std::process::id());
            std::fs::write(root.path().join(name), "half of it").unwrap();
        }
        let path = root.path().join("file").to_str().unwrap().to_owned();
        let (sender, data) = tokio::sync::mpsc::channel(1);
        sender.blocking_send(Ok("whole".into())).unwrap();
        drop(sender);
        let target = Some(Target { path: path.clone(), ..Default::default() });
        write(WriteOpen { target, ..Default::default() }, data).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "whole");
    }
}
