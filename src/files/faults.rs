//! Faults for tests: the n-th change to the file system fails as a full or broken disk lets it fail, or as a kill ends it.
//!
//! A fault holds for the thread that injects it, until it is dropped.

use std::cell::{Cell, RefCell};
use std::io;

pub use super::operations::Operation;

/// The way in which an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write takes only a part of its bytes; other operations succeed.
    ShortWrite,
    /// The disk is full: this operation fails and, until the fault ends, every further one that needs space.
    Full,
    /// The disk is broken: this operation fails, once.
    Broken,
    /// Permission is denied, once.
    Denied,
    /// The process is killed: from this operation on nothing happens any more, no removal of temporary files either.
    Killed,
}

/// All kinds.
pub const KINDS: [Kind; 5] = [Kind::ShortWrite, Kind::Full, Kind::Broken, Kind::Denied, Kind::Killed];

#[derive(Debug)]
struct Plan {
    kind: Kind,
    at: usize,
    operations: Vec<Operation>,
    shorten: bool,
}

/// Lets this thread read models and snapshots whatever their checksums, as forged ones are read, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct IgnoredChecksums(());

impl IgnoredChecksums {
    /// From now on.
    #[allow(clippy::new_without_default, reason = "it has an effect")]
    pub fn new() -> Self {
        IGNORED.set(true);
        Self(())
    }
}

impl Drop for IgnoredChecksums {
    fn drop(&mut self) {
        IGNORED.set(false);
    }
}

/// Whether checksums are ignored.
pub(crate) fn checksums_are_ignored() -> bool {
    IGNORED.get()
}

thread_local! {
    static IGNORED: Cell<bool> = const { Cell::new(false) };
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// A fault, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Fault(());

impl Fault {
    /// Makes operation `at` of this thread, counted from 0, fail.
    pub fn inject(kind: Kind, at: usize) -> Self {
        PLAN.with_borrow_mut(|plan| *plan = Some(Plan { kind, at, operations: Vec::new(), shorten: false }));
        Self(())
    }

    /// Operations since it was injected, failed ones included.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        PLAN.with_borrow(|plan| plan.as_ref().map_or_else(Vec::new, |plan| plan.operations.clone()))
    }

    /// Whether the fault has struck.
    #[must_use]
    pub fn struck(&self) -> bool {
        PLAN.with_borrow(|plan| plan.as_ref().is_some_and(|plan| plan.operations.len() > plan.at))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        PLAN.with_borrow_mut(|plan| *plan = None);
    }
}

pub(super) fn attempt(operation: Operation) -> io::Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return Ok(()) };
        let now = plan.operations.len();
        plan.operations.push(operation);
        let needs_space = matches!(operation, Operation::CreateFolder | Operation::Open | Operation::Write);
        plan.shorten = plan.kind == Kind::ShortWrite && now == plan.at;
        match plan.kind {
            Kind::Full if now >= plan.at && needs_space => Err(io::ErrorKind::StorageFull.into()),
            Kind::Broken if now == plan.at => Err(io::Error::other("input/output error")),
            Kind::Denied if now == plan.at => Err(io::ErrorKind::PermissionDenied.into()),
            Kind::Killed if now >= plan.at => Err(io::Error::other("killed")),
            _ => Ok(()),
        }
    })
}

pub(super) fn writable(bytes: usize) -> usize {
    let shorten =
        PLAN.with_borrow_mut(|plan| plan.as_mut().is_some_and(|plan| std::mem::take(&mut plan.shorten)));
    if shorten { bytes.div_ceil(2) } else { bytes }
}

/// Whether the process counts as killed.
pub(super) fn is_dead() -> bool {
    PLAN.with_borrow(|plan| {
        plan.as_ref().is_some_and(|plan| plan.kind == Kind::Killed && plan.operations.len() > plan.at)
    })
}
