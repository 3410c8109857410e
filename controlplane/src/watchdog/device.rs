//! A watchdog device of the kernel (`/dev/watchdog`): opening it starts it, and only the right words stop it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::sys;

/// What is known of a device that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// After so many seconds without a sign it resets the machine; 0 if it does not say.
    pub timeout_s: u32,
    /// Whether closing it without a word leaves it armed, so that the end of this process disarms nothing.
    pub stays_armed: bool,
}

/// What the thread that pets it does with a device. None of these allocates or waits for a disk.
pub trait Device: Send {
    /// Starts it, or takes over one that runs, and sets its timeout.
    ///
    /// # Errors
    /// It does not exist, somebody else has it, or it refuses.
    fn open(&mut self, timeout_s: u32) -> Result<Opened, Errno>;

    /// A sign of life.
    ///
    /// # Errors
    /// The device's.
    fn pet(&mut self) -> Result<(), Errno>;

    /// Stops it and closes it. After an error it is open and runs.
    ///
    /// # Errors
    /// [`Errno::EBUSY`]: it cannot be stopped (`nowayout`).
    fn disarm(&mut self) -> Result<(), Errno>;
}

/// The kernel's.
#[derive(Debug)]
pub struct Kernel {
    path: CString,
    file: Option<OwnedFd>,
}

/// `WDIOF_MAGICCLOSE`.
const MAGIC_CLOSE: u32 = 0x0100;
impl Kernel {
    /// Of this path, which is not looked at yet; `None` if it has a NUL in it.
    pub fn new(path: &Path) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        Some(Self { path, file: None })
    }

    fn open_file(&self) -> Result<&OwnedFd, Errno> {
        self.file.as_ref().ok_or(Errno::EBADF)
    }
}

impl Device for Kernel {
    fn open(&mut self, timeout_s: u32) -> Result<Opened, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = open(self.path.as_c_str(), flags, Mode::empty())?;
        // What is no watchdog was not started by opening it.
        let options = sys::watchdog_options(file.as_fd())?;
        let set = sys::set_watchdog_timeout(file.as_fd(), timeout_s);
        let timeout_s = set.or_else(|_| sys::watchdog_timeout(file.as_fd()));
        self.file = Some(file);
        Ok(Opened {
            timeout_s: timeout_s.unwrap_or(0),
            stays_armed: options & MAGIC_CLOSE != 0,
        })
    }

    fn pet(&mut self) -> Result<(), Errno> {
        sys::pet_watchdog(self.open_file()?.as_fd())
    }

    fn disarm(&mut self) -> Result<(), Errno> {
        let file = self.open_file()?;
        may_close(sys::stop_watchdog(file.as_fd()), || write(file, b"V"))?;
        self.file = None;
        Ok(())
    }
}

/// Whether a device may be closed after it was told to stop, and was told it again in the way of older drivers.
fn may_close(
    stopped: Result<(), Errno>,
    say: impl FnOnce() -> Result<usize, Errno>,
) -> Result<(), Errno> {
    match stopped {
        Ok(()) => {
            // It runs no more, whatever it thinks of the other word.
            let _ = say();
            Ok(())
        }
        // A driver of its own may not know this word, and know the other one.
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL) => say().map(drop),
        // Closed, it would run out; and the word, said now, would be obeyed whenever this process ends.
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_stopped_is_closed_and_one_that_did_not_is_not() {
        let refused = || Err(Errno::EIO);
        assert_eq!(may_close(Ok(()), refused), Ok(()));
        assert_eq!(may_close(Err(Errno::ENOTTY), || Ok(1)), Ok(()));
        assert_eq!(may_close(Err(Errno::ENOTTY), refused), Err(Errno::EIO));
        assert_eq!(may_close(Err(Errno::EBUSY), || Ok(1)), Err(Errno::EBUSY));
    }

    /// Whatever ends this process closes the device, and says nothing: the word that stops it is said by `disarm` alone.
    #[test]
    fn a_device_that_is_dropped_hears_no_word() {
        let device = || {
            let (own, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let path = Path::new("/dev/watchdog");
            let mut kernel = Kernel::new(path).expect("a path");
            kernel.file = Some(own.into());
            (kernel, other)
        };
        let heard = |mut other: std::os::unix::net::UnixStream| {
            let mut words = Vec::new();
            std::io::Read::read_to_end(&mut other, &mut words).expect("its end");
            words
        };
        let (kernel, other) = device();
        drop(kernel);
        assert_eq!(heard(other), b"");
        let (kernel, other) = device();
        let panics = std::thread::spawn(move || {
            let _device = kernel;
            panic!("in the thread that pets it");
        });
        assert!(panics.join().is_err());
        assert_eq!(heard(other), b"");
        let (mut kernel, other) = device();
        kernel.disarm().expect("it takes the older word");
        assert_eq!(heard(other), b"V");
        assert_eq!(kernel.pet(), Err(Errno::EBADF), "it is closed");
    }

    #[test]
    fn what_is_no_watchdog_is_refused_and_not_held() {
        let mut none = Kernel::new(Path::new("/nonexistent/watchdog")).expect("a path");
        assert_eq!(none.open(10), Err(Errno::ENOENT));
        let mut null = Kernel::new(Path::new("/dev/null")).expect("a path");
        assert_eq!(null.open(10), Err(Errno::ENOTTY));
        assert_eq!(null.pet(), Err(Errno::EBADF));
        assert!(Kernel::new(Path::new("/a\0b")).is_none());
    }
}
