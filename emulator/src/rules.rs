//! In what the releases of the module differ that no table of the ABI tells.

use tdx_abi::field::global;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::module::Features;

use crate::abi::Module;
use crate::abi::OperandId;
use crate::metadata::added_to_tdcs;
use crate::metadata::limit;

/// How one release behaves.
///
/// Source: the files of the release that the users of each rule name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The release whose metadata tables are used.
    pub(crate) tables: Module,
    /// Features that TDX_FEATURES0 has beyond those of 1.5.01, as far as the emulator has them.
    pub(crate) added_features: Features,
    /// Whether MONITOR and MWAIT that exit are #UD, and not #VE (`tdx_td_dispatcher.c`).
    pub(crate) monitor_is_undefined: bool,
    /// Whether the #VE information has a category and the interruptibility state.
    pub(crate) ve_has_category: bool,
    /// Whether OP_STATE_INCORRECT and VCPU_STATE_INCORRECT tell the state.
    pub(crate) statuses_tell_states: bool,
    /// Whether R8 of TDH.SYS.CONFIG has options beside the KeyID.
    pub(crate) config_has_options: bool,
    /// Whether TDH.SYS.CONFIG reserves the KeyID even if it fails on a TDMR.
    pub(crate) config_reserves_key_early: bool,
    /// Whether TDH.MEM.PAGE.PROMOTE locks the Secure-EPT exclusively instead of the entries that it merges.
    pub(crate) promote_locks_tree: bool,
    /// Whether TDH.MEM.PAGE.DEMOTE looks for interrupts even in a TD without L2 VMs.
    pub(crate) demote_is_interruptible: bool,
    /// The operand by which TDH.MEM.RANGE.UNBLOCK says that TLB tracking is not done.
    pub(crate) unblock_untracked: OperandId,
    /// Where TDCS counts the TD's memory, if it does.
    pub(crate) memory_counters: Option<MemoryCounters>,
    /// Where TDCS keeps the TD's topology, if it does.
    pub(crate) topology: Option<Topology>,
    /// Least pages of the lists into which state is exported.
    pub(crate) export_pages: ExportPages,
    /// Least pages of the list from which the state of a vCPU is imported.
    pub(crate) import_vcpu_pages: u64,
    /// Whether a metadata list that another one follows may end among fields that need not come.
    pub(crate) lists_end_anywhere: bool,
    /// Whether a service TD may neither have a service TD of its own nor be migratable (`is_binding_allowed` of `helpers.h`).
    pub(crate) service_td_is_plain: bool,
    /// How the leaves that take a GPA list tell and treat its entries.
    pub(crate) lists: Lists,
    /// Most vCPUs of a TD, where the module keeps their x2APIC ids and so has a limit of its own.
    pub(crate) max_vcpus: Option<u32>,
}

/// Least pages of a list, by what is exported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExportPages {
    /// The immutable state of a TD.
    pub(crate) immutable: u64,
    /// Its mutable state.
    pub(crate) td: u64,
    /// The state of a vCPU.
    pub(crate) vcpu: u64,
}

impl ExportPages {
    /// What `module` tells by TDH.SYS.RD.
    const fn of(module: Module) -> Self {
        Self {
            immutable: limit(module, global::NUM_IMMUTABLE_STATE_PAGES),
            // The newer modules have the same.
            td: limit(Module::V1_5_01, global::NUM_TD_STATE_PAGES),
            vcpu: limit(module, global::NUM_VP_STATE_PAGES),
        }
    }
}

/// How the leaves that take a GPA list tell and treat its entries.
///
/// Source: `tdh_export_blockw.c`, `tdh_export_restore.c`, `tdh_export_mem.c`, `tdh_import_mem.c`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lists {
    /// Whether RAX counts the entries that failed; where it does not, R8 does in version 1 of the leaves.
    pub(crate) rax_counts_errors: bool,
    /// Whether TDH.EXPORT.MEM fails at an entry that cannot be one, instead of counting it as failed.
    pub(crate) export_stops_at_invalid: bool,
    /// Whether a new list may begin on a stream on which another one was interrupted.
    pub(crate) new_one_replaces_interrupted: bool,
    /// Whether TDH.IMPORT.MEM takes an entry's IV before it checks the entry.
    pub(crate) import_takes_iv_first: bool,
    /// Whether a cancelled import puts the page that it removed into the list of new pages.
    pub(crate) cancel_returns_page: bool,
}

impl Lists {
    const V1_5_01: Self = Self {
        rax_counts_errors: true,
        export_stops_at_invalid: true,
        new_one_replaces_interrupted: true,
        import_takes_iv_first: true,
        cancel_returns_page: false,
    };
    const LATER: Self = Self {
        rax_counts_errors: false,
        export_stops_at_invalid: false,
        new_one_replaces_interrupted: false,
        import_takes_iv_first: false,
        cancel_returns_page: true,
    };
}

/// Offsets in TDCS of what counts the TD's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryCounters {
    /// MEM_COUNT.
    pub(crate) pages: u32,
    /// BLOCKED_COUNT.
    pub(crate) blocked: u32,
    /// PENDING_BLOCKED_COUNT.
    pub(crate) pending_blocked: u32,
}

impl MemoryCounters {
    const fn of(module: Module) -> Self {
        Self {
            pages: added_to_tdcs(module, tdr_tdcs::MEM_COUNT),
            blocked: added_to_tdcs(module, tdr_tdcs::BLOCKED_COUNT),
            pending_blocked: added_to_tdcs(module, tdr_tdcs::PENDING_BLOCKED_COUNT),
        }
    }
}

/// Offsets in TDCS of the TD's topology.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topology {
    /// X2APIC_IDS: that of vCPU 0.
    pub(crate) x2apic_ids: u32,
    /// TOPOLOGY_ENUM_CONFIGURED: every vCPU so far was given an x2APIC id.
    pub(crate) configured: u32,
    /// VE_REDUCTION_VALID: as much, for the reduction of #VE.
    pub(crate) ve_reduction_valid: u32,
}

impl Topology {
    const fn of(module: Module) -> Self {
        Self {
            x2apic_ids: added_to_tdcs(module, tdr_tdcs::X2APIC_IDS),
            configured: added_to_tdcs(module, tdr_tdcs::TOPOLOGY_ENUM_CONFIGURED),
            ve_reduction_valid: added_to_tdcs(module, tdr_tdcs::VE_REDUCTION_VALID),
        }
    }
}

/// The manifest's number; for constants alone, where a module without does not compile.
const fn import_vcpu_pages(module: Module) -> u64 {
    match module.min_vp_state_import_pages() {
        Some(pages) => pages,
        None => panic!("the manifest has no such limit"),
    }
}

const V1_5_01: Rules = Rules {
    tables: Module::V1_5_01,
    added_features: Features::from_bits(0),
    monitor_is_undefined: false,
    ve_has_category: false,
    statuses_tell_states: false,
    config_has_options: false,
    config_reserves_key_early: true,
    promote_locks_tree: false,
    demote_is_interruptible: true,
    unblock_untracked: OperandId::SEPT_TREE,
    memory_counters: None,
    topology: None,
    export_pages: ExportPages::of(Module::V1_5_01),
    import_vcpu_pages: import_vcpu_pages(Module::V1_5_01),
    lists_end_anywhere: false,
    service_td_is_plain: false,
    lists: Lists::V1_5_01,
    max_vcpus: None,
};

const V1_5_34: Rules = Rules {
    tables: Module::V1_5_34,
    added_features: Features::DYNAMIC_PAMT
        .union(Features::ENUM_TOPOLOGY)
        .union(Features::LIST_ERROR_COUNT),
    monitor_is_undefined: true,
    ve_has_category: true,
    statuses_tell_states: true,
    config_has_options: true,
    config_reserves_key_early: false,
    promote_locks_tree: true,
    demote_is_interruptible: false,
    unblock_untracked: OperandId::RCX,
    memory_counters: Some(MemoryCounters::of(Module::V1_5_34)),
    topology: Some(Topology::of(Module::V1_5_34)),
    export_pages: ExportPages::of(Module::V1_5_34),
    import_vcpu_pages: import_vcpu_pages(Module::V1_5_34),
    // `md_write_list` of its metadata_generic.c.
    lists_end_anywhere: true,
    service_td_is_plain: true,
    lists: Lists::LATER,
    max_vcpus: Some(limit(Module::V1_5_34, global::MAX_VCPUS_PER_TD) as u32),
};

const V2_0_18: Rules = Rules {
    tables: Module::V2_0_18,
    memory_counters: Some(MemoryCounters::of(Module::V2_0_18)),
    topology: Some(Topology::of(Module::V2_0_18)),
    export_pages: ExportPages::of(Module::V2_0_18),
    import_vcpu_pages: import_vcpu_pages(Module::V2_0_18),
    max_vcpus: Some(limit(Module::V2_0_18, global::MAX_VCPUS_PER_TD) as u32),
    ..V1_5_34
};

impl Rules {
    /// The rules of a release.
    pub(crate) const fn of(module: Module) -> &'static Self {
        match module {
            Module::V1_5_01 => &V1_5_01,
            Module::V1_5_34 => &V1_5_34,
            Module::V2_0_18 => &V2_0_18,
        }
    }
}
