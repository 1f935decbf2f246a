//! Changes below a directory, through inotify(7).

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio_stream::StreamExt;

use super::Outgoing;
use super::locate::locate;
use super::ops::required;
use crate::error::{AgentError, Result};
use crate::proto::{WatchEvent, WatchRequest, watch_event::Kind};

/// Directories that one watch may hold.
const MAX_DIRECTORIES: usize = 8192;
/// What may be found in a new directory, as much as the kernel's own queue holds; with more, the host has to look itself.
const MAX_FOUND: usize = 16_384;

struct Tree {
    watches: Watches,
    directories: HashMap<WatchDescriptor, PathBuf>,
    root: PathBuf,
    recursive: bool,
}

impl Tree {
    /// Watches a directory and, when recursive, those below it. `found` gets what is below it already.
    fn add(&mut self, relative: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        if self.directories.len() >= MAX_DIRECTORIES {
            return Err(AgentError::new("watch_limit", format!("more than {MAX_DIRECTORIES} directories to watch")));
        }
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DONT_FOLLOW
            | WatchMask::ONLYDIR;
        let path = self.root.join(relative);
        match self.watches.add(&path, mask) {
            Ok(descriptor) => drop(self.directories.insert(descriptor, relative.to_owned())),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                return Err(AgentError::new("watch_limit", "the sandbox's inotify watches are used up"));
            }
            // Gone again already.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !relative.as_os_str().is_empty() => {
                return Ok(());
            }
            Err(error) => return Err(AgentError::io(path.display(), &error)),
        }
        if self.recursive {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let below = relative.join(entry.file_name());
                if found.len() <= MAX_FOUND {
                    found.push(below.clone());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    self.add(&below, found)?;
                }
            }
        }
        Ok(())
    }
}

/// Watches in the background until the reply is dropped. Errors before the first event: those of `locate`, `watch_limit`.
pub fn watch(request: WatchRequest, reply: Outgoing<WatchEvent>) -> Result<()> {
    let target = required(request.target)?;
    let located = locate(&target, true)?;
    let inotify = Inotify::init().map_err(|error| AgentError::io("inotify", &error))?;
    let root = located.real.clone();
    let mut tree = Tree { watches: inotify.watches(), directories: HashMap::new(), root, recursive: request.recursive };
    tree.add(Path::new(""), &mut Vec::new())?;
    let mut events =
        inotify.into_event_stream(vec![0; 64 * 1024]).map_err(|error| AgentError::io("inotify", &error))?;
    tokio::spawn(async move {
        let ready = WatchEvent { kind: Kind::Ready.into(), path: Default::default() };
        if reply.send(Ok(ready)).await.is_err() {
            return;
        }
        loop {
            let event = tokio::select! {
                () = reply.closed() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => event,
                    _ => return,
                },
            };
            if event.mask.contains(EventMask::IGNORED) {
                // The directory has gone, and its number is not given again.
                tree.directories.remove(&event.wd);
                continue;
            }
            let Some(kind) = kind_of(event.mask) else { continue };
            let below = match tree.directories.get(&event.wd) {
                Some(below) => below.clone(),
                None if kind == Kind::Overflow => PathBuf::new(),
                // Of a directory that was moved out of the tree.
                None => continue,
            };
            let path = event.name.as_ref().map_or(below.clone(), |name| below.join(name));
            if event.mask.contains(EventMask::ISDIR | EventMask::MOVED_FROM) {
                // Those that come to another place of the tree are added there, and have the same numbers as before.
                tree.directories.retain(|_, directory| !directory.starts_with(&path));
            }
            let is_new_directory = event.mask.contains(EventMask::ISDIR) && matches!(kind, Kind::Created | Kind::Moved);
            let mut found = Vec::new();
            if tree.recursive
                && is_new_directory
                && let Err(error) = tree.add(&path, &mut found)
            {
                // Changes below it would go unseen: the watch ends with the reason.
                drop(reply.send(Err(error.into())).await);
                return;
            }
            // What was made in a new directory before it was watched. One that was moved came as it is.
            let made = match kind {
                Kind::Created if found.len() > MAX_FOUND => vec![(Kind::Overflow, PathBuf::new())],
                Kind::Created => found.into_iter().map(|path| (Kind::Created, path)).collect(),
                _ => vec![],
            };
            for (kind, path) in std::iter::once((kind, path)).chain(made) {
                let message = WatchEvent { kind: kind.into(), path: path.as_os_str().as_bytes().to_vec().into() };
                if reply.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(())
}

fn kind_of(mask: EventMask) -> Option<Kind> {
    [
        (EventMask::Q_OVERFLOW, Kind::Overflow),
        (EventMask::CREATE, Kind::Created),
        (EventMask::DELETE, Kind::Removed),
        (EventMask::MOVED_FROM, Kind::Removed),
        (EventMask::MOVED_TO, Kind::Moved),
        (EventMask::MODIFY, Kind::Modified),
        (EventMask::ATTRIB, Kind::Modified),
    ]
    .into_iter()
    .find_map(|(bit, kind)| mask.contains(bit).then_some(kind))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::files::outgoing;
    use crate::proto::Target;

    /// The events from here on, after the first, which says that the watch has begun.
    async fn watched(root: &Path) -> impl AsyncFnMut() -> (Kind, String) {
        let target = Target { path: root.to_str().unwrap().into(), ..Default::default() };
        let (reply, mut events) = outgoing();
        watch(WatchRequest { target: Some(target), recursive: true }, reply).unwrap();
        let mut next = async move || {
            let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("one more event");
            let event = event.expect("the watch goes on").unwrap();
            (event.kind(), String::from_utf8(event.path.to_vec()).unwrap())
        };
        assert_eq!(next().await.0, Kind::Ready);
        next
    }

    #[tokio::test]
    async fn what_is_made_in_a_new_directory_before_it_is_watched_is_told_too() {
        let root = tempfile::tempdir().unwrap();
        let mut next = watched(root.path()).await;
        // On one thread: the watch sees nothing of it before all is there.
        std::fs::create_dir_all(root.path().join("new/below")).unwrap();
        std::fs::write(root.path().join("new/below/file"), "").unwrap();
        for path in ["new", "new/below", "new/below/file"] {
            assert_eq!(next().await, (Kind::Created, path.to_owned()));
        }
        std::fs::remove_file(root.path().join("new/below/file")).unwrap();
        assert_eq!(next().await, (Kind::Removed, "new/below/file".to_owned()));
    }

    #[tokio::test]
    async fn a_directory_that_is_moved_is_told_of_where_it_is_and_only_while_it_is_in_the_tree() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(root.path().join("a/below")).unwrap();
        let mut next = watched(root.path()).await;
        let mut expect = async |events: &[(Kind, &str)]| {
            for (kind, path) in events {
                assert_eq!(next().await, (*kind, (*path).to_owned()));
            }
        };
        std::fs::rename(root.path().join("a"), root.path().join("b")).unwrap();
        expect(&[(Kind::Removed, "a"), (Kind::Moved, "b")]).await;
        std::fs::create_dir(root.path().join("b/below/new")).unwrap();
        expect(&[(Kind::Created, "b/below/new")]).await;
        std::fs::rename(root.path().join("b"), outside.path().join("c")).unwrap();
        expect(&[(Kind::Removed, "b")]).await;
        std::fs::remove_dir(outside.path().join("c/below/new")).unwrap();
        std::fs::create_dir(root.path().join("last")).unwrap();
        expect(&[(Kind::Created, "last")]).await;
    }

    #[tokio::test]
    async fn directories_that_come_and_go_do_not_use_up_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let mut next = watched(root.path()).await;
        let batch: Vec<PathBuf> = (0..1_000).map(|number| root.path().join(number.to_string())).collect();
        for _ in 0..=MAX_DIRECTORIES / batch.len() {
            batch.iter().for_each(|path| std::fs::create_dir(path).unwrap());
            for _ in &batch {
                assert_eq!(next().await.0, Kind::Created);
            }
            batch.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
            for _ in &batch {
                assert_eq!(next().await.0, Kind::Removed);
            }
        }
    }
}
