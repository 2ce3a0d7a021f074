use super::TdvfError;

/// The image, read with bounds checked.
pub(super) struct Bytes<'i>(pub(super) &'i [u8]);

impl<'i> Bytes<'i> {
    pub(super) fn slice(
        &self,
        what: &'static str,
        offset: usize,
        len: usize,
    ) -> Result<&'i [u8], TdvfError> {
        let end = offset.checked_add(len);
        end.and_then(|end| self.0.get(offset..end))
            .ok_or(TdvfError::Outside {
                what,
                offset: offset as u64,
                len: len as u64,
                size: self.0.len(),
            })
    }

    pub(super) fn u32(&self, what: &'static str, offset: usize) -> Result<u32, TdvfError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.slice(what, offset, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn u64(&self, what: &'static str, offset: usize) -> Result<u64, TdvfError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.slice(what, offset, 8)?);
        Ok(u64::from_le_bytes(bytes))
    }
}
