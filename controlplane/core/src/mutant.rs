//! Deliberately wrong variants of the rules, for the simulator, or for a test of its own: each has to be caught.
//!
//! The product is built without the feature `mutants`: [`is`] is a constant there and leaves nothing
//! behind. With it, a thread can be told to be wrong in one way.

macro_rules! mutants {
    (
        $($(#[$doc:meta])* $variant:ident: $name:literal, $rule:literal;)*
        @apart $($(#[$apart_doc:meta])* $apart:ident: $apart_name:literal;)*
    ) => {
        /// One way to be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])* $variant,)*
            $($(#[$apart_doc])* $apart,)*
        }

        impl Mutant {
            /// Those of the simulator: name, mutant, the rules of which a failure has to name one.
            pub const ALL: &[(&'static str, Self, &'static str)] =
                &[$(($name, Self::$variant, $rule),)*];
            /// Those of which the simulator has no part, each with its name: `tests/timeouts` has to catch them.
            pub const APART: &[(&'static str, Self)] = &[$(($apart_name, Self::$apart),)*];
        }
    };
}

mutants! {
    /// The register grants on an older view than the one that it holds.
    RegisterGrantsThePast: "register-grants-the-past", "I40 S8";
    /// The register compares epochs only: a view of a high enough epoch is granted, whatever it rests on.
    RegisterEpochOnly: "register-epoch-only", "I40 S8";
    /// The register grants a later view than what it granted to the other node, which may still act.
    RegisterHolderIgnored: "register-holder-ignored", "I40 S8";
    /// The register forgets a grant when its holder asks again on another view.
    RegisterGrantTwice: "register-grants-twice", "I40 S8";
    /// The register takes a view for used that another history remembers; the claimant's own is not looked at.
    RegisterHistoryIgnored: "register-history-ignored", "I42 I43";
    /// A register that lost its data grants after the first report.
    RegisterEnrolledByOne: "register-enrolled-by-one", "I40 S8";
    /// A register that lost its data does not hear that a copy counts alone.
    RegisterSoleUnheard: "register-sole-unheard", "I40 S8";
    /// A grant is given back and used.
    ReleaseKeepsGrant: "release-keeps-grant", "I40 S8";
    /// A new run takes every word of an earlier one for over.
    NewRunTrusts: "new-run-trusts", "I40 S8";
    /// A view is reported while something is granted that will change it.
    ReportsWithGrant: "reports-with-a-grant", "I40 S8";
    /// Nothing is given back that an earlier run may have been granted.
    NothingInherited: "nothing-inherited", "I42 I43";
    /// A grant that is not needed is kept.
    NeverReleased: "never-released", "I42 I43";
    /// A standby takes over without a claim.
    TakeoverWithoutClaim: "takeover-without-claim", "I41 S8";
    /// A serving node goes alone without a claim.
    GoAloneWithoutClaim: "go-alone-without-claim", "I41 S8";
    /// A standby asks as early as the serving node.
    HandicapIgnored: "handicap-ignored", "I44";
    /// A lost answer is not asked for again.
    LostAnswerWaited: "lost-answer-waited", "I42 I43";
    /// A claim that was refused is taken for granted.
    RefusalIsGrant: "refusal-is-grant", "I41 S8";
    /// One silent path is a dead peer.
    OnePathSilentIsDead: "one-path-silent-is-dead", "I44";
    /// What the mirror link heard earlier counts as heard when it is told.
    LinkHeardNow: "link-heard-now", "I42 I46";
    /// Who is heard on the mirror link counts as hearing this node there.
    LinkHeardConfirms: "link-heard-confirms", "I57";
    /// A path on which the peer is heard but does not hear this node is no sign of life.
    DeafIsDead: "deaf-is-dead", "I44 I43";
    /// A recorded heartbeat counts.
    ReplayBelieved: "replayed-heartbeat-believed", "I46";
    /// On a path that was not heard yet anything of the run counts, unproven and however old.
    LateBelieved: "late-heartbeat-believed", "I46";
    /// A run that was followed by another one is believed again.
    EarlierRunBelieved: "earlier-run-believed", "I46";
    /// A run that did not prove that it is of now counts.
    UnprovenBelieved: "unproven-run-believed", "I46";
    /// A node whose disk failed under its service, which nobody carries, goes on as if it served.
    BrokenServes: "broken-serves-on", "I45";
    /// A frozen node without peer and arbiter goes on waiting.
    LeaseIgnored: "service-lease-ignored", "I45";
    /// The arbiter's answers lengthen the time of services without end.
    ContactExtends: "arbiter-extends-for-ever", "I57";
    /// A new run of the daemon takes the time of services for new.
    RestartRenews: "restart-renews-the-lease", "I57";
    /// A node whose claim was refused goes on waiting.
    RefusedStays: "refused-stays-frozen", "I45";
    /// A standby does not take over from a node that died.
    DeadNotNoticed: "dead-not-noticed", "I42 I43";
    /// A node whose link is down, and hears its peer, waits for ever.
    HeartbeatsHoldFreeze: "heartbeats-hold-freeze", "I43";
    /// A standby asks although its peer is heard.
    StandbyAsksBesideLiving: "standby-asks-beside-the-living", "I44";
    /// A wish rules before it is durable.
    WishBeforeDurable: "wish-before-durable", "I50";
    /// Of two wishes with one number the one that was heard last rules.
    LastWishWins: "last-wish-wins", "I51";
    /// Wishes are not told to the other node.
    WishUntold: "wish-untold", "I51 I52";
    /// What an operator stopped fails over.
    StoppedFailsOver: "stopped-fails-over", "I53";
    /// A node that an operator suspended takes over.
    SuspendedTakesOver: "suspended-takes-over", "I54";
    /// A group is handed over to a node that is not there.
    MovesToTheAbsent: "moves-to-the-absent", "I52";
    /// A move that does not get on is never given up.
    MoveNeverEnds: "move-never-ends", "I52";
    /// What is handed over is begun again by the node that had it.
    GiverBegins: "giver-begins", "I52";
    /// A node that asked its peer to go on alone claims what it may not use.
    AskedPeerClaims: "asked-peer-claims", "I9 I42";
    /// A stopped group's volumes go although the other node does not know that it is stopped.
    StopUntold: "stop-untold", "I53";

    @apart
    /// A promise to wait longer counts no more as soon as nothing is promised any more.
    PromiseNotKept: "promise-not-kept";
    /// A new run of the daemon does not know what an earlier one promised.
    PromiseLostByRestart: "promise-lost-by-restart";
    /// What is promised to the other node is not durable before.
    PromiseBeforeDurable: "promise-before-durable";
    /// A lease is lengthened by an operator's word alone.
    LeaseUnpromised: "lease-unpromised";
    /// Once a lease was lengthened, whatever confirms this node lengthens it.
    AnyWordRaises: "any-word-raises";
    /// A node takes over when it would go on alone, whatever it promised.
    TakeoverByOwnLease: "takeover-by-own-lease";
    /// Services wait after a takeover as configured, whatever was promised.
    StretchForgotten: "stretch-forgotten";
    /// Services do not wait longer, whatever they are told.
    StretchUnheard: "stretch-unheard";
    /// A standby asks as soon as its peer is dead, whatever was promised.
    NotBeforeIgnored: "not-before-ignored";
    /// More is promised than whoever starts services waits.
    PromiseBeforeWait: "promise-before-wait";
    /// A promise that comes after a gap undoes it.
    RaiseEndsGap: "raise-ends-gap";
    /// A peer that is silent, within a raised timeout, counts as heard.
    QuietIsHeard: "quiet-is-heard";
    /// A raised timeout outlives the lease for which it is.
    RaisedForEver: "raised-for-ever";
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
