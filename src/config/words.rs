//! The words of keys whose value is one of a few words.

use llm_stream_client::{connect_options::Stamps, options::ConnectionMode};
use llm_stream_core::{
    lengths::LengthDistribution, protocol::TokenKind, sample::TokenCount, trace::TraceFormat,
};

use super::{Inconclusive, Order, PrefixCache, TransportSetting, lengths::MakeDistribution};

/// `transport`.
pub(super) const TRANSPORTS: [(&str, TransportSetting); 3] = [
    ("auto", TransportSetting::Auto),
    ("stamped", TransportSetting::Stamped),
    ("reqwest", TransportSetting::Reqwest),
];

/// `stamps`.
pub(super) const STAMPS: [(&str, Stamps); 3] =
    [("auto", Stamps::Auto), ("packets", Stamps::Packets), ("socket", Stamps::Socket)];

/// `connection`.
pub(super) const CONNECTIONS: [(&str, ConnectionMode); 2] =
    [("warm", ConnectionMode::Warm), ("cold", ConnectionMode::Cold)];

/// `prefix_cache`.
pub(super) const PREFIX_CACHES: [(&str, PrefixCache); 2] =
    [("fresh", PrefixCache::Fresh), ("reuse", PrefixCache::Reuse)];

/// `inconclusive`.
pub(super) const INCONCLUSIVE: [(&str, Inconclusive); 3] =
    [("warn", Inconclusive::Warn), ("pass", Inconclusive::Pass), ("fail", Inconclusive::Fail)];

/// `order` without a seed.
pub(super) const ORDERS: [(&str, Order); 3] = [
    ("interleaved", Order::Interleaved(0)),
    ("as-listed", Order::AsListed),
    ("shuffled", Order::Shuffled(0)),
];

/// `token_count` without a tokenizer.
pub(super) const TOKEN_COUNTS: [(&str, TokenCount); 2] =
    [("usage", TokenCount::Usage), ("chunks", TokenCount::Chunks)];

/// `distribution` of a range of lengths; some need a mean and a standard deviation.
pub(super) const DISTRIBUTIONS: [(&str, Option<MakeDistribution>); 3] = [
    ("uniform", None),
    ("normal", Some(|mean, sd| LengthDistribution::Normal { mean, sd })),
    ("lognormal", Some(|mean, sd| LengthDistribution::LogNormal { mean, sd })),
];

/// `format` of a trace.
pub(super) const TRACE_FORMATS: [(&str, TraceFormat); 3] = [
    ("mooncake", TraceFormat::Mooncake),
    ("bailian", TraceFormat::Bailian),
    ("bodies", TraceFormat::Bodies),
];

/// The kinds of text in `text_fields`.
pub(super) const TOKEN_KINDS: [(&str, TokenKind); 2] =
    [("answer", TokenKind::Answer), ("reasoning", TokenKind::Reasoning)];

/// The words of `pairs`.
pub(super) fn names<T>(pairs: &[(&'static str, T)]) -> Vec<&'static str> {
    pairs.iter().map(|(word, _)| *word).collect()
}

/// The value of `word` in `pairs`.
pub(super) fn value_of<T: Clone>(word: &str, pairs: &[(&str, T)]) -> Option<T> {
    pairs.iter().find(|(name, _)| *name == word).map(|(_, value)| value.clone())
}
