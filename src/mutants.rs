//! Deliberate bugs of our own, for the simulation to find: a test that finds none of them proves nothing.
//!
//! They exist in builds with debug assertions only and are switched on for one thread; in a release build
//! [`Mutant::lives`] is `false` and the compiler removes the bug.

/// One deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A batch counts as acknowledged before its answer is there.
    AcknowledgeBeforeTheAnswer,
    /// `failed` in Qeasy's answer is ignored.
    IgnoreFailed,
    /// The last page of products is not read.
    DropTheLastPage,
    /// The state is saved over whatever is there.
    SaveWithoutCompare,
    /// A run starts without the calls of the runs before it.
    ForgetTheLimit,
    /// A lockout is knocked on like any failed call.
    KnockOnALockout,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AcknowledgeBeforeTheAnswer,
        Self::IgnoreFailed,
        Self::DropTheLastPage,
        Self::SaveWithoutCompare,
        Self::ForgetTheLimit,
        Self::KnockOnALockout,
    ];

    /// Whether this bug is switched on.
    #[inline]
    pub fn lives(self) -> bool {
        #[cfg(debug_assertions)]
        {
            ALIVE.get() == Some(self)
        }
        #[cfg(not(debug_assertions))]
        {
            false
        }
    }
}

#[cfg(debug_assertions)]
thread_local! {
    static ALIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on in this thread, or (`None`) all of them off.
#[cfg(debug_assertions)]
pub fn set(mutant: Option<Mutant>) {
    ALIVE.set(mutant);
}
