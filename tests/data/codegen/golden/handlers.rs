/// Inputs of the leaves as the callee sees them: any value can be in any register.
pub mod operands {
    /// Inputs of `TDH.MEM.PAGE.ADD`.
    #[derive(Clone, Copy, Debug)]
    pub struct TdhMemPageAdd {
        /// RCX.
        pub gpa: crate::format::GpaMapping,
        /// RDX.
        pub tdr: crate::Hpa,
    }
    impl TdhMemPageAdd {
        /// The inputs in `registers`.
        #[inline]
        pub const fn new(registers: &crate::Registers) -> Self {
            Self {
                gpa: crate::format::GpaMapping::from_bits(registers.rcx),
                tdr: crate::Hpa::new(registers.rdx),
            }
        }
    }
    /// Inputs of `TDH.MEM.PAGE.REMOVE`.
    #[derive(Clone, Copy, Debug)]
    pub struct TdhMemPageRemove {
        /// RCX.
        pub gpa: crate::format::GpaMapping,
        /// RDX.
        pub tdr: crate::Hpa,
        /// RDX: Without waiting.
        pub quick: bool,
    }
    impl TdhMemPageRemove {
        /// The inputs in `registers`.
        #[inline]
        pub const fn new(registers: &crate::Registers) -> Self {
            Self {
                gpa: crate::format::GpaMapping::from_bits(registers.rcx),
                tdr: crate::Hpa::new((registers.rdx & 0xffffffffff000)),
                quick: (registers.rdx & 1) != 0,
            }
        }
    }
}
/// Whoever implements the TDX module for calls of the host.
///
/// `C` is what a call needs beside the implementer, such as the state of the calling processor. A method finds its
/// inputs decoded and raw; it writes its outputs to `registers`, and returns what RAX will hold. A method
/// that is not implemented refuses its leaf.
pub trait HostHandler<C: ?Sized> {
    /// What a call came to: at least a status.
    type Outcome: From<crate::Status>;
    /// The module that is implemented; it decides about leaves and versions.
    fn module(&self) -> crate::Module;
    /// What a leaf answers that is not there.
    fn unsupported(
        &self,
        context: &mut C,
        leaf: crate::leaf::SeamcallLeaf,
        registers: &mut crate::Registers,
    ) -> Self::Outcome {
        let _ = (context, leaf, registers);
        crate::Status::with_operand(
                crate::StatusCode::OPERAND_INVALID,
                crate::OperandId::RAX,
            )
            .into()
    }
    /// `TDH.MEM.PAGE.ADD`: Adds a page.
    fn tdh_mem_page_add(
        &self,
        context: &mut C,
        _: operands::TdhMemPageAdd,
        registers: &mut crate::Registers,
    ) -> Self::Outcome {
        self.unsupported(context, crate::leaf::SeamcallLeaf::TDH_MEM_PAGE_ADD, registers)
    }
    /// `TDH.MEM.PAGE.REMOVE`: Removes a page.
    fn tdh_mem_page_remove(
        &self,
        context: &mut C,
        _: operands::TdhMemPageRemove,
        registers: &mut crate::Registers,
    ) -> Self::Outcome {
        self.unsupported(
            context,
            crate::leaf::SeamcallLeaf::TDH_MEM_PAGE_REMOVE,
            registers,
        )
    }
}
/// Calls the method of `handler` that `registers` ask for, as the TDX module for calls of the host would.
///
/// A leaf or version that the module lacks, or a reserved bit in RAX, is refused by
#[doc = concat!("[`", stringify!(HostHandler), "::unsupported`].")]
/// RAX is left to the caller: the outcome need not be a return.
pub fn dispatch_seamcall<C: ?Sized, H: HostHandler<C> + ?Sized>(
    handler: &H,
    context: &mut C,
    registers: &mut crate::Registers,
) -> H::Outcome {
    let rax = crate::format::LeafAndVersion::from_bits(
        registers.rax & !(crate::SEAMLDR_CALL),
    );
    let leaf = crate::leaf::SeamcallLeaf::new(rax.leaf());
    let accepted = match leaf.row() {
        Some(row) => row.answers(handler.module(), rax.version()),
        None => false,
    };
    if !rax.is_reserved_valid() || !accepted {
        return handler.unsupported(context, leaf, registers);
    }
    match (rax.leaf(), rax.version()) {
        (2, 0) => {
            handler
                .tdh_mem_page_add(
                    context,
                    operands::TdhMemPageAdd::new(registers),
                    registers,
                )
        }
        (29, 0) => {
            handler
                .tdh_mem_page_remove(
                    context,
                    operands::TdhMemPageRemove::new(registers),
                    registers,
                )
        }
        _ => handler.unsupported(context, leaf, registers),
    }
}
/// Whoever implements the TDX module for calls of the guest.
///
/// `C` is what a call needs beside the implementer, such as the state of the calling processor. A method finds its
/// inputs decoded and raw; it writes its outputs to `registers`, and returns what RAX will hold. A method
/// that is not implemented refuses its leaf.
pub trait GuestHandler<C: ?Sized> {
    /// What a call came to: at least a status.
    type Outcome: From<crate::Status>;
    /// The module that is implemented; it decides about leaves and versions.
    fn module(&self) -> crate::Module;
    /// What a leaf answers that is not there.
    fn unsupported(
        &self,
        context: &mut C,
        leaf: crate::leaf::TdcallLeaf,
        registers: &mut crate::Registers,
    ) -> Self::Outcome {
        let _ = (context, leaf, registers);
        crate::Status::with_operand(
                crate::StatusCode::OPERAND_INVALID,
                crate::OperandId::RAX,
            )
            .into()
    }
}
/// Calls the method of `handler` that `registers` ask for, as the TDX module for calls of the guest would.
///
/// A leaf or version that the module lacks, or a reserved bit in RAX, is refused by
#[doc = concat!("[`", stringify!(GuestHandler), "::unsupported`].")]
/// RAX is left to the caller: the outcome need not be a return.
pub fn dispatch_tdcall<C: ?Sized, H: GuestHandler<C> + ?Sized>(
    handler: &H,
    context: &mut C,
    registers: &mut crate::Registers,
) -> H::Outcome {
    let rax = crate::format::LeafAndVersion::from_bits(
        registers.rax & !(crate::SEAMLDR_CALL),
    );
    let leaf = crate::leaf::TdcallLeaf::new(rax.leaf());
    let accepted = match leaf.row() {
        Some(row) => row.answers(handler.module(), rax.version()),
        None => false,
    };
    if !rax.is_reserved_valid() || !accepted {
        return handler.unsupported(context, leaf, registers);
    }
    match (rax.leaf(), rax.version()) {
        _ => handler.unsupported(context, leaf, registers),
    }
}
/// Whoever implements P-SEAMLDR.
///
/// `C` is what a call needs beside the implementer, such as the state of the calling processor. A method finds its
/// inputs decoded and raw; it writes its outputs to `registers`, and returns what RAX will hold. A method
/// that is not implemented refuses its leaf.
pub trait SeamldrHandler<C: ?Sized> {
    /// What a call came to: at least a status.
    type Outcome: From<crate::Status>;
    /// The module that is implemented; it decides about leaves and versions.
    fn module(&self) -> crate::Module;
    /// What a leaf answers that is not there.
    fn unsupported(
        &self,
        context: &mut C,
        leaf: crate::leaf::SeamldrLeaf,
        registers: &mut crate::Registers,
    ) -> Self::Outcome {
        let _ = (context, leaf, registers);
        crate::Status::with_operand(
                crate::StatusCode::OPERAND_INVALID,
                crate::OperandId::RAX,
            )
            .into()
    }
}
/// Calls the method of `handler` that `registers` ask for, as P-SEAMLDR would.
///
/// A leaf or version that the module lacks, or a reserved bit in RAX, is refused by
#[doc = concat!("[`", stringify!(SeamldrHandler), "::unsupported`].")]
/// RAX is left to the caller: the outcome need not be a return.
pub fn dispatch_seamldr<C: ?Sized, H: SeamldrHandler<C> + ?Sized>(
    handler: &H,
    context: &mut C,
    registers: &mut crate::Registers,
) -> H::Outcome {
    let rax = crate::format::LeafAndVersion::from_bits(
        registers.rax & !(crate::SEAMLDR_CALL),
    );
    let leaf = crate::leaf::SeamldrLeaf::new(rax.leaf());
    let accepted = match leaf.row() {
        Some(row) => row.answers(handler.module(), rax.version()),
        None => false,
    };
    if !rax.is_reserved_valid() || !accepted {
        return handler.unsupported(context, leaf, registers);
    }
    match (rax.leaf(), rax.version()) {
        _ => handler.unsupported(context, leaf, registers),
    }
}
