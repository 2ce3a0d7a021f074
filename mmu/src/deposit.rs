//! Pages taken before a section begins, so that nothing is allocated inside.

use tdx_abi::Page;

use crate::embed::Frames;

/// Most tables that one descent can need: a 5-level tree down to 4 KiB entries, without its root.
pub const DEPTH: usize = 4;

/// Most tables that a deposit holds: two descents.
pub const CAPACITY: usize = 2 * DEPTH;

/// What a [`Deposit`] holds.
pub trait Deposited: Sized {
    /// Takes one from the allocator.
    fn allocate<F: Frames>(frames: &F) -> Option<Self>;

    /// Gives it back.
    fn release<F: Frames>(self, frames: &F);
}

/// A host table.
#[derive(Debug)]
pub struct Table(pub Page);

impl Deposited for Table {
    fn allocate<F: Frames>(frames: &F) -> Option<Self> {
        frames.allocate_table().map(Self)
    }

    fn release<F: Frames>(self, frames: &F) {
        frames.free_table(self.0);
    }
}

/// A host table and the module's page that stands for it.
#[derive(Debug)]
pub struct Pair {
    /// Page for the mirrored table.
    pub table: Page,
    /// Page for the Secure-EPT.
    pub external: Page,
}

impl Deposited for Pair {
    fn allocate<F: Frames>(frames: &F) -> Option<Self> {
        let table = frames.allocate_table()?;
        match frames.allocate_module_page() {
            Some(external) => Some(Self { table, external }),
            None => {
                frames.free_table(table);
                None
            }
        }
    }

    fn release<F: Frames>(self, frames: &F) {
        frames.free_table(self.table);
        frames.free_module_page(self.external);
    }
}

/// The allocator is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPages;

/// Tables held ready: [`Table`] for the shared tree, [`Pair`] for a mirrored one.
///
/// Filled outside of sections with [`Deposit::top_up`], drawn from inside, and emptied back to the
/// allocator when dropped.
#[derive(Debug)]
pub struct Deposit<'f, F: Frames, D: Deposited> {
    frames: &'f F,
    held: [Option<D>; CAPACITY],
}

impl<'f, F: Frames, D: Deposited> Deposit<'f, F, D> {
    /// An empty deposit.
    pub const fn new(frames: &'f F) -> Self {
        Self {
            frames,
            held: [const { None }; CAPACITY],
        }
    }

    /// Fills the deposit up to `count`, at most [`CAPACITY`].
    ///
    /// What could be had stays in the deposit if the allocator runs dry.
    pub fn top_up(&mut self, count: usize) -> Result<(), OutOfPages> {
        for place in self.held.iter_mut().take(count) {
            if place.is_none() {
                *place = Some(D::allocate(self.frames).ok_or(OutOfPages)?);
            }
        }
        Ok(())
    }

    /// Draws one, if there is one.
    pub fn draw(&mut self) -> Option<D> {
        self.held.iter_mut().find_map(Option::take)
    }

    /// Puts one back that was not used.
    pub fn put_back(&mut self, unused: D) {
        match self.held.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(unused),
            None => unused.release(self.frames),
        }
    }
}

impl<F: Frames, D: Deposited> Drop for Deposit<'_, F, D> {
    fn drop(&mut self) {
        while let Some(unused) = self.draw() {
            unused.release(self.frames);
        }
    }
}
