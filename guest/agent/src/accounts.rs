//! Users and groups of the guest, read from /etc/passwd and /etc/group on every use: a sandbox may add some at any time, and a
//! static binary has no name service switch. Both files belong to the guest, so sizes are bounded and bad lines skipped.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{AgentError, Result};

const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
    /// Primary and supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    pub fn root() -> Self {
        Self { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/bash".into(), groups: vec![0] }
    }
}

/// The user with this name or number; an empty name is root.
/// Errors: `user_unknown`.
pub fn find_user(name: &str) -> Result<User> {
    if name.is_empty() {
        return Ok(User::root());
    }
    user_in(&read_bounded("/etc/passwd"), &read_bounded("/etc/group"), name)
        .ok_or_else(|| AgentError::new("user_unknown", format!("no user {name:?} in the sandbox's /etc/passwd")))
}

/// The number of the group with this name or number.
/// Errors: `group_unknown`.
pub fn find_group(name: &str) -> Result<u32> {
    group_in(&read_bounded("/etc/group"), name)
        .ok_or_else(|| AgentError::new("group_unknown", format!("no group {name:?} in the sandbox's /etc/group")))
}

/// The beginning of a guest's regular file; empty when there is none. Nothing else is waited for: a FIFO would block for ever.
pub fn read_bounded(path: &str) -> String {
    let mut bytes = Vec::new();
    // A guest without the file has no users but root, which is what an empty text says.
    if let Ok(file) = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        drop(file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// passwd(5): name:password:uid:gid:gecos:home:shell
pub fn user_in(passwd: &str, group: &str, name: &str) -> Option<User> {
    let wanted_uid = name.parse::<u32>().ok();
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
        if login != name && Some(uid) != wanted_uid {
            return None;
        }
        let mut groups = vec![gid];
        groups.extend(groups_of(group, login).filter(|other| *other != gid));
        Some(User { name: login.into(), uid, gid, home: home.into(), shell: shell.into(), groups })
    })
}

/// group(5): name:password:gid:member,member
fn groups_of<'a>(group: &'a str, login: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { return None };
        members.split(',').any(|member| member == login).then(|| gid.parse().ok()).flatten()
    })
}

pub fn group_in(group: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse::<u32>() {
        return Some(number);
    }
    group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [group_name, _, gid, _] = fields[..] else { return None };
        if group_name == name { gid.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nada:x:1000:1000:Ada:/home/ada:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nada:x:1000:\ndocker:x:998:bob,ada\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_supplementary_groups() {
        let ada = user_in(PASSWD, GROUP, "ada").unwrap();
        assert_eq!((ada.uid, ada.groups.clone()), (1000, vec![1000, 998]));
        assert_eq!(user_in(PASSWD, GROUP, "1000"), Some(ada));
        assert_eq!(user_in(PASSWD, GROUP, "broken"), None);
        assert_eq!(group_in(GROUP, "docker"), Some(998));
    }

    proptest! {
        #[test]
        fn no_content_of_the_files_makes_the_parser_panic(passwd in ".{0,400}", group in ".{0,400}", name in ".{0,20}") {
            let _ = user_in(&passwd, &group, &name);
            let _ = group_in(&group, &name);
        }
    }
}
