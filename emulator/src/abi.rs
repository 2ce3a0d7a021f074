//! The parts of the ABI that most of the emulator uses, in one place.

pub(crate) use tdx_abi::leaf::SeamcallLeaf;
pub(crate) use tdx_abi::leaf::TdcallLeaf;
pub(crate) use tdx_abi::module::Module;
pub(crate) use tdx_abi::op_state::OpState;
pub(crate) use tdx_abi::operand::OperandId;
pub(crate) use tdx_abi::sept::L2SeptState;
pub(crate) use tdx_abi::sept::SeptState;
pub(crate) use tdx_abi::status::Status;
pub(crate) use tdx_abi::status::StatusCode;
