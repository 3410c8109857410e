//! What the kernel is asked for that has no safe wrapper.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::errno::Errno;

/// SCHED_RR for the calling thread; `false` if it is not allowed.
pub(crate) fn become_real_time(priority: i32) -> bool {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the pointer is to a live value of the right type; 0 names the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) == 0 }
}

/// Locks what this process has and will have in memory; `false` if it is not allowed.
pub fn lock_memory() -> bool {
    // SAFETY: no pointer is passed.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) == 0 }
}

/// Whether the kernel counts its wall clock as synchronised: somebody keeps it right. Nothing is changed.
///
/// # Errors
/// The kernel does not say: some containers forbid the question.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: all zeroes is a valid value of this C struct of integers, and asks for no change (`modes` = 0).
    let mut question: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the right type, which the kernel fills in.
    let state = unsafe { libc::adjtimex(&raw mut question) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && question.status & libc::STA_UNSYNC == 0)
}

/// A moment as the clock on the wall of this machine shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// As people count them.
    pub year: i32,
    /// From 1.
    pub month: i32,
    /// From 1.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
}

/// What that clock shows so many seconds after 1970 began in UTC; `None` for a year that it cannot show.
pub fn local_time(unix_s: i64) -> Option<LocalTime> {
    // SAFETY: all zeroes is a valid value of this C struct: integers, and a pointer that may be null.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types.
    let told = unsafe { libc::localtime_r(&raw const unix_s, &raw mut broken) };
    (!told.is_null()).then_some(LocalTime {
        year: broken.tm_year.checked_add(1900)?,
        month: broken.tm_mon + 1,
        day: broken.tm_mday,
        hour: broken.tm_hour,
        minute: broken.tm_min,
        second: broken.tm_sec,
    })
}

/// When it shows that, in seconds after 1970 began in UTC; `None` if it never does, as on the 31st of February or in an hour
/// that is left out. Of an hour that comes twice one is meant.
pub fn unix_time(local: LocalTime) -> Option<i64> {
    // SAFETY: as above.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    broken.tm_year = local.year.checked_sub(1900)?;
    broken.tm_mon = local.month.checked_sub(1)?;
    broken.tm_mday = local.day;
    broken.tm_hour = local.hour;
    broken.tm_min = local.minute;
    broken.tm_sec = local.second;
    // The tables of the time zone know whether it is summer.
    broken.tm_isdst = -1;
    // SAFETY: the pointer is to a live value of the right type.
    let unix_s = unsafe { libc::mktime(&raw mut broken) };
    (local_time(unix_s) == Some(local)).then_some(unix_s)
}

/// This program begins anew in this process, with the arguments that it had: what it started goes on, and is adopted. Comes
/// back only if that is not possible.
pub fn begin_anew() -> io::Error {
    let own = match std::env::current_exe() {
        Ok(own) if own.is_file() => own,
        // It was removed, or replaced, while it ran.
        Ok(_) | Err(_) => PathBuf::from("/proc/self/exe"),
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(own);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).exec()
}

/// The children that this process has: of an earlier program in it, if this one has not started any.
pub fn children() -> Vec<nix::unistd::Pid> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything; what follows its last parenthesis is state and parent.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(own.as_str())
    };
    pids.filter(is_child)
        .map(nix::unistd::Pid::from_raw)
        .collect()
}

/// Starts a process in a session of its own, and in the cgroup of this `cgroup.procs`.
///
/// # Errors
/// If it cannot be started.
pub fn spawn_apart(command: &mut Command, cgroup: Option<File>) -> io::Result<Child> {
    let apart = move || {
        if let Some(mut processes) = cgroup.as_ref() {
            // Where the kernel does not want it, it stays in its parent's: it works there as well.
            let _ = processes.write(b"0");
        }
        match nix::unistd::setsid() {
            Ok(_) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls, write and setsid, which are async-signal-safe; it
    // takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(apart);
    }
    command.spawn()
}

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// `WDIOS_DISABLECARD`.
const DISABLE_CARD: libc::c_int = 1;

mod ioctls {
    nix::ioctl_read!(get_support, b'W', 0, super::WatchdogInfo);
    // Declared as one that is read, and it is the kernel that reads it.
    nix::ioctl_read!(set_options, b'W', 4, libc::c_int);
    nix::ioctl_read!(keep_alive, b'W', 5, libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
}

/// What a watchdog device can do (`WDIOF_...`); [`Errno::ENOTTY`] if it is none.
pub(crate) fn watchdog_options(device: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut info = WatchdogInfo::default();
    // SAFETY: the descriptor is open, and the pointer is to a live value of the layout that the kernel writes.
    unsafe { ioctls::get_support(device.as_raw_fd(), &raw mut info) }?;
    Ok(info.options)
}

/// Sets a watchdog's timeout in seconds; says the one that it took.
pub(crate) fn set_watchdog_timeout(device: BorrowedFd<'_>, seconds: u32) -> Result<u32, Errno> {
    let mut seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open, and the pointer is to a live integer that the kernel reads and writes.
    unsafe { ioctls::set_timeout(device.as_raw_fd(), &raw mut seconds) }?;
    Ok(u32::try_from(seconds).unwrap_or(0))
}

/// A watchdog's timeout in seconds.
pub(crate) fn watchdog_timeout(device: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut seconds = 0;
    // SAFETY: the descriptor is open, and the pointer is to a live integer that the kernel writes.
    unsafe { ioctls::get_timeout(device.as_raw_fd(), &raw mut seconds) }?;
    Ok(u32::try_from(seconds).unwrap_or(0))
}

/// A sign of life to a watchdog.
pub(crate) fn pet_watchdog(device: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut nothing = 0;
    // SAFETY: the descriptor is open, and the pointer is to a live integer, which the kernel does not use.
    unsafe { ioctls::keep_alive(device.as_raw_fd(), &raw mut nothing) }.map(drop)
}

/// Stops a watchdog; [`Errno::EBUSY`] if it cannot be stopped.
pub(crate) fn stop_watchdog(device: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut stop = DISABLE_CARD;
    // SAFETY: the descriptor is open, and the pointer is to a live integer, which the kernel reads.
    unsafe { ioctls::set_options(device.as_raw_fd(), &raw mut stop) }.map(drop)
}
