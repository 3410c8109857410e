//! What this process asks of the kernel besides block I/O: its own mount
//! namespace, locked memory, capabilities, clocks, block device attributes.
//!
//! The unsafe code of the crate lives here and in `queue`, `buffers` and
//! `device_helper`; every function of this module is safe to call.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mirror_core::event::Event;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::time::{ClockId, clock_gettime};

/// How deep a stack of block devices (LVM on LUKS on RAID...) is followed.
const STACKED_DEVICES_MAX: u32 = 8;
const CAP_SYS_ADMIN: u32 = 21;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Whether a block device refuses write(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// Leaves the mount namespace of the host, and lets go of every file system
/// that stands on a ublk device: mount points and devices of these, for whoever tells it.
///
/// A namespace keeps its mounts alive. If this process were the last to hold
/// the file system on its own device, its exit would unmount it and wait, in
/// the kernel and for ever, for I/O that only this process could have served.
/// Propagation is cut for the same reason. It is for the calling thread and those that
/// it starts; a thread that was there before has to do it itself.
pub fn enter_private_mount_namespace() -> io::Result<Vec<(String, String)>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let found: Vec<_> = mounts.lines().rev().filter_map(mount_on_ublk).collect();
    for (mount_point, _) in &found {
        match umount2(mount_point.as_str(), MntFlags::MNT_DETACH) {
            // Gone already: it was below another one that was detached.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

/// The calling thread sees the machine's mounts as they are now; the process itself left them behind
/// ([`enter_private_mount_namespace`]). A thread that does this has to end soon.
pub fn see_the_machines_mounts() -> io::Result<()> {
    restore_sys_admin_of_this_thread()?;
    unshare(CloneFlags::CLONE_FS)?;
    setns(fs::File::open("/proc/1/ns/mnt")?, CloneFlags::CLONE_NEWNS)?;
    drop_sys_admin_of_this_thread()
}

/// The calling thread has descriptors of its own from now on, and of those of the process only this one. What another
/// thread opened ends with that thread, also while this one cannot.
pub fn leave_the_files_but(kept: RawFd) -> io::Result<()> {
    let kept = libc::c_uint::try_from(kept).map_err(io::Error::other)?;
    let unshare = libc::CLOSE_RANGE_UNSHARE.cast_signed();
    if kept > 0 {
        // SAFETY: the table is copied before anything is closed in it, so nobody else's descriptors are touched; the
        // caller uses none but `kept`.
        check(unsafe { libc::close_range(0, kept - 1, unshare) })?;
    }
    // SAFETY: as above; the table is this thread's own by now, or becomes it.
    check(unsafe { libc::close_range(kept + 1, libc::c_uint::MAX, unshare) }).map(drop)
}

/// Mount point and device of a line of mountinfo, if the file system stands on ublk.
fn mount_on_ublk(line: &str) -> Option<(String, String)> {
    let mut fields = line.split(' ');
    let numbers = fields.nth(2)?;
    let mount_point = fields.nth(1)?;
    let source = line.split(" - ").nth(1)?.split(' ').nth(1)?;
    let mut candidates = vec![numbers.to_owned()];
    // btrfs and the like report an anonymous device number; their source tells more.
    if let Ok(metadata) = fs::metadata(unescape(source)) {
        let rdev = std::os::unix::fs::MetadataExt::rdev(&metadata);
        candidates.push(format!("{}:{}", libc::major(rdev), libc::minor(rdev)));
    }
    candidates
        .iter()
        .any(|device| {
            fs::canonicalize(format!("/sys/dev/block/{device}"))
                .is_ok_and(|path| stands_on_ublk(&path, STACKED_DEVICES_MAX))
        })
        .then(|| (unescape(mount_point), source.to_owned()))
}

fn stands_on_ublk(device: &Path, depth_left: u32) -> bool {
    if device.to_string_lossy().contains("/ublkb") {
        return true;
    }
    if depth_left == 0 {
        return false;
    }
    let Ok(slaves) = fs::read_dir(device.join("slaves")) else {
        return false;
    };
    slaves.flatten().any(|slave| {
        fs::canonicalize(slave.path()).is_ok_and(|path| stands_on_ublk(&path, depth_left - 1))
    })
}

/// The kernel writes blanks in mount points as octal escapes.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// Marks the calling thread as one that memory reclaim depends on: it must
/// never wait in reclaim for I/O that it serves itself. Threads started
/// afterwards inherit it.
pub fn set_io_flusher() -> io::Result<()> {
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    // SAFETY: PR_SET_IO_FLUSHER takes plain numbers and touches no memory of ours.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    check(result).map(drop)
}

/// Locks what is mapped now and what will be.
pub fn lock_all_memory() -> io::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
    Ok(())
}

/// The kernel's out-of-memory killer must choose another victim: every process
/// that uses the volume waits for this one.
pub fn shield_from_oom_killer() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "-1000")
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops the *effective* CAP_SYS_ADMIN of the calling thread.
///
/// The ublk driver scans a device for partitions only if all its queue threads
/// are privileged. That scan reads from the device inside START; a daemon killed
/// meanwhile would leave the command, and itself, waiting for ever.
pub fn drop_sys_admin_of_this_thread() -> io::Result<()> {
    change_sys_admin(|set| set.effective &= !(1 << CAP_SYS_ADMIN))
}

/// Takes CAP_SYS_ADMIN back, as far as the thread is permitted to have it.
pub fn restore_sys_admin_of_this_thread() -> io::Result<()> {
    change_sys_admin(|set| set.effective |= set.permitted & (1 << CAP_SYS_ADMIN))
}

fn change_sys_admin(change: impl FnOnce(&mut CapabilitySet)) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: version 3 reads one header and writes two sets; both live on our
    // stack, have the kernel's layout, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    check_long(result)?;
    change(&mut sets[0]);
    // SAFETY: as above; the kernel only reads the two sets.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    check_long(result)
}

/// Identifies this boot of the machine.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    parse_uuid(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID"))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

/// CLOCK_BOOTTIME: goes on while the machine is suspended.
pub fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .expect("CLOCK_BOOTTIME exists since Linux 2.6.39")
}

/// The wall clock: for the record of what operators said, and for nothing that is decided.
pub fn wall_clock() -> Event<'static> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Event::WallClock {
        unix_s: since_1970.map_or(0, |since| since.as_secs()),
    }
}

/// Fills `bytes` from the kernel's random generator.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: pointer and length describe `rest`, exclusively borrowed here.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(count) => filled += count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Our process id, as ublk wants it.
pub fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

mod ioctl {
    nix::ioctl_read!(block_get_size64, 0x12, 114, u64);
    nix::ioctl_read_bad!(block_get_logical_size, libc::BLKSSZGET, libc::c_int);
    nix::ioctl_read_bad!(
        block_get_physical_size,
        nix::request_code_none!(0x12, 123),
        libc::c_uint
    );
    nix::ioctl_read_bad!(
        block_get_read_only,
        nix::request_code_none!(0x12, 94),
        libc::c_int
    );
    nix::ioctl_write_ptr_bad!(
        block_set_read_only,
        nix::request_code_none!(0x12, 93),
        libc::c_int
    );
    nix::ioctl_none_bad!(block_flush_buffers, nix::request_code_none!(0x12, 97));
}

/// Size of a block device (BLKGETSIZE64).
pub fn block_device_bytes(device: &File) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the ioctl writes one u64 through a pointer to a live u64.
    unsafe { ioctl::block_get_size64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Smallest unit the device addresses (BLKSSZGET).
pub fn logical_block_bytes(device: &File) -> io::Result<u32> {
    let mut bytes = 0;
    // SAFETY: the ioctl writes one int through a pointer to a live int.
    unsafe { ioctl::block_get_logical_size(device.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Smallest unit the device writes atomically (BLKPBSZGET).
pub fn physical_block_bytes(device: &File) -> io::Result<u32> {
    let mut bytes = 0;
    // SAFETY: the ioctl writes one unsigned int through a pointer to a live one.
    unsafe { ioctl::block_get_physical_size(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Whether the device refuses write(2) (BLKROGET).
pub fn access(device: &File) -> io::Result<Access> {
    let mut read_only = 0;
    // SAFETY: the ioctl writes one int through a pointer to a live int.
    unsafe { ioctl::block_get_read_only(device.as_raw_fd(), &raw mut read_only) }?;
    Ok(match read_only {
        0 => Access::ReadWrite,
        _ => Access::ReadOnly,
    })
}

/// Lets the device refuse or accept write(2) (BLKROSET).
pub fn set_access(device: &File, access: Access) -> io::Result<()> {
    let read_only = libc::c_int::from(access == Access::ReadOnly);
    // SAFETY: the ioctl reads one int through a pointer to a live int.
    unsafe { ioctl::block_set_read_only(device.as_raw_fd(), &raw const read_only) }?;
    Ok(())
}

/// Writes back and drops the page cache of the device (BLKFLSBUF).
pub fn drop_page_cache(device: &File) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    unsafe { ioctl::block_flush_buffers(device.as_raw_fd()) }?;
    Ok(())
}

/// Bytes a device-mapper message may take, header included.
pub const DM_MESSAGE_BYTES_MAX: usize = 4096;

/// A device-mapper ioctl argument: header, then data.
#[repr(C, align(8))]
pub struct DmMessage {
    pub bytes: [u8; DM_MESSAGE_BYTES_MAX],
}

/// Runs device-mapper command `number` on the control device. The size the
/// kernel may use is always all of `message`, whatever its header said.
pub fn dm_ioctl(control: &File, number: u8, message: &mut DmMessage) -> io::Result<()> {
    const DM_IOCTL: u8 = 0xfd;
    const DM_HEADER_BYTES: usize = 312;
    const DATA_SIZE_OFFSET: usize = 12;
    let size = u32::try_from(DM_MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
    message.bytes[DATA_SIZE_OFFSET..DATA_SIZE_OFFSET + 4].copy_from_slice(&size.to_ne_bytes());
    let request = nix::request_code_readwrite!(DM_IOCTL, number, DM_HEADER_BYTES);
    // SAFETY: the kernel reads and writes at most `data_size` bytes, which the
    // line above set to the length of the exclusively borrowed, 8-aligned buffer.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, message.bytes.as_mut_ptr()) };
    check(result).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_the_same_for_every_reader() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn a_uuid_of_wrong_length_is_refused() {
        assert_eq!(parse_uuid("0011"), None);
        assert_eq!(
            parse_uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap()[15],
            0xff
        );
    }

    #[test]
    fn mounts_that_do_not_stand_on_ublk_are_kept() {
        let line = "24 1 0:22 / /proc rw,nosuid - proc proc rw";
        assert_eq!(mount_on_ublk(line), None);
    }

    #[test]
    fn blanks_in_mount_points_are_decoded() {
        assert_eq!(unescape("/mnt/a\\040b"), "/mnt/a b");
    }
}
