//! Time and identity of this process.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the epoch, UTC.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// 32 hexadecimal digits that no other call anywhere returns.
pub fn unique() -> String {
    use std::hash::{BuildHasher, RandomState};
    // RandomState draws its keys from the operating system
    let word = || RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    format!("{:016x}{:016x}", word(), word())
}

/// Whether the process may still live: certain only for a dead one of this machine.
pub fn may_live(host_name: &str, pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    if host_name != host() {
        return true;
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}
