//! From a path in a request to an open parent directory and a last name, with symlinks resolved and containment checked on what was
//! opened. What acts on the result goes through `/proc/self/fd/<parent>/<leaf>`, so nothing that changes in between is followed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{AgentError, Result};
use crate::proto::Target;

/// As the kernel's own limit for one lookup.
const MAX_LINKS: usize = 40;
const MAX_PATH_BYTES: usize = 4096;

/// A name in an open directory. The name need not exist.
pub struct Located {
    parent: File,
    /// `.` when the target is the root directory.
    leaf: OsString,
    /// Where it really is.
    pub real: PathBuf,
}

impl Located {
    /// A path for system calls that names exactly this entry of exactly this directory.
    pub fn path(&self) -> PathBuf {
        self.sibling(&self.leaf)
    }

    /// Another name in the same directory.
    pub fn sibling(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.parent.as_raw_fd().to_string()).join(name)
    }

    pub fn leaf(&self) -> &OsStr {
        &self.leaf
    }

    pub fn parent(&self) -> &File {
        &self.parent
    }

    /// The last name as it is known to people: the root directory is called `/`.
    pub fn name(&self) -> &OsStr {
        if self.leaf == "." { OsStr::new("/") } else { &self.leaf }
    }
}

/// Resolves a target; `follow` also resolves a symlink in last place.
/// Errors: `invalid_path`, `not_found`, `not_a_directory`, `permission_denied`, `path_escape`, `too_many_links`.
pub fn locate(target: &Target, follow: bool) -> Result<Located> {
    let mut path = checked_path(&target.path)?;
    for _ in 0..MAX_LINKS {
        let located = open_parent(&path)?;
        let link = if follow { std::fs::read_link(located.path()).ok() } else { None };
        match link {
            // Relative targets start at the link's directory; an absolute one replaces it in `join`.
            Some(link) => path = located.real.parent().unwrap_or(Path::new("/")).join(link),
            None => {
                check_within(&located.real, &target.within)?;
                return Ok(located);
            }
        }
    }
    Err(AgentError::new("too_many_links", format!("{}: too many levels of symbolic links", target.path)))
}

/// Makes the missing ancestors of a target (mode 0755), none of them outside `within`.
pub fn make_parents(target: &Target, made: &dyn Fn(&Path)) -> Result<()> {
    let path = checked_path(&target.path)?;
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut current = PathBuf::from("/");
    for component in parent.components().filter(|component| matches!(component, Component::Normal(_))) {
        current.push(component);
        let step = Target { path: current.to_string_lossy().into_owned(), within: vec![], user: String::new() };
        let located = locate(&step, true)?;
        match std::fs::symlink_metadata(located.path()) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(AgentError::new("not_a_directory", format!("{}: not a directory", current.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                check_within(&located.real, &target.within)?;
                match std::fs::create_dir(located.path()) {
                    Ok(()) => made(&located.path()),
                    // Another request made it first.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(AgentError::io(current.display(), &error)),
                }
            }
            Err(error) => return Err(AgentError::io(current.display(), &error)),
        }
    }
    Ok(())
}

pub fn checked_path(path: &str) -> Result<PathBuf> {
    let problem = if !path.starts_with('/') {
        "a path must be absolute"
    } else if path.contains('\0') {
        "a path cannot hold a NUL byte"
    } else if path.len() > MAX_PATH_BYTES {
        "a path cannot be longer than 4096 bytes"
    } else {
        return Ok(PathBuf::from(path));
    };
    Err(AgentError::new("invalid_path", format!("{path:.80?}: {problem}")))
}

fn open_parent(path: &Path) -> Result<Located> {
    // `..`, `.` and `/` in last place name a directory: open it, then split its real path.
    let ends_in_name = matches!(path.components().next_back(), Some(Component::Normal(_))) && !ends_in_dots(path);
    let (parent, leaf) = if ends_in_name {
        (path.parent().unwrap_or(Path::new("/")).to_owned(), path.file_name().unwrap_or_default().to_owned())
    } else {
        let real = real_path(&open_directory(path)?, path)?;
        match real.file_name() {
            Some(name) => (real.parent().unwrap_or(Path::new("/")).to_owned(), name.to_owned()),
            None => (PathBuf::from("/"), OsString::from(".")),
        }
    };
    let directory = open_directory(&parent)?;
    let real_parent = real_path(&directory, &parent)?;
    let real = if leaf == "." { real_parent } else { real_parent.join(&leaf) };
    Ok(Located { parent: directory, leaf, real })
}

/// `Path::components` drops a trailing `/.`, which the kernel does not.
fn ends_in_dots(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/.") || bytes.ends_with(b"/..")
}

fn open_directory(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
        .map_err(|error| AgentError::io(path.display(), &error))
}

fn real_path(directory: &File, asked: &Path) -> Result<PathBuf> {
    std::fs::read_link(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()))
        .map_err(|error| AgentError::io(asked.display(), &error))
}

fn check_within(real: &Path, within: &[String]) -> Result<()> {
    if within.is_empty() {
        return Ok(());
    }
    for root in within {
        let root = checked_path(root)?;
        // A root that is not there yet stands for itself.
        let root = std::fs::canonicalize(&root).unwrap_or(root);
        if real.starts_with(&root) {
            return Ok(());
        }
    }
    Err(AgentError::new("path_escape", format!("{} lies outside {}", real.display(), within.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn target(path: &Path, within: &Path) -> Target {
        Target { path: path.display().to_string(), within: vec![within.display().to_string()], user: String::new() }
    }

    #[test]
    fn a_link_that_leads_out_is_an_escape_and_one_that_stays_inside_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("real", root.join("in")).unwrap();
        symlink(outside.join("file"), root.join("leaf")).unwrap();

        assert_eq!(locate(&target(&root.join("in/new"), &root), true).unwrap().real, root.join("real/new"));
        for path in ["out/new", "leaf", "../outside/file", "in/../../outside/x"] {
            let error = locate(&target(&root.join(path), &root), true).err().map(|error| error.reason);
            assert_eq!(error, Some("path_escape"), "{path}");
        }
        assert!(locate(&target(&root.join("leaf"), &root), false).is_ok(), "the link itself is inside");
    }

    #[test]
    fn a_loop_of_links_and_a_bad_path_are_named() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let reason = |path: &str| {
            locate(&Target { path: path.into(), ..Target::default() }, true).err().map(|error| error.reason)
        };
        assert_eq!(reason(&dir.path().join("a").display().to_string()), Some("too_many_links"));
        assert_eq!(reason("relative"), Some("invalid_path"));
        assert_eq!(reason("/a\0b"), Some("invalid_path"));
    }

    #[test]
    fn the_root_directory_can_be_named_in_every_way() {
        for path in ["/", "/.", "/usr/..", "/../.."] {
            assert_eq!(locate(&Target { path: path.into(), ..Target::default() }, true).unwrap().real, Path::new("/"));
        }
    }
}
