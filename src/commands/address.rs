//! The URL on the command line: its base URL, and the protocol that its path names.

use llm_stream_core::protocol::{self, OpenAiChat, Protocol};

/// Paths that users copy from a browser or another tool, and the protocol that they name.
const OTHER_PATHS: &[(&str, Option<&str>)] = &[
    ("/models", None),
    ("/health", None),
    ("/metrics", None),
    ("/docs", None),
    ("/api/tags", Some("ollama_chat")),
    ("/api/generate", Some("ollama_chat")),
    ("/api", Some("ollama_chat")),
    ("/props", Some("llamacpp_completion")),
    ("/info", Some("tgi_generate_stream")),
    ("/generate", Some("tgi_generate_stream")),
];

/// A URL from the command line, split into base URL and known path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The URL without the path of a protocol.
    base: String,
    /// The path that was removed.
    pub(super) removed: Option<&'static str>,
    /// The protocol that the path names.
    protocol: Option<&'static str>,
}

impl Address {
    /// Reads `url`. A query stays, for the config to refuse.
    pub(super) fn of(url: &str) -> Self {
        let whole = url.trim_end_matches('/');
        let untouched = |protocol| Self { base: url.to_owned(), removed: None, protocol };
        let (start, path) = path_of(whole);
        if path.contains(['?', '#']) {
            return untouched(None);
        }
        let Some((end, protocol)) = known_end(path) else { return untouched(None) };
        // Right after the host it is the complete path of requests, without `/v1`.
        let is_whole = |of: &&'static str| {
            let of = protocol::by_name(of);
            of.is_some_and(|of| of.path() == path && !of.prefix().is_empty())
        };
        if let Some(protocol) = protocol.filter(is_whole) {
            return untouched(Some(protocol));
        }
        let base = format!("{start}{}", &path[..path.len() - end.len()]);
        Self { base: trimmed(&base), removed: Some(end), protocol }
    }

    /// The protocol that the path names.
    pub(super) fn protocol(&self) -> Option<&'static dyn Protocol> {
        protocol::by_name(self.protocol?)
    }

    /// The base URL for `protocol`. A `/v1` at the end belongs to OpenAI's and Anthropic's only.
    pub(super) fn base_url(&self, protocol: &dyn Protocol) -> String {
        let v1 = OpenAiChat.prefix();
        match self.base.trim_end_matches('/').strip_suffix(v1) {
            Some(root) if protocol.prefix() != v1 => trimmed(root),
            _ => self.base.clone(),
        }
    }
}

/// Removes the separator of a path from the end of a URL.
fn trimmed(base: &str) -> String {
    base.trim_end_matches('/').trim_end_matches(':').to_owned()
}

/// Splits `url` where its path begins; the path of `unix:///run/x.sock:/v1` follows the colon.
fn path_of(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |at| at + "://".len());
    let is_socket = url.get(..host).is_some_and(|it| it.eq_ignore_ascii_case("unix://"));
    let path = match is_socket {
        true => url[host..].find(":/").map(|at| at + 1),
        false => url[host..].find('/'),
    };
    url.split_at(path.map_or(url.len(), |at| host + at))
}

/// Finds the longest known path at the end of `path`, and its protocol.
fn known_end(path: &str) -> Option<(&'static str, Option<&'static str>)> {
    let protocols = protocol::ALL.iter().map(|of| (of.path(), Some(of.name())));
    let ends = protocols.chain(OTHER_PATHS.iter().copied());
    ends.filter(|(end, _)| path.ends_with(end)).max_by_key(|(end, _)| end.len())
}

#[cfg(test)]
mod tests {
    use llm_stream_core::protocol::OllamaChat;

    use super::*;

    #[test]
    fn the_path_of_a_protocol_is_removed_and_names_it() {
        let cases = [
            ("http://h:8000", "http://h:8000", None),
            ("http://h:8000/", "http://h:8000/", None),
            ("http://h:8000/v1", "http://h:8000/v1", None),
            ("http://h/v1/models", "http://h/v1", None),
            ("http://h/v1/chat/completions", "http://h/v1", Some("openai_chat")),
            ("http://h/v1/completions/", "http://h/v1", Some("openai_completions")),
            ("https://h/v1/messages", "https://h/v1", Some("anthropic_messages")),
            ("http://h:11434/api/tags", "http://h:11434", Some("ollama_chat")),
            ("http://h/completion", "http://h", Some("llamacpp_completion")),
            ("https://h/chat/completions", "https://h/chat/completions", Some("openai_chat")),
            ("https://h/v1?x=/v1/models", "https://h/v1?x=/v1/models", None),
            ("unix:///run/x.sock", "unix:///run/x.sock", None),
            ("unix:///run/x.sock:/v1", "unix:///run/x.sock:/v1", None),
            ("unix:///run/x.sock:/api/chat", "unix:///run/x.sock", Some("ollama_chat")),
        ];
        for (url, base, protocol) in cases {
            let address = Address::of(url);
            assert_eq!((address.base.as_str(), address.protocol), (base, protocol), "{url}");
        }
    }

    #[test]
    fn v1_belongs_to_the_protocols_that_have_it() {
        let of = |url, protocol| Address::of(url).base_url(protocol);
        assert_eq!(of("http://h/v1", &OpenAiChat), "http://h/v1");
        assert_eq!(of("http://h/v1/", &OllamaChat), "http://h");
        assert_eq!(of("unix:///x.sock:/v1", &OllamaChat), "unix:///x.sock");
    }
}
