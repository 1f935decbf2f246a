//! Stat, list, mkdir, remove, rename.

use std::fs::{Metadata, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::Outgoing;
use super::identity::acting_as;
use super::locate::{Located, locate, make_parents};
use crate::accounts::{User, find_group, find_user};
use crate::error::{AgentError, Result};
use crate::proto::{FileInfo, FileKind, ListResponse, MkdirRequest, RemoveRequest, RenameRequest, StatRequest, Target};

const LIST_BATCH: usize = 512;

pub fn required(target: Option<Target>) -> Result<Target> {
    target.ok_or_else(|| AgentError::new("invalid_request", "no target is given"))
}

pub fn describe(name: &std::ffi::OsStr, path: &Path, metadata: &Metadata) -> FileInfo {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Dir,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let link_target = if kind == FileKind::Symlink { std::fs::read_link(path).ok() } else { None };
    FileInfo {
        name: name.as_bytes().to_vec().into(),
        kind: kind.into(),
        size_bytes: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_unix_ns: (metadata.mtime().max(0) as u64) * 1_000_000_000 + metadata.mtime_nsec().max(0) as u64,
        link_target: link_target.map(|link| link.into_os_string().into_vec()).unwrap_or_default().into(),
    }
}

pub fn describe_located(located: &Located) -> Result<FileInfo> {
    let path = located.path();
    let metadata = std::fs::symlink_metadata(&path).map_err(|error| AgentError::io(located.real.display(), &error))?;
    Ok(describe(located.name(), &path, &metadata))
}

pub fn stat(request: StatRequest) -> Result<FileInfo> {
    let target = required(request.target)?;
    acting_as(&target.user, |_| describe_located(&locate(&target, request.follow)?))
}

pub fn list(target: Option<Target>, reply: &Outgoing<ListResponse>) -> Result<()> {
    let target = required(target)?;
    acting_as(&target.user, |_| {
        let located = locate(&target, true)?;
        let io = |error| AgentError::io(&target.path, &error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(located.path()).map_err(io)? {
            names.push(entry.map_err(io)?.file_name());
        }
        names.sort();
        for batch in names.chunks(LIST_BATCH) {
            let entries = batch
                .iter()
                .filter_map(|name| {
                    let path = located.path().join(name);
                    // An entry that went away since it was read is no longer part of the directory.
                    std::fs::symlink_metadata(&path).ok().map(|metadata| describe(name, &path, &metadata))
                })
                .collect();
            if reply.blocking_send(Ok(ListResponse { entries })).is_err() {
                break;
            }
        }
        Ok(())
    })
}

/// Owner and group of what a request makes, resolved before anything is made.
pub struct Ownership {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Ownership {
    /// Errors: `user_unknown`, `group_unknown`.
    pub fn resolve(owner: &str, group: &str) -> Result<Self> {
        let owner = if owner.is_empty() { None } else { Some(find_user(owner)?) };
        let gid = if group.is_empty() { owner.as_ref().map(|user| user.gid) } else { Some(find_group(group)?) };
        Ok(Self { uid: owner.map(|user| user.uid), gid })
    }

    pub fn is_given(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    /// The given ids over others.
    pub fn over(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.uid.unwrap_or(uid), self.gid.unwrap_or(gid))
    }

    pub fn apply(&self, path: &Path) -> Result<()> {
        if !self.is_given() {
            return Ok(());
        }
        lchown(path, self.uid, self.gid).map_err(|error| AgentError::io("changing the owner", &error))
    }
}

pub fn mkdir(request: MkdirRequest) -> Result<FileInfo> {
    let target = required(request.target)?;
    let ownership = Ownership::resolve(&request.owner, &request.group)?;
    acting_as(&target.user, |_: &User| {
        if request.parents {
            make_parents(&target, &|_| {})?;
        }
        let located = locate(&target, request.parents)?;
        let path = located.path();
        let io = |error| AgentError::io(&target.path, &error);
        match std::fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && request.parents => {
                if !std::fs::symlink_metadata(&path).map_err(io)?.is_dir() {
                    return Err(AgentError::new(
                        "not_a_directory",
                        format!("{}: exists and is no directory", target.path),
                    ));
                }
            }
            Err(error) => return Err(io(error)),
        }
        if let Some(mode) = request.mode {
            std::fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777)).map_err(io)?;
        }
        ownership.apply(&path)?;
        describe_located(&located)
    })
}

pub fn remove(request: RemoveRequest) -> Result<()> {
    let target = required(request.target)?;
    acting_as(&target.user, |_| {
        let located = match locate(&target, false) {
            Err(error) if request.force && error.reason == "not_found" => return Ok(()),
            located => located?,
        };
        let path = located.path();
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => std::fs::remove_file(&path),
            Ok(_) if request.recursive => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_dir(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if request.force && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| AgentError::io(&target.path, &error)),
        }
    })
}

pub fn rename(request: RenameRequest) -> Result<FileInfo> {
    let (from, to) = (required(request.from)?, required(request.to)?);
    acting_as(&from.user, |_| {
        let (source, destination) = (locate(&from, false)?, locate(&to, false)?);
        std::fs::rename(source.path(), destination.path())
            .map_err(|error| AgentError::io(format_args!("{} to {}", from.path, to.path), &error))?;
        describe_located(&destination)
    })
}
