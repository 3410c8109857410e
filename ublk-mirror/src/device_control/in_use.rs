//! Whether anybody uses a block device: a mount, a stacked device, or just an open file.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::inbox::{Inbox, Message};
use crate::sys;

/// udev and the like look at a device for a moment.
const PASSING_USE_MAX: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 128 * 1024;

/// Looks in a thread of its own, because the owner thread goes on serving, and not before that moment. False: no thread
/// could be made.
pub(super) fn ask(dev_id: u32, generation: u32, not_before: Instant, inbox: Arc<Inbox>) -> bool {
    let look = move || {
        thread::sleep(not_before.saturating_duration_since(Instant::now()));
        let in_use = stays_in_use(dev_id);
        // A deactivation waits for this. Having waited for room makes it older by a round of the owner, which takes all that is in the
        // queue. Who opens the device after the look is late either way: nothing keeps it closed until it stops.
        inbox.put_when_there_is_room(Message::DeviceUse { generation, in_use });
    };
    thread::Builder::new()
        .name("device-use".into())
        .stack_size(STACK_BYTES)
        .spawn(look)
        .is_ok()
}

fn stays_in_use(dev_id: u32) -> bool {
    let deadline = Instant::now() + PASSING_USE_MAX;
    while in_use(dev_id) {
        if Instant::now() >= deadline {
            return true;
        }
        thread::sleep(RETRY);
    }
    false
}

fn in_use(dev_id: u32) -> bool {
    let path = format!("/dev/ublkb{dev_id}");
    let exclusive = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL | libc::O_CLOEXEC)
        .open(&path);
    match exclusive {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(_) => true,
        Ok(file) => {
            let number = file.metadata().map(|metadata| metadata.rdev());
            drop(file);
            number.map_or(true, open_somewhere)
        }
    }
}

/// Whether another process has the device open, under whatever name.
fn open_somewhere(number: u64) -> bool {
    let own = sys::pid().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let name = process.file_name();
            let name = name.to_string_lossy();
            name != own.as_str() && name.bytes().all(|byte| byte.is_ascii_digit())
        })
        .any(|process| has_open(&process.path().join("fd"), number))
}

fn has_open(descriptors: &Path, number: u64) -> bool {
    let open = fs::read_dir(descriptors).into_iter().flatten().flatten();
    open.map(|descriptor| descriptor.path())
        // Only paths under /dev are looked at closer: a look at a dead network file system hangs.
        .filter(|path| fs::read_link(path).is_ok_and(|target| target.starts_with("/dev")))
        .any(|path| fs::metadata(path).is_ok_and(|metadata| metadata.rdev() == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without it a deactivation would wait for ever.
    #[test]
    fn the_answer_waits_for_room_in_a_full_inbox() {
        let inbox = Arc::new(Inbox::full());
        // There is no such device, so nobody uses it.
        assert!(ask(u32::MAX, 7, Instant::now(), inbox.clone()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while inbox.waiting() == 0 {
            assert!(Arc::strong_count(&inbox) > 1, "it gave up");
            assert!(Instant::now() < deadline, "it does not come");
            thread::yield_now();
        }
        let found = loop {
            assert!(Instant::now() < deadline, "the answer is lost");
            match inbox.take() {
                Some(Message::DeviceUse { generation, in_use }) => break (generation, in_use),
                Some(_) => {}
                None => thread::yield_now(),
            }
        };
        assert_eq!(found, (7, false));
    }
}
