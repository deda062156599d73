//! Bugs planted on purpose, for the simulation to find: a test that finds none of them proves nothing.
//!
//! They exist with the feature `testing` only and are switched on for one thread; without it [`Mutant::is_active`]
//! is `false` and the compiler removes the bug.

/// One deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A batch counts as acknowledged before its answer is there.
    AcknowledgeBeforeTheAnswer,
    /// `failed` in Qeasy's answer is ignored.
    IgnoreFailed,
    /// Rows that Qeasy counts neither as inserted nor as failed are ignored.
    IgnoreInserted,
    /// The last page of products is not read.
    DropTheLastPage,
    /// The state is saved over whatever is there.
    SaveWithoutCompare,
    /// A run starts without the calls of the runs before it.
    ForgetTheLimit,
    /// A lockout is knocked on like any failed call.
    CallDuringLockout,
    /// A window counts although its total moved, or rows of it are missing.
    AcceptMovedTotal,
    /// The start of a range of time is taken as left out by the filter.
    HalfOpenBounds,
    /// What was created or edited while the windows were read is not read.
    SkipDelta,
    /// Rows go before every window that could hold them was read.
    DeleteBeforeFullCoverage,
    /// A checkpoint of other fields, or of another source, is used.
    CheckpointOfOtherFields,
    /// A row that is read again keeps the number of its old window.
    ForgetTheWindow,
    /// What the target acknowledges is saved at the end of the run only.
    SaveOnlyAtTheEnd,
    /// A row does not wait for its ancestors that are under way.
    ChildrenBesideParents,
    /// The upper limit of a value guard is ignored.
    LetHeldValuesThrough,
    /// Content of the ledger counts without a look at what the target has acknowledged.
    BelieveTheLedger,
    /// A plan may take away as much as it wants.
    LiftTheGuard,
    /// Products that were created while pages were read the old way are not asked for.
    IgnoreGrowth,
    /// A run begins although another one of its connection goes on.
    IgnoreTheLease,
    /// The next delta begins where the last one ended, without an overlap.
    NoOverlap,
    /// A server's text is repeated with the secrets that it echoes.
    RedactNothing,
    /// Limits and silence belong to a connection, not to its account.
    LimitsOfOneConnection,
    /// The source's pace belongs to a process, not to its account.
    PaceOfOneProcess,
    /// The filter's clock is taken for `now` in the source's answers.
    TrustTheClock,
    /// A read that ends early keeps nothing.
    KeepNoCheckpoint,
    /// A row that is there again is sent without saying that it is not deleted any more.
    LeaveTheTombstone,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::AcknowledgeBeforeTheAnswer,
        Self::IgnoreFailed,
        Self::IgnoreInserted,
        Self::DropTheLastPage,
        Self::SaveWithoutCompare,
        Self::ForgetTheLimit,
        Self::CallDuringLockout,
        Self::AcceptMovedTotal,
        Self::HalfOpenBounds,
        Self::SkipDelta,
        Self::DeleteBeforeFullCoverage,
        Self::CheckpointOfOtherFields,
        Self::ForgetTheWindow,
        Self::LetHeldValuesThrough,
        Self::BelieveTheLedger,
        Self::LiftTheGuard,
        Self::IgnoreGrowth,
        Self::IgnoreTheLease,
        Self::NoOverlap,
        Self::RedactNothing,
        Self::LimitsOfOneConnection,
        Self::PaceOfOneProcess,
        Self::TrustTheClock,
        Self::KeepNoCheckpoint,
        Self::LeaveTheTombstone,
    ];

    /// Whether this bug is switched on.
    #[inline]
    pub fn is_active(self) -> bool {
        #[cfg(feature = "testing")]
        {
            ACTIVE.get() == Some(self)
        }
        #[cfg(not(feature = "testing"))]
        {
            false
        }
    }
}

#[cfg(feature = "testing")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on in this thread, or (`None`) all of them off.
#[cfg(feature = "testing")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}
