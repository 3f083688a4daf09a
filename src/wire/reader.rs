//! Checked reading of a message body: every access says whether the bytes were there.

/// A body that ends before its content does, or holds what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message body")]
pub struct Malformed;

/// A cursor over the body of one exactly split message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `body` from its start.
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    ///
    /// # Errors
    /// The body has ended.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    /// A big-endian 32-bit integer.
    ///
    /// # Errors
    /// The body has ended.
    pub fn int32(&mut self) -> Result<i32, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// A big-endian 16-bit unsigned integer.
    ///
    /// # Errors
    /// The body has ended.
    pub fn uint16(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<2>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// So many bytes.
    ///
    /// # Errors
    /// The body has ended.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A string that ends with a zero byte, without it.
    ///
    /// # Errors
    /// There is no zero byte.
    pub fn cstring(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Malformed)?;
        let (string, rest) = self.0.split_at_checked(end).ok_or(Malformed)?;
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(string)
    }
}
