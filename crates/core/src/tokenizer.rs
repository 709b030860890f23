//! A tokenizer of the user's own: Hugging Face's `tokenizer.json`, read with the feature `tokenizers`.

use std::{fmt, io, path::Path, sync::Arc};

/// The tokens of a text, or why they cannot be counted.
type Count = dyn Fn(&str) -> Result<u64, String> + Send + Sync;

/// What counts the tokens of an answer where the server does not. The same text has the same count
/// for ever.
#[derive(Clone)]
pub struct Tokenizer {
    name: String,
    count: Arc<Count>,
}

/// Why there is no tokenizer.
#[derive(Debug)]
pub enum TokenizerError {
    /// There is nothing here that reads one.
    NoFeature,
    /// The file cannot be read.
    File(io::Error),
    /// It is something else, for this reason.
    Unfit(String),
}

impl Tokenizer {
    /// The tokenizer that is called `name` and counts by `count`.
    pub fn new(
        name: impl Into<String>,
        count: impl Fn(&str) -> Result<u64, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), count: Arc::new(count) }
    }

    /// The one in the file `path`, which the user calls `name`.
    #[cfg(feature = "tokenizers")]
    pub fn load(path: &Path, name: &str) -> Result<Self, TokenizerError> {
        let bytes = std::fs::read(path).map_err(TokenizerError::File)?;
        let unfit = |error: tokenizers::Error| TokenizerError::Unfit(error.to_string());
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(unfit)?;
        // What is cut or filled up for training is no count.
        tokenizer.with_truncation(None).map_err(unfit)?;
        tokenizer.with_padding(None);
        Ok(Self::new(name, move |text| match tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.len() as u64),
            Err(error) => Err(error.to_string()),
        }))
    }

    /// None.
    #[cfg(not(feature = "tokenizers"))]
    pub fn load(_: &Path, _: &str) -> Result<Self, TokenizerError> {
        Err(TokenizerError::NoFeature)
    }

    /// What the user calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tokens of `text`, without those that stand around a text, or why there is no count.
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
