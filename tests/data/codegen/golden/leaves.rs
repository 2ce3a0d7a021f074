/// Leaves of the TDX module that the host calls.
pub mod tdh {
    /// `TDH.MEM.*`.
    pub mod mem {
        use crate::*;
        /** Adds a page.

`TDH.MEM.PAGE.ADD`, leaf 2, version 0. Dispatched by 1.0.

Statuses: SUCCESS, OPERAND_BUSY.

Source: manual, Table 5.1.*/
        #[must_use = "a leaf does nothing until it is called"]
        pub struct PageAdd {
            /// RCX: The entry of the Secure-EPT.
            pub gpa: Mapping<level::Pt>,
            /// RDX: The TD.
            pub tdr: Tdr,
        }
        impl Leaf for PageAdd {
            const SIGNATURE: Signature = Signature::new(
                "TDH.MEM.PAGE.ADD",
                2,
                Reach::Rdx,
            );
            type Caller = Host;
            type Output = ();
            #[inline(always)]
            fn encode(&self) -> Registers {
                Registers {
                    rax: Self::RAX,
                    rcx: self.gpa.bits(),
                    rdx: self.tdr.hpa().bits(),
                    ..Registers::ZERO
                }
            }
            #[inline(always)]
            fn output(self, _: &Registers) -> Self::Output {}
        }
        /** Removes a page.

`TDH.MEM.PAGE.REMOVE`, leaf 29, version 0. Dispatched by 1.0. Needs WIDE.

Outputs: RCX = `page`; RCX = `entry` with OPERAND_BUSY.

Locks: TDR (shared, host priority).

OP_STATEs (1.0): BUILD, RUN.

Entry states (1.0): BLOCKED.

Statuses: SUCCESS, OPERAND_BUSY.

Source: manual, Table 5.2.*/
        #[must_use = "a leaf does nothing until it is called"]
        pub struct PageRemove<L: level::Within<3>> {
            /// That the module has WIDE.
            pub supported: module::Has<4>,
            /// RCX: The entry, of which no translation can be cached, and with it the TD.
            pub entry: Untranslated<L>,
            /// RDX bits 0: Without waiting. Locked shared.
            pub quick: bool,
        }
        impl<L: level::Within<3>> Leaf for PageRemove<L> {
            const SIGNATURE: Signature = Signature::new(
                    "TDH.MEM.PAGE.REMOVE",
                    0x1d,
                    Reach::Rdx,
                )
                .needing(Features::WIDE);
            type Caller = Host;
            type Output = PageRemoveOutput<L>;
            #[inline(always)]
            fn encode(&self) -> Registers {
                Registers {
                    rax: Self::RAX,
                    rcx: self.entry.mapping().bits(),
                    rdx: ((self.entry.tdr().hpa().bits()) & 0xffffffffff000)
                        | ((self.quick as u64) & 1),
                    ..Registers::ZERO
                }
            }
            #[inline(always)]
            fn output(self, registers: &Registers) -> Self::Output {
                PageRemoveOutput {
                    page: Page::returned(registers.rcx, self.entry.level_type()),
                }
            }
        }
        /// What [`PageRemove`] returns.
        #[derive(Debug)]
        #[must_use]
        pub struct PageRemoveOutput<L> {
            /// RCX.
            pub page: Page<L>,
        }
        impl<L: level::Within<3>> Refused<PageRemove<L>> {
            /// RCX.
            ///
            /// `None` with other statuses than those that return it.
            pub fn entry(&self) -> Option<format::Split> {
                let failure = self.failure()?;
                match failure.status.code() {
                    StatusCode::OPERAND_BUSY => {
                        Some(format::Split::from_bits(failure.rcx))
                    }
                    _ => None,
                }
            }
        }
    }
}
