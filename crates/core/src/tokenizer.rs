//! The user's tokenizer, which counts tokens when the server does not. The feature `tokenizers`
//! reads Hugging Face's `tokenizer.json`.

use std::{fmt, io, path::Path, sync::Arc};

/// Counts the tokens of a text, or says why it cannot.
type Count = dyn Fn(&str) -> Result<u64, String> + Send + Sync;

/// A tokenizer. Counting is deterministic.
#[derive(Clone)]
pub struct Tokenizer {
    name: String,
    count: Arc<Count>,
}

/// Why a tokenizer cannot be loaded.
#[derive(Debug)]
pub enum TokenizerError {
    /// The program was built without the feature.
    NoFeature,
    /// The file cannot be read.
    File(io::Error),
    /// The file is not a tokenizer, for this reason.
    Unfit(String),
}

impl Tokenizer {
    /// Creates a tokenizer that the user calls `name` and that counts with `count`.
    pub fn new(
        name: impl Into<String>,
        count: impl Fn(&str) -> Result<u64, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), count: Arc::new(count) }
    }

    /// Loads the tokenizer in the file `path`, which the user calls `name`.
    #[cfg(feature = "tokenizers")]
    pub fn load(path: &Path, name: &str) -> Result<Self, TokenizerError> {
        let bytes = std::fs::read(path).map_err(TokenizerError::File)?;
        let unfit = |error: tokenizers::Error| TokenizerError::Unfit(error.to_string());
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(unfit)?;
        // Truncation and padding are for training and would falsify counts.
        tokenizer.with_truncation(None).map_err(unfit)?;
        tokenizer.with_padding(None);
        Ok(Self::new(name, move |text| match tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.len() as u64),
            Err(error) => Err(error.to_string()),
        }))
    }

    /// Fails: the feature `tokenizers` is off.
    #[cfg(not(feature = "tokenizers"))]
    pub fn load(_: &Path, _: &str) -> Result<Self, TokenizerError> {
        Err(TokenizerError::NoFeature)
    }

    /// Returns the user's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of tokens of `text` without special tokens, or why there is none.
    pub fn count(&self, text: &str) -> Result<u64, String> {
        (self.count)(text)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.name).finish()
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.count, &other.count)
    }
}

impl Eq for Tokenizer {}
