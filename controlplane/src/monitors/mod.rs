//! Monitors of a group: what looks whether a group that runs here works, each in a thread of its own. Nobody waits for
//! them; what their looks come to is decided in `controlplane_core::monitor`.
//!
//! What a look begins is ended with it: before a resource is stopped no look of the group is under way ([`Quiet`]).

mod error;
mod ip;
mod mirror;
mod nic;
mod script;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use controlplane_core::monitor::Policy;

pub use error::Ill;
pub use ip::Ip;
pub use mirror::Mirror;
pub use nic::Nic;
pub use script::Script;

use crate::resources::cage::Cage;
use crate::resources::{Context, Environment, Limit, Places, ResourceError, limit};

/// Between two looks of a thread whether it is wanted.
const WAIT: Duration = Duration::from_millis(100);
/// What a thread needs; this process holds its memory locked.
const STACK_BYTES: usize = 512 * 1024;
/// Where the kernel tells of interfaces.
const INTERFACES: &str = "/sys/class/net";

/// The kinds of monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program whose end says it.
    Script(Script),
    /// The carrier of an interface.
    Nic(Nic),
    /// Addresses that answer.
    Ip(Ip),
    /// Copies and links of the group's volumes.
    Mirror(Mirror),
}

impl Kind {
    /// As the configuration names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Script(_) => "script",
            Self::Nic(_) => "nic",
            Self::Ip(_) => "ip",
            Self::Mirror(_) => "mirror",
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// What is not well, or why nobody can say.
    pub fn look(&self, context: &Context) -> Result<(), Ill> {
        match self {
            Self::Script(script) => script.look(context),
            Self::Nic(nic) => nic.look(&PathBuf::from(INTERFACES)),
            Self::Ip(ip) => ip.look(&context.limit),
            Self::Mirror(mirror) => mirror.look(),
        }
    }
}

/// The name of a monitor where resources have theirs, in paths and cgroups: none of them can have it.
pub fn place_of(monitor: &str) -> String {
    format!("monitor@{monitor}")
}

/// One monitor's thread, as others see it.
#[derive(Debug)]
pub struct Guard {
    end: Arc<AtomicBool>,
    /// So many looks are under way: one at most, of this thread or of one before it that hangs.
    busy: Arc<AtomicUsize>,
    /// A script of an earlier run of this daemon may live.
    left: AtomicBool,
    /// Where its processes are, if it has some.
    cage: Option<Cage>,
}

impl Guard {
    /// Of a monitor that was not begun by this run.
    pub fn new(kind: &Kind, places: &Places) -> Arc<Self> {
        let has_processes = matches!(kind, Kind::Script(_));
        Arc::new(Self {
            end: Arc::default(),
            busy: Arc::default(),
            left: AtomicBool::new(true),
            cage: has_processes.then(|| Cage::of(places)),
        })
    }

    /// For the thread that looks next: whatever lives was dealt with, or [`Quiet::wait`] says so.
    fn anew(&self) -> Arc<Self> {
        Arc::new(Self {
            end: Arc::default(),
            busy: Arc::clone(&self.busy),
            left: AtomicBool::new(true),
            cage: self.cage.clone(),
        })
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    /// It looks no more; what is under way is broken off.
    pub fn end(&self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

/// No look is under way when this was waited for.
pub struct Quiet(Vec<Arc<Guard>>);

impl Quiet {
    /// Of these, which were all ended.
    pub fn of(guards: impl Iterator<Item = Arc<Guard>>) -> Self {
        Self(guards.filter(|guard| guard.cage.is_some()).collect())
    }

    /// Kills what looks began, and waits no longer than that: what survives is found by the stop that waits for it.
    pub fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        for guard in &self.0 {
            let Some(cage) = &guard.cage else { continue };
            loop {
                // In this order: who is not busy now sees that it shall end before it begins anything.
                let busy = guard.is_busy();
                let left = until.saturating_duration_since(Instant::now());
                if busy || guard.left.load(Ordering::SeqCst) {
                    let gone = cage.kill_within(left).is_ok();
                    guard.left.store(!gone, Ordering::SeqCst);
                }
                if !busy || left.is_zero() {
                    break;
                }
                thread::sleep(limit::LOOK);
            }
        }
    }
}

/// Where a look's end is told: how long it took, and how it ended.
pub type Tell = Box<dyn Fn(Duration, Result<(), Ill>) + Send>;

/// What a monitor's thread works with.
pub struct Watch {
    /// What is looked at.
    pub kind: Arc<Kind>,
    /// When.
    pub policy: Policy,
    /// Where its files are.
    pub places: Places,
    /// What a script is told.
    pub environment: Environment,
    /// Who listens. It may block: only this thread waits.
    pub tell: Tell,
}

/// Begins to look; `before` is the guard of the thread that looked before.
///
/// # Errors
/// If there is no thread for it.
pub fn begin(watch: Watch, before: &Arc<Guard>) -> io::Result<Arc<Guard>> {
    let guard = before.anew();
    let own = Arc::clone(&guard);
    thread::Builder::new()
        .name("monitor".to_string())
        .stack_size(STACK_BYTES)
        .spawn(move || watch.run(&own))?;
    Ok(guard)
}

impl Watch {
    fn run(self, guard: &Guard) {
        let ended = || guard.end.load(Ordering::SeqCst);
        let mut next = Instant::now() + self.policy.delay;
        loop {
            // Two looks at once would kill each other's processes; and what hangs has one thread.
            while Instant::now() < next || guard.is_busy() {
                if ended() {
                    return self.leave(guard);
                }
                let left = next.saturating_duration_since(Instant::now());
                thread::sleep(WAIT.min(left.max(limit::LOOK)));
            }
            let began = Instant::now();
            guard.busy.fetch_add(1, Ordering::SeqCst);
            let said = if ended() { Ok(()) } else { self.look(guard) };
            guard.busy.fetch_sub(1, Ordering::SeqCst);
            if ended() {
                return self.leave(guard);
            }
            (self.tell)(began.elapsed(), self.in_time(began.elapsed(), said));
            next = began + self.policy.interval;
        }
    }

    /// What cannot be broken off has failed all the same when it comes too late.
    fn in_time(&self, took: Duration, said: Result<(), Ill>) -> Result<(), Ill> {
        let after = self.policy.timeout;
        match said {
            Ok(()) if took > after => Err(Ill::Run(ResourceError::Late { after })),
            Ok(()) | Err(_) => said,
        }
    }

    fn look(&self, guard: &Guard) -> Result<(), Ill> {
        if let Some(cage) = &guard.cage
            && guard.left.load(Ordering::SeqCst)
        {
            cage.kill()?;
            guard.left.store(false, Ordering::SeqCst);
        }
        let context = Context {
            places: self.places.clone(),
            environment: self.environment.clone(),
            limit: Limit::new(self.policy.timeout, Arc::clone(&guard.end)),
            broke: Arc::new(|_| ()),
        };
        let said = self.kind.look(&context);
        if let Some(cage) = &guard.cage {
            let gone = cage.kill();
            guard.left.store(gone.is_err(), Ordering::SeqCst);
            gone?;
        }
        said
    }

    fn leave(&self, guard: &Guard) {
        if let Some(cage) = &guard.cage
            && cage.processes().is_empty()
        {
            cage.remove();
        }
    }
}
