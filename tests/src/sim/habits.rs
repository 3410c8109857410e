//! What is out of the ordinary in a run.

/// How application, disks and clocks differ from those of other runs. Pairs are by node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Slots of the application that only read, all the time.
    pub readers: usize,
    /// The application hardly ever flushes.
    pub few_flushes: bool,
    /// The application flushes after nearly every write, as databases do.
    pub commits: bool,
    /// The application writes in many places.
    pub many_spots: bool,
    /// Most flushes take very long.
    pub slow_flushes: [bool; 2],
    /// Some of the application's writes take so long, milliseconds.
    pub slow_writes_ms: [u64; 2],
    /// Some of the peer's writes take so long, milliseconds.
    pub slow_peer_writes_ms: u64,
    /// Many answers to keepalives take long.
    pub slow_pongs: bool,
    /// The application asks for much.
    pub busy: bool,
    /// Some writes of metadata take long.
    pub slow_metadata: bool,
    /// The clocks differ as much as they may.
    pub far_clocks: bool,
    /// After a power cut a machine may have an older disk.
    pub old_disks: bool,
    /// The kernel takes up to so long to hand over what a killed daemon had in its hands, milliseconds; 0: hardly any
    /// time.
    pub late_hands_ms: u64,
}
