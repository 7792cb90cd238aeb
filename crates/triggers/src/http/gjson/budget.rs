//! Bounds on what one evaluation may cost: both the path and the document come from outside.

use std::cell::Cell;

/// Nested steps, pipes, queries and multipaths of one evaluation.
const MAX_DEPTH: u32 = 96;
/// Bytes that any evaluation may look at or produce, however small the document.
const BASE_WORK: u64 = 8 << 20;
/// How often each byte of the document may be looked at on top of that.
const PASSES: u64 = 16;

/// The path asks for more work, or nests deeper, than an evaluation may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Too many bytes looked at or produced.
    #[error("evaluating the path takes too much work")]
    Work,
    /// Too many nested steps.
    #[error("the path or the document nests too deeply")]
    Depth,
}

pub(super) struct Budget {
    work: Cell<u64>,
    depth: Cell<u32>,
}

impl Budget {
    pub(super) fn new(document: usize) -> Self {
        let work = (document as u64).saturating_mul(PASSES).saturating_add(BASE_WORK);
        Self { work: Cell::new(work), depth: Cell::new(0) }
    }

    /// Takes `bytes` from what is left.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Exhausted> {
        let left = self.work.get().checked_sub(bytes as u64 + 1).ok_or(Exhausted::Work)?;
        self.work.set(left);
        Ok(())
    }

    /// One level deeper until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Level<'_>, Exhausted> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(Exhausted::Depth);
        }
        self.depth.set(self.depth.get() + 1);
        Ok(Level(self))
    }
}

pub(super) struct Level<'b>(&'b Budget);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}
