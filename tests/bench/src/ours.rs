//! `tdx-mmu`: the shared EPT, and the mirrored tree with nothing behind it.

use core::convert::Infallible;
use core::sync::atomic::AtomicU64;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_mmu::deposit::DEPTH;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::deposit::Deposited;
use tdx_mmu::deposit::Pair;
use tdx_mmu::deposit::Table;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;
use tdx_mmu::mirror::ExclusiveSection;
use tdx_mmu::mirror::Mirror;
use tdx_mmu::mirror::NoExternal;
use tdx_mmu::mirror::SharedSection;
use tdx_mmu::mirror::Stop;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Ept;
use tdx_mmu::shared::EptSection;
use tdx_mmu::shared::EptStop;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

use crate::arena;
use crate::contender::Contender;

/// The arena as an embedder. Tables are found where they are, as in a kernel's direct map.
pub struct Arena;

static ARENA: Arena = Arena;

impl Tables for Arena {
    type Word = AtomicU64;

    #[inline(always)]
    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        arena::table(table.bits())
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        arena::link(table.bits())
    }
}

impl Frames for Arena {
    #[inline]
    fn allocate_table(&self) -> Option<Page> {
        Page::assume_owned(Hpa::new(arena::frame() as u64), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        let _ = table.into_hpa();
    }

    fn allocate_module_page(&self) -> Option<Page> {
        Page::assume_owned(Hpa::new(0), Level::Pt)
    }

    fn free_module_page(&self, page: Page) {
        let _ = page.into_hpa();
    }
}

impl Relax for Arena {}

impl Grace for Arena {
    type Guard<'g> = ();

    fn enter(&self) {}

    fn retire(&self, table: Page) {
        self.free_table(table);
    }
}

const ATTRIBUTES: Attributes = Attributes::new(Permissions::ALL);

#[cold]
fn top_up<D: Deposited>(deposit: &mut Deposit<'static, Arena, D>) {
    deposit.top_up(DEPTH).expect("the arena is large enough");
}

/// The shared EPT. No CPU uses it, so nothing is flushed.
pub struct Shared {
    section: EptSection<'static, Arena>,
    deposit: Deposit<'static, Arena, Table>,
}

impl Shared {
    #[inline(always)]
    fn map(&mut self, address: u64, frame: u64, level: Level) {
        let (gpa, hpa) = (Gpa::new(address), Hpa::new(frame));
        let mapped = self
            .section
            .map(gpa, hpa, level, ATTRIBUTES, &mut self.deposit);
        if let Err(stop) = mapped {
            self.map_again(stop, address, frame, level);
        }
    }

    #[cold]
    #[inline(never)]
    fn map_again(&mut self, stop: EptStop, address: u64, frame: u64, level: Level) {
        match stop {
            EptStop::NeedTables => top_up(&mut self.deposit),
            stop => panic!("{stop:?}"),
        }
        self.map(address, frame, level);
    }
}

impl Contender for Shared {
    fn new() -> Self {
        let ept = Ept::new(&ARENA, Hpa::new(arena::frame() as u64), Level::Pml4);
        Self {
            section: ept.section(&ARENA),
            deposit: Deposit::new(&ARENA),
        }
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        self.map(address, frame, Level::Pt);
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        self.map(address, frame, Level::Pd);
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        self.section
            .translate(Gpa::new(address))
            .expect("mapped")
            .bits()
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        self.section
            .unmap(Gpa::new(address), Level::Pt)
            .expect("mapped");
    }

    fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
        let mut done = 0;
        while done < bytes {
            let (at, from) = (Gpa::new(address + done), Hpa::new(frame + done));
            let (mapped, stop) = self.section.map_range(
                at,
                from,
                bytes - done,
                Level::Pt,
                ATTRIBUTES,
                &mut self.deposit,
            );
            done += mapped;
            match stop {
                Ok(()) => {}
                Err(EptStop::NeedTables) => top_up(&mut self.deposit),
                Err(stop) => panic!("{stop:?}"),
            }
        }
        true
    }

    fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
        let mut gather = Gather::new();
        self.section
            .zap(address, address + bytes, &mut gather)
            .expect("nothing sticks out");
        true
    }
}

/// The mirrored tree in a shared section: every entry is frozen while it changes.
pub struct Frozen {
    section: SharedSection<'static, Arena>,
    deposit: Deposit<'static, Arena, Pair>,
}

/// The mirrored tree in the exclusive section: a store for every change.
pub struct Alone {
    section: ExclusiveSection<'static, Arena>,
    deposit: Deposit<'static, Arena, Pair>,
}

fn mirror() -> &'static Mirror<Arena> {
    Box::leak(Box::new(Mirror::new(
        &ARENA,
        Hpa::new(arena::frame() as u64),
        Hpa::new(0),
        Level::Pml4,
    )))
}

macro_rules! contender {
    ($name:ident $begin:ident) => {
        impl $name {
            #[inline(always)]
            fn map(&mut self, address: u64, frame: u64, level: Level) {
                let (gpa, hpa) = (PrivateGpa::new(address), Hpa::new(frame));
                let mapped = self
                    .section
                    .map(&NoExternal, gpa, hpa, level, &mut self.deposit);
                if let Err(stop) = mapped {
                    self.map_again(stop, address, frame, level);
                }
            }

            #[cold]
            #[inline(never)]
            fn map_again(
                &mut self,
                stop: Stop<Infallible>,
                address: u64,
                frame: u64,
                level: Level,
            ) {
                match stop {
                    Stop::NeedTables => top_up(&mut self.deposit),
                    stop => panic!("{stop:?}"),
                }
                self.map(address, frame, level);
            }
        }

        impl Contender for $name {
            fn new() -> Self {
                let mirror = mirror();
                Self {
                    section: mirror.$begin(&ARENA),
                    deposit: Deposit::new(&ARENA),
                }
            }

            #[inline(always)]
            fn map_4k(&mut self, address: u64, frame: u64) {
                self.map(address, frame, Level::Pt);
            }

            #[inline(always)]
            fn map_2m(&mut self, address: u64, frame: u64) {
                self.map(address, frame, Level::Pd);
            }

            #[inline(always)]
            fn walk(&mut self, address: u64) -> u64 {
                self.section
                    .translate(PrivateGpa::new(address))
                    .expect("mapped")
                    .bits()
            }

            #[inline(always)]
            fn unmap_4k(&mut self, address: u64) {
                let page = self
                    .section
                    .remove(&NoExternal, PrivateGpa::new(address), Level::Pt);
                let _ = page.expect("mapped").into_hpa();
            }

            fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
                let (gpa, hpa) = (PrivateGpa::new(address), Hpa::new(frame));
                let mut done = 0;
                while done < bytes {
                    let at = PrivateGpa::new(gpa.bits() + done);
                    let from = Hpa::new(hpa.bits() + done);
                    let (mapped, stop) = self.section.map_range(
                        &NoExternal,
                        at,
                        from,
                        bytes - done,
                        Level::Pt,
                        &mut self.deposit,
                    );
                    done += mapped;
                    match stop {
                        Ok(()) => {}
                        Err(Stop::NeedTables) => top_up(&mut self.deposit),
                        Err(stop) => panic!("{stop:?}"),
                    }
                }
                true
            }

            fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
                self.section
                    .remove_range(&NoExternal, address, address + bytes, |_, page| {
                        let _: Hpa = page.into_hpa();
                    })
                    .expect("all mapped");
                true
            }
        }
    };
}

contender!(Frozen section);
contender!(Alone exclusive);
