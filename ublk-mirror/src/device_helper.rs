//! The helper process: issues ublk control commands so that the daemon need not
//! wait inside one, and cleans up when the daemon is gone.
//!
//! The binary layout comes from libublk. Its control *methods* are not used: in
//! 0.4.8 START and END_RECOVERY announce the calling process as the daemon, a
//! busy device is reported as success, and dropping a handle whose ADD failed
//! deletes the device of somebody else.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use libublk::sys;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::device::{
    Answer, Control, DeviceInfo, DeviceKind, DeviceParams, DeviceState, Envelope, HelperFailure,
    LINE_BYTES_MAX, Outcome, Request, retract_name,
};
use crate::sys::enter_private_mount_namespace;

const CONTROL_PATH: &str = "/dev/ublk-control";
/// Requests served at the same time: a START may wait long while a STOP must pass.
const REQUESTS_MAX: usize = 16;
const RECOVERY_RETRY: Duration = Duration::from_millis(10);
/// The driver wants all ones where a command concerns no single queue.
const NO_QUEUE: u16 = u16::MAX;
const NO_DEVICE: u32 = u32::MAX;
const SECTOR_SHIFT: u32 = 9;

/// What remains to be done when the daemon dies.
#[derive(Debug, Default)]
struct Duties {
    /// Devices that were added and not yet shown to anybody, or are being stopped.
    unusable: Vec<u32>,
    /// Devices that must not outlive the daemon, with their names.
    delete_on_exit: Vec<(u32, String)>,
}

#[derive(Clone)]
struct Helper {
    control: Arc<OwnedFd>,
    answers: Arc<Mutex<UnixStream>>,
    duties: Arc<Mutex<Duties>>,
    running: Arc<AtomicUsize>,
}

/// Serves requests from the socket on standard input until the daemon is gone.
pub fn run() -> io::Result<()> {
    // A signal for the whole service must not take the helper before the daemon.
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler function.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // The daemon has told them.
    drop(enter_private_mount_namespace()?);
    let socket = UnixStream::from(nix::unistd::dup(io::stdin())?);
    let control = open_control();
    let mut lines = BufReader::with_capacity(LINE_BYTES_MAX, socket.try_clone()?);
    let answers = Arc::new(Mutex::new(socket));
    let control = match control {
        Ok(control) => Arc::new(control),
        Err(failure) => {
            refuse_all(&mut lines, &answers, &failure);
            return Ok(());
        }
    };
    let helper = Helper {
        control,
        answers,
        duties: Arc::default(),
        running: Arc::default(),
    };
    let mut line = String::new();
    // A reset connection is a daemon that died with an answer unread.
    while matches!(lines.read_line(&mut line), Ok(1..)) {
        helper.take(&line);
        line.clear();
    }
    helper.daemon_is_gone();
    Ok(())
}

/// What the ublk driver can do, of what is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A daemon that died can be replaced under a device in use.
    pub recovery: bool,
    /// A device in use can grow.
    pub resize: bool,
}

/// Asks the driver. Nothing is made or changed; needs the right to open the control device.
///
/// # Errors
/// There is no driver, it may not be asked, or it is older than the question (Linux 6.5).
pub fn features() -> Result<Features, HelperFailure> {
    let features = features_of(&open_control()?)?;
    let recovery = flags_of(DeviceKind::Active);
    Ok(Features {
        recovery: features & recovery == recovery,
        resize: features & u64::from(sys::UBLK_F_UPDATE_SIZE) != 0,
    })
}

fn features_of(control: &OwnedFd) -> Result<u64, HelperFailure> {
    let mut features = 0_u64;
    let argument = Argument::InOut(&mut features);
    command(control, Control::GetFeatures, (NO_DEVICE, 0), argument)?;
    Ok(features)
}

fn open_control() -> Result<OwnedFd, HelperFailure> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(CONTROL_PATH)
        .map(OwnedFd::from)
        .map_err(|error| HelperFailure::NoUblk {
            errno: errno_of(&error),
        })
}

/// Without the driver every request gets the reason as its answer.
fn refuse_all(lines: &mut impl BufRead, answers: &Mutex<UnixStream>, failure: &HelperFailure) {
    let mut line = String::new();
    while matches!(lines.read_line(&mut line), Ok(1..)) {
        if let Ok(request) = serde_json::from_str::<Envelope<Request>>(&line) {
            send(answers, request.token, Err(failure.clone()));
        }
        line.clear();
    }
}

fn send(answers: &Mutex<UnixStream>, token: crate::device::Token, body: Outcome) {
    let Ok(mut line) = serde_json::to_vec(&Envelope { token, body }) else {
        return;
    };
    line.push(b'\n');
    let mut socket = answers.lock().unwrap_or_else(PoisonError::into_inner);
    // A daemon that is gone needs no answer; end of file is seen by the reader.
    drop(socket.write_all(&line));
}

impl Helper {
    fn take(&self, line: &str) {
        let Ok(Envelope { token, body }) = serde_json::from_str::<Envelope<Request>>(line) else {
            tracing::error!(line, "unreadable request");
            return;
        };
        // At once: a Delete that comes later must find this duty to strike it out. Left over, it
        // would delete the device of the id's next owner.
        // A Resize too: a STOP that overtook it would leave the driver without the disk that it resizes.
        if let Request::DeleteOnExit { .. } | Request::Resize { .. } = body {
            send(&self.answers, token, self.serve(&body));
            return;
        }
        if self.running.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let limit = REQUESTS_MAX;
            send(&self.answers, token, Err(HelperFailure::TooMany { limit }));
            return;
        }
        let helper = self.clone();
        thread::spawn(move || {
            let outcome = helper.serve(&body);
            helper.running.fetch_sub(1, Ordering::Relaxed);
            send(&helper.answers, token, outcome);
        });
    }

    fn serve(&self, request: &Request) -> Outcome {
        match *request {
            Request::Add(ref params) => self.add(params),
            Request::Start { dev_id, daemon_pid } => {
                let pid = pid_argument(daemon_pid);
                self.plain(Control::StartDevice, dev_id, pid)?;
                self.duties().unusable.retain(|known| *known != dev_id);
                Ok(Answer::Done)
            }
            Request::Stop { dev_id } => {
                self.duties().unusable.push(dev_id);
                self.plain(Control::StopDevice, dev_id, 0)
            }
            Request::Delete { dev_id } => self.delete(dev_id),
            Request::Info { dev_id } => self.info(dev_id).map(Answer::Info),
            Request::StartRecovery { dev_id, timeout_ms } => {
                self.start_recovery(dev_id, timeout_ms)
            }
            Request::EndRecovery { dev_id, daemon_pid } => {
                self.plain(Control::EndRecovery, dev_id, pid_argument(daemon_pid))
            }
            Request::Resize {
                dev_id,
                size_sectors,
            } => self.resize(dev_id, size_sectors),
            Request::DeleteOnExit { dev_id, ref name } => {
                self.duties().delete_on_exit.push((dev_id, name.clone()));
                Ok(Answer::Done)
            }
        }
    }

    fn duties(&self) -> std::sync::MutexGuard<'_, Duties> {
        self.duties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, params: &DeviceParams) -> Outcome {
        let parameters = kernel_params(params)?;
        let wanted = flags_of(params.kind);
        let mut info = sys::ublksrv_ctrl_dev_info {
            nr_hw_queues: 1,
            queue_depth: params.queue_depth,
            max_io_buf_bytes: params.max_io_bytes,
            dev_id: NO_DEVICE,
            flags: wanted,
            ublksrv_flags: params.owner_tag,
            ..Default::default()
        };
        self.command(Control::AddDevice, NO_DEVICE, 0, Argument::InOut(&mut info))?;
        let dev_id = info.dev_id;
        self.duties().unusable.push(dev_id);
        let granted = info.flags & wanted;
        let result = if granted == wanted {
            let argument = Argument::In(&parameters);
            self.command(Control::SetParams, dev_id, 0, argument)
        } else {
            Err(HelperFailure::FlagsMasked { wanted, granted })
        };
        match result {
            Ok(()) => Ok(Answer::Added { dev_id }),
            Err(failure) => {
                drop(self.delete(dev_id));
                Err(failure)
            }
        }
    }

    fn delete(&self, dev_id: u32) -> Outcome {
        self.plain(Control::DeleteDevice, dev_id, 0)?;
        let mut duties = self.duties();
        duties.unusable.retain(|known| *known != dev_id);
        duties.delete_on_exit.retain(|(known, _)| *known != dev_id);
        Ok(Answer::Done)
    }

    fn info(&self, dev_id: u32) -> Result<DeviceInfo, HelperFailure> {
        let mut info = sys::ublksrv_ctrl_dev_info::default();
        self.command(Control::GetInfo, dev_id, 0, Argument::InOut(&mut info))?;
        let recoverable = flags_of(DeviceKind::Active);
        Ok(DeviceInfo {
            dev_id: info.dev_id,
            state: match u32::from(info.state) {
                sys::UBLK_S_DEV_DEAD => DeviceState::Dead,
                sys::UBLK_S_DEV_LIVE => DeviceState::Live,
                sys::UBLK_S_DEV_QUIESCED => DeviceState::Quiesced,
                _ => DeviceState::Other(info.state),
            },
            kind: if info.flags & recoverable == recoverable {
                DeviceKind::Active
            } else {
                DeviceKind::Fenced
            },
            queue_depth: info.queue_depth,
            max_io_bytes: info.max_io_buf_bytes,
            daemon_pid: info.ublksrv_pid,
            owner_tag: info.ublksrv_flags,
        })
    }

    fn start_recovery(&self, dev_id: u32, timeout_ms: u64) -> Outcome {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            match self.plain(Control::StartRecovery, dev_id, 0) {
                // The dead daemon's last disk writes are still in flight.
                Err(HelperFailure::Command {
                    errno: libc::EBUSY, ..
                }) if Instant::now() < deadline => thread::sleep(RECOVERY_RETRY),
                Err(HelperFailure::Command {
                    errno: libc::EBUSY, ..
                }) => return Err(HelperFailure::StillBusy { dev_id, timeout_ms }),
                outcome => return outcome,
            }
        }
    }

    fn resize(&self, dev_id: u32, size_sectors: u64) -> Outcome {
        let features = features_of(&self.control)?;
        if features & u64::from(sys::UBLK_F_UPDATE_SIZE) == 0 {
            return Err(HelperFailure::NoResize);
        }
        self.plain(Control::UpdateSize, dev_id, size_sectors)
    }

    /// An active device stays for the next daemon. A fenced one would lead to
    /// nothing, and one that is not or no longer started can never be recovered.
    fn daemon_is_gone(&self) {
        let duties = std::mem::take(&mut *self.duties());
        for (dev_id, name) in &duties.delete_on_exit {
            drop(retract_name(name, *dev_id));
            let outcome = self.delete(*dev_id);
            tracing::info!(dev_id, name, ?outcome, "deleted after the daemon's exit");
        }
        for dev_id in duties.unusable {
            drop(self.delete(dev_id));
        }
    }

    fn plain(&self, command: Control, dev_id: u32, data: u64) -> Outcome {
        self.command::<()>(command, dev_id, data, Argument::None)?;
        Ok(Answer::Done)
    }

    fn command<T: ublk::Plain>(
        &self,
        what: Control,
        dev_id: u32,
        data: u64,
        argument: Argument<'_, T>,
    ) -> Result<(), HelperFailure> {
        command(&self.control, what, (dev_id, data), argument)
    }
}

/// Runs one command to its end, on a ring of its own.
fn command<T: ublk::Plain>(
    control: &OwnedFd,
    command: Control,
    (dev_id, data): (u32, u64),
    argument: Argument<'_, T>,
) -> Result<(), HelperFailure> {
    let (addr, len) = argument.address();
    let header = sys::ublksrv_ctrl_cmd {
        dev_id,
        queue_id: NO_QUEUE,
        len,
        addr,
        data: [data],
        ..Default::default()
    };
    let result = execute(control, opcode_of(command), &header)
        .map_err(|error| -errno_of(&error))
        .unwrap_or_else(|errno| errno);
    if result < 0 {
        return Err(HelperFailure::Command {
            command,
            dev_id,
            errno: -result,
        });
    }
    Ok(())
}

/// What a command reads or fills in.
enum Argument<'a, T: ublk::Plain> {
    None,
    In(&'a T),
    InOut(&'a mut T),
}

impl<T: ublk::Plain> Argument<'_, T> {
    fn address(self) -> (u64, u16) {
        let pointer = match self {
            Argument::None => return (0, 0),
            Argument::In(value) => std::ptr::from_ref::<T>(value),
            Argument::InOut(value) => std::ptr::from_mut::<T>(value).cast_const(),
        };
        (pointer as u64, T::BYTES)
    }
}

mod ublk {
    //! Types whose address may be given to the driver.
    use libublk::sys;

    pub(super) trait Plain {
        const BYTES: u16;
    }

    impl Plain for () {
        const BYTES: u16 = 0;
    }

    /// The driver's features.
    impl Plain for u64 {
        const BYTES: u16 = 8;
    }

    impl Plain for sys::ublksrv_ctrl_dev_info {
        const BYTES: u16 = 64;
    }

    /// Size of the parameters a kernel 6.12 knows; later fields are not used.
    impl Plain for sys::ublk_params {
        const BYTES: u16 = 112;
    }

    const _: () = assert!(size_of::<sys::ublksrv_ctrl_dev_info>() == 64);
    // Newer kernel headers append fields; what a command reads must be ours.
    const _: () = assert!(size_of::<sys::ublk_params>() >= 112);
}

fn execute(control: &OwnedFd, opcode: u32, header: &sys::ublksrv_ctrl_cmd) -> io::Result<i32> {
    const HEADER_BYTES: usize = size_of::<sys::ublksrv_ctrl_cmd>();
    // SAFETY: the header is a C struct of integers without padding: any view of
    // its bytes is initialised, and it outlives the copy made here.
    let bytes = unsafe { &*std::ptr::from_ref(header).cast::<[u8; HEADER_BYTES]>() };
    let mut payload = [0; 80];
    payload[..HEADER_BYTES].copy_from_slice(bytes);
    let mut ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder().build(2)?;
    let entry = opcode::UringCmd80::new(types::Fd(control.as_raw_fd()), opcode)
        .cmd(payload)
        .build();
    // SAFETY: the memory the command refers to is borrowed by our caller, and this
    // function does not return before the completion (or the ring could not run it).
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(completion) = ring.completion().next() {
            return Ok(completion.result());
        }
    }
}

fn opcode_of(command: Control) -> u32 {
    match command {
        Control::AddDevice => sys::UBLK_U_CMD_ADD_DEV,
        Control::SetParams => sys::UBLK_U_CMD_SET_PARAMS,
        Control::StartDevice => sys::UBLK_U_CMD_START_DEV,
        Control::StopDevice => sys::UBLK_U_CMD_STOP_DEV,
        // The other one waits until the last opener of the disk is gone.
        Control::DeleteDevice => sys::UBLK_U_CMD_DEL_DEV_ASYNC,
        Control::GetInfo => sys::UBLK_U_CMD_GET_DEV_INFO,
        Control::StartRecovery => sys::UBLK_U_CMD_START_USER_RECOVERY,
        Control::EndRecovery => sys::UBLK_U_CMD_END_USER_RECOVERY,
        Control::GetFeatures => sys::UBLK_U_CMD_GET_FEATURES,
        Control::UpdateSize => sys::UBLK_U_CMD_UPDATE_SIZE,
    }
}

fn flags_of(kind: DeviceKind) -> u64 {
    u64::from(match kind {
        // RECOVERY alone would fail the requests in flight.
        DeviceKind::Active => sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE,
        DeviceKind::Fenced | DeviceKind::Isolated => 0,
    })
}

fn kernel_params(params: &DeviceParams) -> Result<sys::ublk_params, HelperFailure> {
    let max_io_sectors = params.max_io_bytes >> SECTOR_SHIFT;
    let logical = shift_of(params.logical_block_bytes)?;
    let physical = shift_of(params.physical_block_bytes)?.max(logical);
    let mut attrs = sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA;
    if params.kind != DeviceKind::Active {
        attrs |= sys::UBLK_ATTR_READ_ONLY;
    }
    let mut kernel = sys::ublk_params {
        len: u32::from(<sys::ublk_params as ublk::Plain>::BYTES),
        types: sys::UBLK_PARAM_TYPE_BASIC,
        ..Default::default()
    };
    kernel.basic = sys::ublk_param_basic {
        attrs,
        logical_bs_shift: logical,
        physical_bs_shift: physical,
        io_opt_shift: physical,
        io_min_shift: physical,
        max_sectors: max_io_sectors,
        chunk_sectors: params.chunk_sectors,
        dev_sectors: params.size_sectors,
        virt_boundary_mask: 0,
    };
    if let Some(discard) = params.discard {
        kernel.types |= sys::UBLK_PARAM_TYPE_DISCARD;
        kernel.discard = sys::ublk_param_discard {
            discard_alignment: 0,
            discard_granularity: discard.granularity_bytes,
            max_discard_sectors: discard.max_sectors,
            max_write_zeroes_sectors: discard.max_sectors,
            max_discard_segments: 1,
            reserved0: 0,
        };
    }
    Ok(kernel)
}

fn shift_of(bytes: u32) -> Result<u8, HelperFailure> {
    if !bytes.is_power_of_two() || bytes < 1 << SECTOR_SHIFT {
        return Err(HelperFailure::BlockSize { bytes });
    }
    u8::try_from(bytes.trailing_zeros()).map_err(|_| HelperFailure::BlockSize { bytes })
}

/// A negative process id is a bug of the daemon; the driver refuses 0.
fn pid_argument(pid: i32) -> u64 {
    u64::try_from(pid).unwrap_or(0)
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
