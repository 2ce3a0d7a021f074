/// Leaves of the TDX module that the host calls.
pub mod tdh {
    /// `TDH.MEM.*`.
    pub mod mem {
        /** Adds a page.

`TDH.MEM.PAGE.ADD`, leaf 2, version 0. Dispatched by 1.0.

Statuses: SUCCESS, OPERAND_BUSY.

Source: manual, Table 5.1.*/
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[must_use = "a leaf does nothing until it is called"]
        pub struct PageAdd {
            /// RCX: the entry of the Secure-EPT.
            pub gpa: crate::Mapping<crate::level::Pt>,
            /// RDX: the TD.
            pub tdr: crate::Tdr,
        }
        impl PageAdd {
            /// The leaf's number, with what modules allow.
            pub const LEAF: crate::leaf::SeamcallLeaf = crate::leaf::SeamcallLeaf::TDH_MEM_PAGE_ADD;
        }
        impl crate::Leaf for PageAdd {
            const NAME: &'static str = "TDH.MEM.PAGE.ADD";
            const RAX: u64 = 0x2;
            const FEATURES: crate::Features = crate::Features::EMPTY;
            const ALL_REGISTERS: bool = false;
            type Output = ();
            #[inline(always)]
            fn encode(&self) -> crate::Registers {
                let mut registers = crate::Registers::ZERO;
                registers.rax = Self::RAX;
                registers.rcx = self.gpa.bits();
                registers.rdx = self.tdr.hpa().bits();
                registers
            }
            #[inline(always)]
            fn decode(
                self,
                registers: &crate::Registers,
            ) -> Result<crate::Success<Self::Output>, crate::Refused<Self>> {
                if let Some(error) = crate::CallError::of_module(registers) {
                    return Err(crate::Refused {
                        leaf: self,
                        error,
                    });
                }
                let output = ();
                Ok(crate::Success {
                    status: crate::Status::from_rax(registers.rax),
                    output,
                })
            }
        }
        impl crate::HostLeaf for PageAdd {}
        /** Removes a page.

`TDH.MEM.PAGE.REMOVE`, leaf 29, version 0. Dispatched by 1.0. Needs WIDE.

Outputs: RCX = `page`; RCX = `entry` with OPERAND_BUSY.

Locks: TDR (shared, host priority).

OP_STATEs (1.0): BUILD, RUN.

Entry states (1.0): BLOCKED.

Statuses: SUCCESS, OPERAND_BUSY.

Source: manual, Table 5.2.*/
        #[derive(Debug, PartialEq, Eq)]
        #[must_use = "a leaf does nothing until it is called"]
        pub struct PageRemove<L: crate::level::Within<3>> {
            /// That the module has WIDE.
            pub supported: crate::module::Has<4>,
            /// RCX: the entry, of which no translation can be cached, and with it the TD.
            pub entry: crate::Untranslated<L>,
            /// RDX bits 0: Without waiting. Locked shared.
            pub quick: bool,
        }
        impl<L: crate::level::Within<3>> PageRemove<L> {
            /// The leaf's number, with what modules allow.
            pub const LEAF: crate::leaf::SeamcallLeaf = crate::leaf::SeamcallLeaf::TDH_MEM_PAGE_REMOVE;
        }
        impl<L: crate::level::Within<3>> crate::Leaf for PageRemove<L> {
            const NAME: &'static str = "TDH.MEM.PAGE.REMOVE";
            const RAX: u64 = 0x1d;
            const FEATURES: crate::Features = crate::Features::WIDE;
            const ALL_REGISTERS: bool = false;
            type Output = PageRemoveOutput<L>;
            #[inline(always)]
            fn encode(&self) -> crate::Registers {
                let mut registers = crate::Registers::ZERO;
                registers.rax = Self::RAX;
                registers.rcx = self.entry.mapping().bits();
                registers.rdx = ((self.entry.tdr().hpa().bits()) & 0xffffffffff000)
                    | ((self.quick as u64) & 0x1);
                registers
            }
            #[inline(always)]
            fn decode(
                self,
                registers: &crate::Registers,
            ) -> Result<crate::Success<Self::Output>, crate::Refused<Self>> {
                if let Some(error) = crate::CallError::of_module(registers) {
                    return Err(crate::Refused {
                        leaf: self,
                        error,
                    });
                }
                let output = PageRemoveOutput {
                    page: crate::Page::returned(registers.rcx, self.entry.level_type()),
                };
                Ok(crate::Success {
                    status: crate::Status::from_rax(registers.rax),
                    output,
                })
            }
        }
        impl<L: crate::level::Within<3>> crate::HostLeaf for PageRemove<L> {}
        /// What [`PageRemove`] returns.
        #[derive(Debug, PartialEq, Eq)]
        #[must_use]
        pub struct PageRemoveOutput<L> {
            /// RCX.
            pub page: crate::Page<L>,
        }
        impl<L: crate::level::Within<3>> crate::Refused<PageRemove<L>> {
            /// RCX.
            ///
            /// `None` with other statuses than those that return it.
            pub fn entry(&self) -> Option<crate::format::Split> {
                let failure = self.failure()?;
                match failure.status.code() {
                    crate::status::StatusCode::OPERAND_BUSY => {
                        Some(crate::format::Split::from_bits(failure.rcx))
                    }
                    _ => None,
                }
            }
        }
    }
}
