//! Deliberately wrong variants of the rules, for the simulator alone: each has to be caught.
//!
//! The product is built without the feature `mutants`: [`is`] is a constant there and leaves nothing
//! behind. With it, a thread can be told to be wrong in one way.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident: $name:literal, $rule:literal;)*) => {
        /// One way to be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])* $variant,)*
        }

        impl Mutant {
            /// All of them: name, mutant, the rules of which a failure has to name one.
            pub const ALL: &[(&'static str, Self, &'static str)] =
                &[$(($name, Self::$variant, $rule),)*];
        }
    };
}

mutants! {
    /// A write is acknowledged before the peer has it.
    AckBeforePeer: "ack-before-peer", "S1";
    /// A flush is acknowledged when the own disk is done.
    FlushLocalOnly: "flush-local-only", "S1";
    /// A flush is answered at once, whatever is loose.
    FlushSkipped: "flush-skipped", "S1";
    /// A flush covers what ended after it had begun.
    FlushCoversLater: "flush-covers-later", "S1";
    /// A write that a flush will follow is durable on the own disk alone.
    DurableHereAlone: "durable-here-alone", "S1";
    /// A durable write that ends well on a disk that failed meanwhile is one.
    FuaProves: "fua-proves", "S1 S11 I2 I3";
    /// Without the peer, whose copy counts, writes go on.
    NoFreeze: "no-freeze", "S1 S2";
    /// Alone before the narrower view is durable.
    AloneBeforeDurable: "alone-before-durable", "S1 S2";
    /// The active node goes alone without a flush.
    AloneWithoutFlush: "alone-without-flush", "S2";
    /// A standby takes over without a flush.
    TakeoverWithoutFlush: "takeover-without-flush", "S2";
    /// A narrower view is agreed on without a flush.
    SettleWithoutFlush: "settle-without-flush", "S2 S7 I4";
    /// A peer that leaves is dropped without a flush.
    DropWithoutFlush: "drop-without-flush", "S2";
    /// A peer's failed disk is forgotten when the peer says that it is well.
    PeerFailureForgotten: "peer-failure-forgotten", "S1 S7 I4";
    /// That the peer's disk failed is written down only once it has agreed to be filled anew.
    PeerFailureLate: "peer-failure-late", "S1 S7 I4";
    /// What a failed disk reads back counts for what is on it.
    FailedDiskCompared: "failed-disk-compared", "S1 S7 I2 I3 I4";
    /// The resync rests for as long as the application works.
    PaceStarves: "pace-starves", "I9";
    /// What both copies had when the peer was lost is acknowledged while the service is frozen.
    AckWhileFrozen: "ack-while-frozen", "S2";
    /// A lost activity log is written again before the bitmap on disk says that everything may differ.
    LostLogNotSwept: "lost-log-not-swept", "S7";
    /// A flush that began for an earlier change counts for this one.
    StaleFlushCounts: "stale-flush-counts", "S2 S7";
    /// Writes begin while the view changes.
    HoldIgnored: "hold-ignored", "S2";
    /// A copy that does not count takes over.
    TakeoverByStranger: "takeover-by-stranger", "S3";
    /// A copy that does not count is activated.
    TargetPromotable: "target-promotable", "S3 S9";
    /// Activated without the peer's consent.
    ActivateAlone: "activate-alone", "S3 S4";
    /// A takeover without a seal.
    TakeoverWithoutSeal: "takeover-without-seal", "S4";
    /// A takeover while the old active node's writes are still running here.
    TakeoverWithoutDrain: "takeover-without-drain", "S4";
    /// A session is agreed on while an older one's writes are still running here.
    StateWithoutDrain: "state-without-drain", "S4";
    /// While a wider view is on its way to the disk, the narrower one counts.
    WideningNotStrict: "widening-not-strict", "S1 S4";
    /// Reads do not need a lease.
    LeaseIgnored: "lease-ignored", "S5";
    /// The lease counts from the answer.
    LeaseFromAnswer: "lease-from-answer", "S5";
    /// A takeover does not wait for the lease.
    LeaseNotAwaited: "lease-not-awaited", "S5";
    /// Clocks are believed to run alike.
    LeaseWithoutMargin: "lease-without-margin", "S5";
    /// A daemon that starts believes that it has granted nothing.
    GrantsForgotten: "grants-forgotten", "S5";
    /// After a widening the reads of the source go on without a lease.
    WidenKeepsLease: "widen-keeps-lease", "S5";
    /// A freshly active node reads without a lease.
    ActiveWithoutLease: "active-without-lease", "S5";
    /// A run that recovers the device reads without a lease.
    RecoveredWithoutLease: "recovered-without-lease", "S5";
    /// A write begins before the log says that it may.
    WriteBeforeLog: "write-before-log", "S7";
    /// What is being written of the log counts as durable.
    LogWritingCounts: "log-writing-counts", "S7";
    /// What the log is dropping is used.
    LeavingUsed: "leaving-used", "S7";
    /// An extent leaves the log before a flush.
    EvictUnflushed: "evict-unflushed", "S7";
    /// An extent leaves the log before its marks are on disk.
    EvictBeforePage: "evict-before-page", "I5 S7";
    /// The bitmap is not written.
    BitmapForgotten: "bitmap-forgotten", "S7";
    /// Unflushed writes are forgotten when the peer is dropped.
    DivergeForgotten: "diverge-forgotten", "S7 I4";
    /// A flush that came to nothing counts.
    FlushAbandonedCounts: "flush-abandoned-counts", "S7 I4";
    /// A flush covers the writes that are running.
    FlushCoversRunning: "flush-covers-running", "I5 S7 I4";
    /// Shared writes do not count as unflushed.
    BeginNotUnflushed: "begin-not-unflushed", "S7 I4";
    /// A flush of the peer frees the log.
    LogFreedByPeer: "log-freed-by-peer", "I5 S7 I4";
    /// The own flush frees the log.
    LogFreedByOwn: "log-freed-by-own", "I5 S7 I4";
    /// The answer to a background flush that came to nothing counts for the next one.
    AbandonedAnswerCounts: "abandoned-answer-counts", "S7 I4";
    /// A write that the peer misses is not marked.
    MissedNotMarked: "missed-not-marked", "S7 I4";
    /// A mirrored write is not marked.
    MirroredNotMarked: "mirrored-not-marked", "S7 I4";
    /// Marks are rounded inward.
    RoundedInward: "rounded-inward", "S7 I4";
    /// A mark goes when the target has the run, flushed or not.
    ClearAtCopyAck: "clear-at-copy-ack", "I5 S7";
    /// Marks go when the target has flushed, whatever the source has.
    CheckpointWithoutOwnFlush: "checkpoint-without-own", "I5 S7";
    /// Marks go when the source has flushed, whatever the target has.
    CheckpointWithoutPeerFlush: "checkpoint-without-peer", "S7";
    /// A checkpoint covers what arrived after it was sent.
    CheckpointCoversLater: "checkpoint-covers-later", "S7";
    /// What the target has written again keeps no mark.
    CheckpointIgnoresNewer: "checkpoint-ignores-newer", "S7";
    /// The copy counts before its flush.
    WidenWithoutPeerFlush: "widen-without-peer-flush", "S7 S11 I4";
    /// The copy counts before the source's flush.
    WidenWithoutOwnFlush: "widen-without-own-flush", "S7 I4";
    /// Writes that run when a copy joins are taken for flushed.
    JoinCoversRunning: "join-covers-running", "S7 I4";
    /// A full copy does not mark every block.
    FullNotMarked: "full-not-marked", "S7 S9 I4";
    /// The bitmap is believed before every page was written.
    SweptTooEarly: "swept-too-early", "S7";
    /// A damaged page of the bitmap reads as clean.
    DamagedPageClean: "damaged-page-clean", "S7";
    /// The log's sequence begins anew with each run.
    LogSequenceRestarts: "log-sequence-restarts", "S7";
    /// Application writes go where a run of the resync is under way.
    WriteIntoRun: "write-into-run", "I8";
    /// A run of the resync begins where the application writes.
    RunIntoWrite: "run-into-write", "I8";
    /// Overlapping writes run at a time.
    OverlappingWrites: "overlapping-writes", "I3";
    /// Writes to areas that are equal already are not mirrored.
    MirrorMissing: "mirror-missing", "S7 I4";
    /// A resync is complete while runs are under way.
    CompleteInFlight: "complete-in-flight", "S9 I4";
    /// The target's marks are not asked for.
    TargetMarksIgnored: "target-marks-ignored", "S8 I4";
    /// Of the target's marks only the first are taken.
    TargetMarksCutOff: "target-marks-cut-off", "S8 I4";
    /// An old disk that counted before the other side was alone still counts.
    OldMemberCounts: "old-member-counts", "S7 S8 I4";
    /// An old disk that had left is taken for the one that was filled since.
    LeaverIsTarget: "leaver-is-target", "S7 S8 I4";
    /// Marks that were taken away for one copy are believed for another one.
    MarksOfAnother: "marks-of-another", "S7 S8 I4";
    /// An isolated copy that needs everything gets only what is written from then on.
    ApartIsKnown: "apart-is-known", "S7 S8 I4";
    /// A copy that joined the source's history to stay apart is taken for one that counted there.
    JoinedIsMember: "joined-is-member", "S7 S8 I4";
    /// A copy that agreed to leave in vain counts for one of which nothing is known.
    LeftIsStranger: "left-is-stranger", "S8";
    /// An old disk that served alone before the pair was rebuilt is filled as if it had only followed.
    ApartIsInVain: "apart-is-in-vain", "S1 S7 S8";
    /// An old disk of a source fills the copy that left a later view of it.
    OldSourceFills: "old-source-fills", "S1 S8";
    /// An old disk of a target goes on with the resync that ended long ago.
    OldTargetResumes: "old-target-resumes", "S7 S8 I4";
    /// A view that is the base, and no longer in the history, is none that this side comes from.
    BaseForgotten: "base-forgotten", "S8 I9";
    /// A resync of another lineage is taken for one's own.
    AnyLineage: "any-lineage", "S7 S8 I4";
    /// The bitmap is believed to tell of any copy.
    AnyBase: "any-base", "S7 S8 I4";
    /// Who leads is decided by the epoch.
    LeaderByEpoch: "leader-by-epoch", "S1 S8 I4";
    /// Split histories are merged by the epoch.
    SplitBrainMerged: "split-brain-merged", "S8";
    /// Views are not remembered.
    HistoryForgotten: "history-forgotten", "S8";
    /// A discarded copy's own marks are not asked for.
    ResolveByOwnMarks: "resolve-by-own-marks", "S7 S8 I4";
    /// A history is said to be discarded, and that is not durable.
    DiscardNotDurable: "discard-not-durable", "S8";
    /// A copy that follows another history forgets where it joined it.
    JoinedHistoryForgotten: "joined-history-forgotten", "S8 I9";
    /// An isolated copy is made the only one that counts.
    IsolatedForced: "isolated-forced", "S9 I9 I11";
    /// A copy recovered by force stays marked as unfit, and fills nobody.
    ForcedStaysMarked: "forced-stays-marked", "I9";
    /// A copy recovered by force takes the lost history for a part of its own.
    ForceKeepsHistory: "force-keeps-history", "S8";
    /// The target does not write down that it is one.
    TargetForgotten: "target-forgotten", "S4 S9";
    /// An active node that crashed resolves nothing.
    CrashForgotten: "crash-forgotten", "S10 I4";
    /// Writes that were thrown away leave no trace.
    AbortForgotten: "abort-forgotten", "S10 I4";
    /// The peer is asked to consent to an end at which writes were thrown away, and is not told before.
    AbortHandedOver: "abort-handed-over", "S7 S10 I4";
    /// A service that ended alone ended cleanly in any case.
    UncleanForgotten: "unclean-forgotten", "S10 I4";
    /// Writes fail before it is written down that they were thrown away.
    AbortBeforeDurable: "abort-before-durable", "S7 S10 I4";
    /// A run after one that threw writes away goes on serving.
    AbortedServesOn: "aborted-serves-on", "S7 S10 I4";
    /// A member's reboot is not noticed.
    MemberRebootMissed: "member-reboot-missed", "S7 S11 I4";
    /// The active node's reboot is not noticed.
    ActiveRebootMissed: "active-reboot-missed", "S7 S11 I3 I4";
    /// The peer's boot is noted before both sides came together.
    BootNotedEarly: "boot-noted-early", "S7 S11 I3 I4";
    /// A wider view that is refused leaves the connection up.
    WideningRefusedStays: "widening-refused-stays", "S4 I9";
    /// A service ended alone, and that is forgotten.
    DrainedForgotten: "drained-forgotten", "S7 S11 I3 I4";
    /// A service ends without the peer's flush.
    EndWithoutPeerFlush: "end-without-peer-flush", "S7 S11 I3 I4";
    /// A service ends without the own flush.
    EndWithoutOwnFlush: "end-without-own-flush", "S7 S11 I3 I4";
    /// Who is deposed agrees before its device is gone.
    DeposedKeepsDevice: "deposed-keeps-device", "S12";
    /// What was sent on a lost connection is not sent again.
    NoResend: "no-resend", "I9";
    /// A change that lost its connection holds the writes for ever, whoever comes back.
    HeldForEver: "held-for-ever", "I9";
    /// Writes go where a run is being compared.
    VerifyUnlocked: "verify-unlocked", "I8 I14";
    /// A run is compared while the application writes to it.
    VerifyIntoWrite: "verify-into-write", "I8 I14";
    /// A run is compared before the writes that arrived ahead of it, also right after a restart under a live device
    /// (guarded twice: there it would wait a while first).
    VerifyJumpsQueue: "verify-jumps-queue", "I14";
    /// A verify goes on while its connection is being closed, and what it had under way there keeps no lock (guarded
    /// twice: with its locks kept until the connection is gone, a late run harms nothing).
    VerifyAfterEnd: "verify-after-end", "I8";
    /// The peer is dropped while it repairs a block for a verify.
    DropWhileVerifying: "drop-while-verifying", "I9";
    /// A verify that is to end waits for writes first.
    VerifyEndWaits: "verify-end-waits", "I9";
    /// A difference is not seen.
    VerifyBlind: "verify-blind", "I14";
    /// A repair is answered before it is durable.
    RepairNotDurable: "repair-not-durable", "S7 I11";
    /// Writes go where a block is being repaired.
    RepairUnlocked: "repair-unlocked", "S4 I4 I8 I11";
    /// The wrong side of a difference is written.
    RepairFromWrongSide: "repair-from-wrong-side", "I3 I11";
    /// A copy that an operator marked leaves the view and keeps what it has.
    InvalidateForgotten: "invalidate-forgotten", "I12";
    /// A marked copy is taken away from who serves it.
    InvalidateLastCopy: "invalidate-last-copy", "S3 S9 I9 I12";
    /// A resync that was paused goes on.
    PauseIgnored: "pause-ignored", "I13";
    /// Alone, writes in flight go on waiting for the peer.
    AloneStillWaits: "alone-still-waits", "I9";
    /// Only the first path is ever dialled.
    FirstPathOnly: "first-path-only", "I9";
    /// A connection on which nobody answers is waited for although another one stands.
    KeepsDeadCandidate: "keeps-dead-candidate", "I9";
    /// The other node writes no zeroes before a grow.
    GrowUnzeroed: "grow-unzeroed", "S7 I3 I4";
    /// The zeroes before a grow are not flushed.
    GrowUnflushed: "grow-unflushed", "S7 I3 I4";
    /// That a grow was prepared is not written down.
    GrowNoteForgotten: "grow-note-forgotten", "I9";
    /// A larger volume is shown before the peer has written its size down.
    GrowWithoutPeer: "grow-without-peer", "I10";
    /// Different sizes are refused, whatever was prepared.
    TornGrowRefused: "torn-grow-refused", "I9";
    /// Of two sizes the smaller one counts.
    TornGrowShrinks: "torn-grow-shrinks", "I10";
    /// A copy is isolated without a flush.
    IsolateWithoutFlush: "isolate-without-flush", "S2 S7 I30";
    /// An isolated copy is activated, or takes over.
    IsolatedPromotable: "isolated-promotable", "S3 S9";
    /// A daemon that starts has forgotten that its copy is isolated.
    IsolatedForgotten: "isolated-forgotten", "I30";
    /// An isolated copy is filled when the nodes meet.
    IsolatedFilled: "isolated-filled", "I30";
    /// The read-only device takes writes.
    IsolatedWritable: "isolated-writable", "I30";
    /// A copy is attached while its read-only device stands.
    AttachKeepsDevice: "attach-keeps-device", "I30";
    /// The reads of an isolated copy wait for a lease.
    IsolatedWantsLease: "isolated-wants-lease", "I9";
    /// A disk operation that does not end is waited for for ever.
    StuckForEver: "stuck-for-ever", "I9 I15";
    /// A metadata write that does not end is waited for for ever.
    StuckMetadataForEver: "stuck-metadata-for-ever", "I9 I15";
    /// An operation that was given up counts as done.
    GivenUpCounts: "given-up-counts", "S1 S7 I3 I4";
    /// A disk that was given up is asked again.
    GivenUpAskedAgain: "given-up-asked-again", "I15";
    /// The shell is not told that an operation was given up: its memory is used again.
    GivenUpUntold: "given-up-untold", "I15";
    /// A pause of this machine counts as time that the disk took.
    PauseCountsAsStuck: "pause-counts-as-stuck", "I15";
    /// What the peer read is written here while the application writes there.
    HealUnlocked: "heal-unlocked", "I3 I4 I8";
    /// It is written before the activity log names its extent.
    HealWithoutLog: "heal-without-log", "S7";
    /// It is not written here at all.
    HealWithoutRewrite: "heal-without-rewrite", "I31";
    /// A read that the peer had not answered when the connection ended is not asked again.
    HealNotAskedAgain: "heal-not-asked-again", "I9 I31";
    /// A copy that does not count is asked, and answers.
    ServeReadOutdated: "serve-read-outdated", "S1 S9 I2 I3";
    /// A read that failed on the peer too is answered with whatever the buffer holds.
    HealErrorIgnored: "heal-error-ignored", "S1 I2 I3 I31";
    /// A read fails when the connection ends, although the peer's copy counts.
    HealGivesUp: "heal-gives-up", "I31";
    /// What the own disk could not do is acknowledged before the peer's copy alone counts.
    DisklessTooEarly: "diskless-too-early", "S1";
    /// The peer agrees to be the only one that counts without a flush.
    DisklessWithoutFlush: "diskless-without-flush", "S2";
    /// A disk that failed is read from as long as it answers.
    DisklessReadsHere: "diskless-reads-here", "S1 S10 I2 I3";
    /// The peer of a node without a disk serves before that one's writes have ended.
    DisklessUndrained: "diskless-undrained", "S4 I3 I8";
    /// What a disk reads that failed meanwhile is told to the application.
    LeavingReadsCount: "leaving-reads-count", "S1 I2 I3";
    /// A verify goes on from a disk that failed, and repairs the peer's copy from it.
    LeavingVerifies: "leaving-verifies", "S1 I3 I11 I14";
    /// A deactivation does not look whether another change is under way when the disk has failed. A build with
    /// assertions stops there; in any other one the change that is under way stays all the same.
    EndIgnoresChange: "end-ignores-change", "I9";
    /// The view says that the disk that failed counts.
    DisklessCountsItself: "diskless-counts-itself", "S1";
    /// One failed read, and the whole disk counts as failed although the peer has the block.
    ReadErrorFailsDisk: "read-error-fails-disk", "I31";
    /// What is to be read again wakes a resync that is paused, or rests, and that goes on later.
    PausedCopySpins: "paused-copy-spins", "I32";
    /// What the source could not read counts as sent.
    AsideCountsAsCopied: "aside-counts-as-copied", "S7 S9 I4";
    /// What the source could not read is never tried again.
    AsideForgotten: "aside-forgotten", "I9";
    /// A target that cannot read says that it has the same.
    UnreadableEqual: "unreadable-equal", "S7 S9 I4";
    /// A grant on another view counts for this one.
    GrantOfAnyView: "grant-of-any-view", "S3 S8";
    /// A machine that booted takes over by a grant.
    GrantAfterReboot: "grant-after-reboot", "S1 S11";
    /// A service that ends by force waits for a peer that is lost meanwhile.
    ForcedEndWaits: "forced-end-waits", "I9";
    /// A word about an earlier view counts for this one.
    TakeoverOfAnyEpoch: "takeover-of-any-epoch", "S8";
    /// A word about a grant is carried out however late it comes.
    LateGrant: "late-grant", "I40 S8";
    /// The metadata of the active node fail, and the service ends although the peer could carry it.
    MetadataEndService: "metadata-end-service", "I34";
    /// The peer alone counts before it has agreed: nobody has that written down.
    CarriedBeforeConsent: "carried-before-consent", "S1 S2";
    /// The peer agrees that it alone counts, and does not write it down.
    CarriedViewForgotten: "carried-view-forgotten-by-peer", "S1 S2";
    /// Nothing tells the next run of the daemon not to believe metadata that failed.
    CarriedUndisowned: "dead-metadata-believed-after-restart", "I33";
    /// A copy whose metadata failed alone is given up before the peer has agreed, and flushed (ADR 0009).
    DisownedAtOnce: "disowned-at-once", "S1 S11 I2 I3";
    /// The activity log is written on after the metadata failed.
    GivenUpLogWritten: "dead-metadata-written", "I33";
    /// Writes fail with the metadata, and the next run takes them for still in the kernel's hands.
    FailedWritesInHand: "failed-writes-in-hand", "S7 I4";
    /// The peer was asked to go on alone, and the next run takes a grant on the view of before.
    AskedForgotten: "asked-peer-forgotten", "S8 I40";
    /// Of what only one side of a split brain has nothing is named: nothing of it would be kept.
    UniqueForgotten: "unique-forgotten", "S8";
    /// Who is deposed waits for the end of a device that had ended before both came together.
    GoneDeviceAwaited: "gone-device-awaited", "I9";
    /// Who deposed the other one takes it for serving as long as they are linked.
    DeposedServes: "deposed-serves", "I9";
    /// A flush of both copies covers what a killed run left half done, and what the kernel has still to hand over.
    InheritedFlushed: "inherited-flushed", "S7 I4";
    /// That the disk failed is told before the proof alone: the peer cannot believe it.
    FailureToldUnproved: "failure-told-unproved", "S1 S7 I4";
    /// Who agreed to be dropped stays out although the other one never wrote that down, and its disk failed.
    ConsentInVainBinds: "consent-in-vain-binds", "I9";
    /// A copy that is being filled takes the place of its source when the source's disk fails.
    TargetReplacesSource: "target-replaces-source", "S1 S9 I3 I4";
}

/// Whether this thread's core is wrong like that.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static WRONG: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Whether this thread's core is wrong like that.
#[cfg(feature = "mutants")]
pub fn is(mutant: Mutant) -> bool {
    WRONG.get() == Some(mutant)
}

/// This thread's core is wrong like that from now on, or right again.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    WRONG.set(mutant);
}
