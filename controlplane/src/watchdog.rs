//! Pets the watchdog device while something of a group is here, from a thread of its own.
//!
//! The thread has real-time priority and does no disk I/O, takes no lock, writes no log and allocates nothing. It knows
//! one number: until when it may pet. The loop that decides writes it ([`controlplane_core::self_fencing::pet_until`]);
//! a loop that is stuck, a hard stop that hangs and services whose time is over leave it as it is, and it passes.
//!
//! **The end of this process disarms nothing**, however it ends: services may run that are left to be adopted. The next run
//! has the device's timeout to begin, and nothing is petted then that should not be. But the kernel takes that end for a sign of
//! life (it pets a device that is closed without the word that stops it): a takeover waits for two timeouts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mirror_core::types::Instant;
use nix::errno::Errno;

use crate::arbiter::boottime_nanos;
use crate::sys;

pub mod device;

use device::Device;

/// Above the thread of the heartbeats: it is the last one that may be late.
const PRIORITY: i32 = 21;
/// Between two signs at most; a quarter of the timeout if that is shorter.
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// A device that could not be opened is tried again after this time; after an eighth of the timeout if that is shorter: an
/// earlier run may have left it armed.
const OPEN_RETRY: Duration = Duration::from_secs(5);

/// How the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not needed, and not open.
    Disarmed,
    /// It runs, and is petted as long as that is allowed.
    Armed,
    /// It runs, is not needed, and cannot be stopped (`nowayout`): it is petted without condition.
    Bound,
    /// It is needed, and cannot be opened.
    Unusable,
}

impl State {
    const ALL: [Self; 4] = [Self::Disarmed, Self::Armed, Self::Bound, Self::Unusable];

    fn number(self) -> u8 {
        match self {
            Self::Disarmed => 0,
            Self::Armed => 1,
            Self::Bound => 2,
            Self::Unusable => 3,
        }
    }
}

/// What the thread tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How the device is.
    pub state: State,
    /// What it said last, if that was an error.
    pub errno: Option<Errno>,
    /// Its timeout in seconds, once it was opened; 0 if it is not known.
    pub timeout_s: u32,
    /// Whether the end of this process leaves it armed.
    pub stays_armed: bool,
    /// Whether an earlier run may have armed it, and this one has not opened it yet.
    pub inherited: bool,
}

/// The thread's side: what it does with the device at one moment.
#[derive(Debug)]
pub struct Hand<D> {
    device: D,
    timeout_s: u32,
    retry_at: Instant,
    told: Told,
}

impl<D: Device> Hand<D> {
    /// Of a device that is not open.
    pub fn new(device: D, timeout_s: u32) -> Self {
        Self {
            device,
            timeout_s,
            retry_at: Instant::default(),
            told: Told {
                state: State::Disarmed,
                errno: None,
                timeout_s: 0,
                stays_armed: true,
                inherited: false,
            },
        }
    }

    /// Of a device that an earlier run may have armed.
    #[must_use]
    pub fn inheriting(mut self, inherited: bool) -> Self {
        self.told.inherited = inherited;
        self
    }

    /// How it is.
    pub fn told(&self) -> Told {
        self.told
    }

    /// What it was given.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// One turn. `pet_until`: until when it may be petted; `None`: nothing is here that it is for.
    pub fn turn(&mut self, now: Instant, pet_until: Option<Instant>) {
        let may = pet_until.is_some_and(|until| now < until);
        match (self.told.state, pet_until) {
            // Nothing is left: one more sign of life harms nothing.
            (State::Disarmed | State::Unusable, None) if self.told.inherited => {
                if now >= self.retry_at {
                    self.open(now);
                }
                if self.told.state == State::Armed {
                    self.disarm();
                }
            }
            (State::Disarmed, None) => {}
            (State::Unusable, None) => (self.told.state, self.told.errno) = (State::Disarmed, None),
            // Opening it, too, is a sign of life.
            (State::Disarmed | State::Unusable, Some(_)) if may && now >= self.retry_at => {
                self.open(now);
            }
            (State::Disarmed | State::Unusable, Some(_)) => {}
            (State::Armed, None) => self.disarm(),
            (State::Bound, None) => self.pet(),
            (State::Armed | State::Bound, Some(_)) => {
                self.told.state = State::Armed;
                if may {
                    self.pet();
                }
            }
        }
    }

    fn open(&mut self, now: Instant) {
        match self.device.open(self.timeout_s) {
            Ok(opened) => {
                self.told = Told {
                    state: State::Armed,
                    errno: None,
                    timeout_s: opened.timeout_s,
                    stays_armed: opened.stays_armed,
                    inherited: false,
                };
                self.pet();
            }
            Err(errno) => {
                let timeout = Duration::from_secs(u64::from(self.timeout_s));
                self.retry_at = now + OPEN_RETRY.min(timeout / 8);
                (self.told.state, self.told.errno) = (State::Unusable, Some(errno));
            }
        }
    }

    fn pet(&mut self) {
        self.told.errno = self.device.pet().err();
    }

    fn disarm(&mut self) {
        match self.device.disarm() {
            Ok(()) => (self.told.state, self.told.errno) = (State::Disarmed, None),
            Err(errno) => {
                (self.told.state, self.told.errno) = (State::Bound, Some(errno));
                // What it said is kept: it is why.
                let _ = self.device.pet();
            }
        }
    }
}

/// Nobody has ordered anything yet.
const NO_ORDER: u64 = u64::MAX;

/// Between the loop that decides and the thread.
#[derive(Debug, Default)]
struct Shared {
    /// Nanoseconds since boot; 0: not needed; or [`NO_ORDER`].
    pet_until_nanos: AtomicU64,
    state: AtomicU8,
    errno: AtomicI32,
    timeout_s: AtomicU32,
    loses_arm: AtomicBool,
    inherited: AtomicBool,
    ends: AtomicBool,
}

/// A running thread.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Whether it has real-time priority; without, load can delay it.
    pub is_real_time: bool,
}

impl Watchdog {
    /// Starts the thread. Nothing is opened before something is ordered. `inherited`: an earlier run may have armed it; it is
    /// disarmed then also if it is never needed in this one.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        device: impl Device + 'static,
        timeout: Duration,
        inherited: bool,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pet_until_nanos: AtomicU64::new(NO_ORDER),
            inherited: AtomicBool::new(inherited),
            ..Shared::default()
        });
        let timeout_s = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let (told, asked) = sync_channel(1);
        let mut hand = Hand::new(device, timeout_s).inheriting(inherited);
        let own = Arc::clone(&shared);
        let interval = INTERVAL_MAX.min(timeout / 4);
        let thread = thread::Builder::new()
            .name("watchdog".to_string())
            .spawn(move || {
                let _ = told.try_send(sys::become_real_time(PRIORITY));
                while !own.ends.load(Ordering::Relaxed) {
                    let until = own.pet_until_nanos.load(Ordering::Relaxed);
                    if until != NO_ORDER {
                        let until = (until > 0).then(|| Instant::from_nanos(until));
                        hand.turn(Instant::from_nanos(boottime_nanos()), until);
                        own.tell(hand.told());
                    }
                    thread::park_timeout(interval);
                }
            })?;
        Ok(Self {
            shared,
            thread,
            is_real_time: asked.recv().unwrap_or(false),
        })
    }

    /// Until when it may be petted; `None`: it is not needed.
    pub fn order(&self, pet_until: Option<Instant>) {
        let nanos = pet_until.map_or(0, |until| until.as_nanos().clamp(1, NO_ORDER - 1));
        let before = self.shared.pet_until_nanos.swap(nanos, Ordering::Relaxed);
        if (before == 0) != (nanos == 0) || before == NO_ORDER {
            self.thread.thread().unpark();
        }
    }

    /// How the device is.
    pub fn told(&self) -> Told {
        let number = self.shared.state.load(Ordering::Acquire);
        let state = State::ALL
            .into_iter()
            .find(|state| state.number() == number);
        let errno = self.shared.errno.load(Ordering::Relaxed);
        Told {
            state: state.unwrap_or(State::Disarmed),
            errno: (errno != 0).then(|| Errno::from_raw(errno)),
            timeout_s: self.shared.timeout_s.load(Ordering::Relaxed),
            stays_armed: !self.shared.loses_arm.load(Ordering::Relaxed),
            inherited: self.shared.inherited.load(Ordering::Relaxed),
        }
    }

    /// Ends the thread and leaves the device as it is: for tests.
    pub fn abandon(self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // It panics nowhere.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn tell(&self, told: Told) {
        let errno = told.errno.map_or(0, |errno| errno as i32);
        self.errno.store(errno, Ordering::Relaxed);
        self.timeout_s.store(told.timeout_s, Ordering::Relaxed);
        self.loses_arm.store(!told.stays_armed, Ordering::Relaxed);
        self.inherited.store(told.inherited, Ordering::Relaxed);
        self.state.store(told.state.number(), Ordering::Release);
    }
}
