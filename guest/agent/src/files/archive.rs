//! Tar streams in and out of a directory, in memory that is bounded but for the names of the directories that come in.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use filetime::FileTime;
use tar::{Archive, Builder, EntryType, Header};

use super::identity::acting_as;
use super::locate::{locate, make_parents};
use super::ops::{Ownership, required};
use super::{CHUNK_BYTES, Incoming, Outgoing};
use crate::accounts::{User, find_group, find_user};
use crate::error::{AgentError, Result};
use crate::proto::{TarInOpen, TarInResponse, TarOutRequest, TarOutResponse};

/// Of `st_blocks` (stat(2)); a file that has fewer than its size needs has holes.
const STAT_BLOCK_BYTES: u64 = 512;

/// The request stream as a `Read`.
struct IncomingReader {
    data: Incoming,
    current: Bytes,
}

const ABANDONED: &str = "the upload broke off";

impl Read for IncomingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.data.blocking_recv() {
                None => return Ok(0),
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(_)) => return Err(io::Error::other(ABANDONED)),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Unpacks below the target directory. Members already unpacked stay when a later one is refused.
pub fn unpack(open: TarInOpen, data: Incoming) -> Result<TarInResponse> {
    let target = required(open.target.clone())?;
    let ownership = Ownership::resolve(&open.owner, &open.group)?;
    acting_as(&target.user, |user| {
        make_parents(&target, &|_| {})?;
        let located = locate(&target, true)?;
        let is_new = match std::fs::create_dir(located.path()) {
            Ok(()) => {
                ownership.apply(&located.path())?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(AgentError::io(&target.path, &error)),
        };
        let root = located.real.clone();
        let mut root_mode = None;
        // What is unpacked into a directory changes its time, so that is set afterwards.
        let mut directories = Vec::new();
        let mut archive = Archive::new(IncomingReader { data, current: Bytes::new() });
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_overwrite(true);
        let mut done = TarInResponse::default();
        let entries = archive.entries().map_err(|error| archive_error(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| archive_error(&error))?;
            let path = entry.path().map_err(|error| archive_error(&error))?.into_owned();
            let kind = entry.header().entry_type();
            check_member(&path, kind)?;
            let modified = FileTime::from_unix_time(entry.header().mtime().unwrap_or(0).try_into().unwrap_or(0), 0);
            if is_directory_itself(&path) {
                if is_new && kind == EntryType::Directory {
                    root_mode = entry.header().mode().ok();
                    directories.push((root.clone(), modified));
                }
                continue;
            }
            done.entries += 1;
            done.size_bytes += entry.size();
            if open.max_entries > 0 && done.entries > open.max_entries {
                return Err(AgentError::new("archive_limit", format!("more than {} members", open.max_entries)));
            }
            if open.max_bytes > 0 && done.size_bytes > open.max_bytes {
                return Err(AgentError::new("archive_limit", format!("more than {} bytes unpacked", open.max_bytes)));
            }
            let owner = MemberOwner::of(&ownership, user, entry.header());
            // Refuses members whose parent, links resolved, lies outside the root.
            let inside = entry.unpack_in(&root).map_err(|error| unpack_error(&path, &error))?;
            if !inside {
                return Err(AgentError::new(
                    "archive_invalid",
                    format!("{}: leads out of the directory", path.display()),
                ));
            }
            if kind != EntryType::Link {
                owner.apply(&root.join(&path))?;
            }
            if kind == EntryType::Directory {
                directories.push((root.join(&path), modified));
            }
        }
        for (directory, modified) in &directories {
            set_modified(directory, *modified)?;
        }
        if let Some(mode) = root_mode {
            let permissions = Permissions::from_mode(mode & 0o7777);
            std::fs::set_permissions(&root, permissions).map_err(|error| AgentError::io(&target.path, &error))?;
        }
        Ok(done)
    })
}

/// Of a member `.`.
fn is_directory_itself(path: &Path) -> bool {
    path.components().all(|component| component == Component::CurDir)
}

/// One that was there before and is somebody else's keeps its time, and so does one that is gone already.
fn set_modified(directory: &Path, modified: FileTime) -> Result<()> {
    match filetime::set_symlink_file_times(directory, modified, modified) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
            Err(AgentError::io(directory.display(), &error))
        }
        _ => Ok(()),
    }
}

/// tar's own checks skip such members in silence; a caller must hear of them.
pub fn check_member(path: &Path, kind: EntryType) -> Result<()> {
    let invalid = |what: &str| Err(AgentError::new("archive_invalid", format!("{}: {what}", path.display())));
    if path.components().any(|component| !matches!(component, Component::Normal(_) | Component::CurDir)) {
        return invalid("a member's name must be relative and without '..'");
    }
    match kind {
        EntryType::Regular
        | EntryType::Continuous
        | EntryType::GNUSparse
        | EntryType::Directory
        | EntryType::Symlink
        | EntryType::Link => Ok(()),
        _ => invalid("only files, directories and links are unpacked"),
    }
}

struct MemberOwner {
    uid: u32,
    gid: u32,
    acting_uid: u32,
}

impl MemberOwner {
    /// The request's owner, else the names in the archive that are known here, else the acting user.
    fn of(ownership: &Ownership, user: &User, header: &tar::Header) -> Self {
        let known = |name: std::result::Result<Option<&str>, std::str::Utf8Error>| {
            name.ok().flatten().filter(|name| !name.is_empty()).map(str::to_owned)
        };
        let named_user = known(header.username()).and_then(|name| find_user(&name).ok());
        let named_group = known(header.groupname()).and_then(|name| find_group(&name).ok());
        let uid = named_user.as_ref().map_or(user.uid, |named| named.uid);
        let gid = named_group.or(named_user.map(|named| named.gid)).unwrap_or(user.gid);
        let (uid, gid) = ownership.over(uid, gid);
        Self { uid, gid, acting_uid: user.uid }
    }

    fn apply(&self, path: &Path) -> Result<()> {
        // An ordinary user can give nothing away; what it unpacked is its own already.
        // SAFETY: geteuid has no preconditions.
        if self.acting_uid != 0 || unsafe { libc::geteuid() } != 0 {
            return Ok(());
        }
        lchown(path, Some(self.uid), Some(self.gid)).map_err(|error| AgentError::io(path.display(), &error))
    }
}

fn archive_error(error: &io::Error) -> AgentError {
    AgentError::new("archive_invalid", format!("not a complete tar archive: {error}"))
}

fn unpack_error(path: &Path, error: &io::Error) -> AgentError {
    // The tar crate wraps the kernel's error; the one with a number is what went wrong.
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && io.raw_os_error().is_some()
        {
            return AgentError::io(path.display(), io);
        }
        source = current.source();
    }
    if error.to_string().contains("outside") {
        return AgentError::new("archive_invalid", format!("{}: leads out of the directory", path.display()));
    }
    archive_error(error)
}

/// The response stream as a `Write`, in chunks.
struct OutgoingWriter {
    reply: Outgoing<TarOutResponse>,
    buffer: BytesMut,
}

impl Write for OutgoingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_BYTES + 1024)).freeze();
        self.reply.blocking_send(Ok(TarOutResponse { data })).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Packs a directory: names relative to it, sorted, links as links, sockets and devices left out.
pub fn pack(request: TarOutRequest, reply: Outgoing<TarOutResponse>) -> Result<()> {
    let target = required(request.target)?;
    let excluded: HashSet<PathBuf> =
        request.exclude.iter().map(|path| Path::new(path).components().collect()).collect();
    acting_as(&target.user, |_| {
        let located = locate(&target, true)?;
        let root = located.path();
        if !std::fs::metadata(&root).map_err(|error| AgentError::io(&target.path, &error))?.is_dir() {
            return Err(AgentError::new("not_a_directory", format!("{}: is not a directory", target.path)));
        }
        let mut builder = Builder::new(OutgoingWriter { reply, buffer: BytesMut::with_capacity(CHUNK_BYTES + 1024) });
        builder.follow_symlinks(false);
        match pack_below(&mut builder, &root, Path::new(""), &excluded).and_then(|()| {
            builder.finish()?;
            builder.get_mut().flush()
        }) {
            // The host stopped reading; there is nobody to tell.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            packed => packed.map_err(|error| AgentError::io(&target.path, &error)),
        }
    })
}

fn pack_below<W: Write>(
    builder: &mut Builder<W>,
    root: &Path,
    below: &Path,
    excluded: &HashSet<PathBuf>,
) -> io::Result<()> {
    let mut names =
        std::fs::read_dir(root.join(below))?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let relative = below.join(name);
        if excluded.contains(&relative) {
            continue;
        }
        match pack_member(builder, root, &relative, excluded) {
            // Removed while packing; nothing of it was written yet, or of a directory only that it was there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            packed => packed?,
        }
    }
    Ok(())
}

fn pack_member<W: Write>(
    builder: &mut Builder<W>,
    root: &Path,
    relative: &Path,
    excluded: &HashSet<PathBuf>,
) -> io::Result<()> {
    let path = root.join(relative);
    let kind = std::fs::symlink_metadata(&path)?.file_type();
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    if kind.is_dir() {
        builder.append_dir(relative, &path)?;
        return pack_below(builder, root, relative, excluded);
    }
    if kind.is_file() { pack_file(builder, &path, relative) } else { builder.append_path_with_name(&path, relative) }
}

/// A program may write to the file meanwhile: what is packed has the size that its header says, whatever the file has by then.
fn pack_file<W: Write>(builder: &mut Builder<W>, path: &Path, relative: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    if metadata.blocks() * STAT_BLOCK_BYTES < size {
        builder.append_file(relative, &mut file)?;
        if file.metadata()?.len() < size {
            return Err(io::Error::other(format!("{} became shorter while it was packed", relative.display())));
        }
        return Ok(());
    }
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    builder.append_data(&mut header, relative, file.chain(io::repeat(0)).take(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_accepted_member_name_leaves_its_directory(name in "[a./]{0,24}") {
            if check_member(Path::new(&name), EntryType::Regular).is_ok() {
                prop_assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."));
            }
        }
    }

    #[test]
    fn only_a_member_without_a_name_is_the_directory_itself() {
        assert!([".", "./", "./."].iter().all(|path| is_directory_itself(Path::new(path))));
        assert!(!is_directory_itself(Path::new("./a")));
    }

    const MODIFIED: u64 = 1_577_934_245;

    /// Directories before what is in them, as every archiver writes them.
    fn archive_of(members: &[(&str, u32)]) -> Incoming {
        let mut builder = Builder::new(Vec::new());
        for (name, mode) in members {
            let mut header = tar::Header::new_gnu();
            let is_directory = name.ends_with('/');
            header.set_entry_type(if is_directory { EntryType::Directory } else { EntryType::Regular });
            header.set_mode(*mode);
            header.set_mtime(MODIFIED);
            header.set_size(if is_directory { 0 } else { 1 });
            builder.append_data(&mut header, name, if is_directory { &b""[..] } else { &b"x"[..] }).unwrap();
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.blocking_send(Ok(builder.into_inner().unwrap().into())).unwrap();
        receiver
    }

    fn unpack_to(path: &Path, members: &[(&str, u32)]) -> TarInResponse {
        let target = crate::proto::Target { path: path.to_str().unwrap().into(), ..Default::default() };
        unpack(TarInOpen { target: Some(target), ..Default::default() }, archive_of(members)).unwrap()
    }

    fn mode_and_time(path: &Path) -> (u32, i64) {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.mode() & 0o7777, metadata.mtime())
    }

    #[test]
    fn members_keep_mode_and_time_and_so_does_a_directory_that_is_made_for_them() {
        let root = tempfile::tempdir().unwrap();
        let made = root.path().join("made");
        let members = [("./", 0o750), ("./a/", 0o700), ("./a/one", 0o640), ("./a/two", 0o600)];
        assert_eq!(unpack_to(&made, &members).entries, 3);
        for (path, mode) in [("", 0o750), ("a", 0o700), ("a/one", 0o640), ("a/two", 0o600)] {
            assert_eq!((path, mode_and_time(&made.join(path))), (path, (mode, MODIFIED as i64)));
        }
    }

    #[test]
    fn a_directory_that_was_there_stays_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        unpack_to(root.path(), &[("./", 0o777), ("./one", 0o640)]);
        let (mode, modified) = mode_and_time(root.path());
        assert!(mode == 0o711 && modified > MODIFIED as i64);
    }

    /// Takes an archive, and lets a program change the directory when the member's header is written.
    struct Meddled<F> {
        archive: Vec<u8>,
        member: &'static str,
        change: F,
    }

    impl<F: FnMut()> Write for Meddled<F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.archive.extend_from_slice(bytes);
            if bytes.starts_with(format!("{}\0", self.member).as_bytes()) {
                (self.change)();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Names and contents of what is packed of a directory that changes meanwhile.
    fn packed_while(root: &Path, member: &'static str, change: impl FnMut()) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut builder = Builder::new(Meddled { archive: Vec::new(), member, change });
        builder.follow_symlinks(false);
        pack_below(&mut builder, root, Path::new(""), &HashSet::new())?;
        let archive = builder.into_inner()?.archive;
        let read = |entry: io::Result<tar::Entry<&[u8]>>| {
            let (mut entry, mut contents) = (entry?, Vec::new());
            entry.read_to_end(&mut contents)?;
            Ok((entry.path()?.display().to_string(), contents))
        };
        Archive::new(&archive[..]).entries()?.map(read).collect()
    }

    #[test]
    fn a_file_that_a_program_writes_to_meanwhile_does_not_spoil_the_archive() {
        let root = tempfile::tempdir().unwrap();
        for (length, expected) in [(9_000, vec![b'x'; 5_000]), (2_000, [vec![b'x'; 2_000], vec![0; 3_000]].concat())] {
            let (log, after) = (root.path().join("log"), root.path().join("other"));
            std::fs::write(&log, vec![b'x'; 5_000]).unwrap();
            std::fs::write(after, "after it").unwrap();
            let change = || {
                let file = File::options().append(true).open(&log).unwrap();
                file.set_len(length.min(5_000)).unwrap();
                (&file).write_all(&vec![b'y'; length.saturating_sub(5_000) as usize]).unwrap();
            };
            let packed = packed_while(root.path(), "log", change).unwrap();
            assert!(packed == [("log".into(), expected), ("other".into(), b"after it".to_vec())], "{length}");
        }
    }

    #[test]
    fn a_file_with_holes_that_becomes_shorter_meanwhile_is_no_archive() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("holes");
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(10_000_000).unwrap();
        assert_eq!(packed_while(root.path(), "holes", || {}).unwrap()[0].1.len(), 10_000_000);
        let error = packed_while(root.path(), "holes", || file.set_len(1_000).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "holes became shorter while it was packed");
    }

    #[test]
    fn a_directory_that_is_removed_meanwhile_does_not_end_the_packing() {
        let root = tempfile::tempdir().unwrap();
        let gone = root.path().join("gone");
        std::fs::create_dir(&gone).unwrap();
        std::fs::write(root.path().join("stays"), "x").unwrap();
        let packed = packed_while(root.path(), "gone", || std::fs::remove_dir(&gone).unwrap()).unwrap();
        assert_eq!(packed.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["gone", "stays"]);
    }

    #[test]
    fn devices_are_refused() {
        assert_eq!(check_member(Path::new("x"), EntryType::Block).unwrap_err().reason, "archive_invalid");
    }
}
