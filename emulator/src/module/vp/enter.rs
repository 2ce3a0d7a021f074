//! TDH.VP.ENTER

use super::super::Call;
use super::super::Outcome;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;

/// TDH.VP.ENTER
pub(crate) fn enter(_call: &mut Call<'_>) -> Outcome {
    Err(Status::with_operand(
        StatusCode::OPERAND_INVALID,
        OperandId::RAX,
    ))
}
