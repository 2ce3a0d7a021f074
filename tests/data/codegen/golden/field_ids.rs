/// Ids of the fields of TDR_TDCS.
pub mod tdr_tdcs {
    use crate::field::FieldId;
    /// NUM_TDCX.
    pub const NUM_TDCX: FieldId = FieldId::from_bits(0x8010000200000002);
    /// Guest CR0.
    pub const GUEST_CR0: FieldId = FieldId::from_bits(0x8010000200000005);
}
