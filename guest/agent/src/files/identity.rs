//! Acting with a user's rights on one thread.

use crate::accounts::{User, find_user};
use crate::error::{AgentError, Result};

/// Runs `work` with the file system rights of `user` (empty: root), then takes the thread's own back.
///
/// The raw system calls change this thread only (setfsuid(2), "C library/kernel differences"); leaving uid 0 also drops
/// CAP_DAC_OVERRIDE and its kin from the effective set, coming back restores them (capabilities(7)).
pub fn acting_as<T>(user: &str, work: impl FnOnce(&User) -> Result<T>) -> Result<T> {
    let user = find_user(user)?;
    if user.uid == 0 {
        return work(&user);
    }
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Err(AgentError::new(
            "permission_denied",
            format!("the agent is not root and cannot act as {}", user.name),
        ));
    }
    let _restore = Switch::to(&user)?;
    work(&user)
}

struct Switch {
    groups: Vec<libc::gid_t>,
}

impl Switch {
    fn to(user: &User) -> Result<Self> {
        // SAFETY: getgroups with 0 only counts; then the buffer has the counted size.
        let groups = unsafe {
            let count = libc::getgroups(0, std::ptr::null_mut()).max(0);
            let mut groups = vec![0; count as usize];
            let count = libc::getgroups(count, groups.as_mut_ptr()).max(0);
            groups.truncate(count as usize);
            groups
        };
        let switch = Self { groups };
        set_thread(&user.groups, user.gid, user.uid)
            .map_err(|error| AgentError::io(format_args!("acting as {}", user.name), &error))?;
        Ok(switch)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Err(error) = set_thread(&self.groups, 0, 0) {
            // A pool thread that kept foreign rights would serve other requests with them.
            eprintln!("instavm-agent: cannot take root's rights back: {error}");
            std::process::abort();
        }
    }
}

fn set_thread(groups: &[u32], gid: u32, uid: u32) -> std::io::Result<()> {
    // SAFETY: the pointer and length describe `groups`; setfsuid and setfsgid take integers. The order matters: setting groups and
    // the gid needs root's capabilities, which changing the uid drops.
    unsafe {
        if uid == 0 {
            libc::syscall(libc::SYS_setfsuid, uid);
        }
        if libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // Each reports the previous id, never an error; asking with an invalid id tells what is set.
        if libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32 != uid
            || libc::syscall(libc::SYS_setfsgid, u32::MAX) as u32 != gid
        {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
    }
    Ok(())
}
