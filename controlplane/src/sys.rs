//! What the kernel is asked for that has no safe wrapper.

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
