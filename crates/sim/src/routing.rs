//! Which answer a request to the simulated endpoint gets, by its path and its body. Pure.

use llm_stream_core::protocol::{Protocol, RequestIntent, Usage};
use serde_json::{Value, json};

use super::{batching::ServerBatch, script::WholeAnswer, wire::RequestHead};

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A completion.
    Completion,
    /// The list of models.
    Models,
    /// The health of the endpoint.
    Health,
    /// The metrics of a server with a limited capacity.
    Metrics,
    /// An unknown path or method.
    Unknown,
}

impl Route {
    /// Returns the route of a request. Paths of completions end in `completion`.
    pub(super) fn of(head: &RequestHead, completion: &str) -> Self {
        match head.method.as_str() {
            "POST" if head.path.ends_with(completion) => Self::Completion,
            "GET" if head.path.ends_with("/models") => Self::Models,
            "GET" if head.path == "/health" => Self::Health,
            "GET" if head.path == "/metrics" => Self::Metrics,
            _ => Self::Unknown,
        }
    }
}

/// Returns the protocol of a request: the variant of `protocol` without streams, if its path differs
/// and the request is for it.
pub(super) fn protocol_at(
    head: &RequestHead,
    protocol: &'static dyn Protocol,
) -> &'static dyn Protocol {
    let is_for = |whole: &&dyn Protocol| {
        whole.path() != protocol.path() && head.path.ends_with(whole.path())
    };
    protocol.unstreamed().filter(is_for).unwrap_or(protocol)
}

/// The body of the answer to [`Route::Models`].
pub(super) const MODELS: &[u8] =
    br#"{"object":"list","data":[{"id":"simulated","object":"model"}]}"#;

/// The body of the answer to [`Route::Health`].
pub(super) const HEALTH: &[u8] = br#"{"status":"ok"}"#;

/// The content type of [`metrics_body`].
pub(super) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns the body of the answer to [`Route::Metrics`], with the names of vLLM.
pub(super) fn metrics_body(batch: &ServerBatch) -> String {
    let gauge = |name: &str, help: &str, value: f64| {
        format!(
            "# HELP vllm:{name} {help}\n# TYPE vllm:{name} gauge\n\
             vllm:{name}{{model_name=\"simulated\"}} {value}\n"
        )
    };
    [
        gauge("num_requests_running", "Requests that run.", batch.running() as f64),
        gauge("num_requests_waiting", "Requests in the queue.", batch.waiting() as f64),
        gauge("kv_cache_usage_perc", "Used share of the KV cache.", batch.cache_use()),
    ]
    .concat()
}

/// Parses the body of a request for a completion. The error says why the request cannot be
/// answered.
pub(super) fn request_intent(
    body: &[u8],
    protocol: &dyn Protocol,
) -> Result<RequestIntent, &'static str> {
    let body = serde_json::from_slice(body).map_err(|_| "the body is not a JSON object")?;
    let intent = protocol.request_intent(&body);
    let has_documents = !protocol.is_streamed() || protocol.unstreamed().is_some();
    match intent.stream || has_documents {
        true => Ok(intent),
        false => Err("the simulated endpoint only streams: send \"stream\": true"),
    }
}

/// Returns the body of an answer that is not streamed, in the format of OpenAI-compatible servers
/// for every protocol: the client only has to notice that it is not a stream.
pub(super) fn whole_body(id: &str, model: &str, created: u64, whole: &WholeAnswer) -> Vec<u8> {
    let mut message = json!({"role": "assistant", "content": whole.text});
    if !whole.reasoning.is_empty() {
        message["reasoning_content"] = json!(whole.reasoning);
    }
    json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": whole.finish}],
        "usage": usage(&whole.usage),
    })
    .to_string()
    .into_bytes()
}

fn usage(usage: &Usage) -> Value {
    let mut value = json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    });
    if let Some(tokens) = usage.cached_tokens {
        value["prompt_tokens_details"] = json!({"cached_tokens": tokens});
    }
    if let Some(tokens) = usage.reasoning_tokens {
        value["completion_tokens_details"] = json!({"reasoning_tokens": tokens});
    }
    value
}

#[cfg(test)]
mod tests {
    use llm_stream_core::protocol::{OpenAiChat, TgiGenerateStream};

    use super::*;

    #[test]
    fn an_intent_is_read_from_either_kind_of_content() {
        let body = json!({
            "model": "m",
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 7,
            "messages": [
                {"role": "system", "content": "四个字符"},
                {"role": "user", "content": [{"type": "text", "text": "abc"}]},
            ],
        });
        assert_eq!(
            request_intent(body.to_string().as_bytes(), &OpenAiChat),
            Ok(RequestIntent {
                model: "m".to_owned(),
                max_tokens: Some(7),
                min_tokens: 0,
                prompt_chars: 7,
                items: None,
                stream: true,
                usage: true,
            })
        );
    }

    #[test]
    fn the_body_or_the_path_asks_for_an_answer_without_a_stream() {
        for body in ["{}", r#"{"stream":false}"#] {
            let intent = request_intent(body.as_bytes(), &OpenAiChat).expect("an intent");
            assert!(!intent.stream, "{body}");
        }
        for (path, stream) in [("/generate", false), ("/generate_stream", true)] {
            let head = RequestHead {
                method: "POST".into(),
                path: path.into(),
                body: 2,
                keep_alive: true,
                expects_continue: false,
            };
            let protocol = protocol_at(&head, &TgiGenerateStream);
            assert_eq!(Route::of(&head, protocol.path()), Route::Completion);
            assert_eq!(request_intent(b"{}", protocol).map(|intent| intent.stream), Ok(stream));
        }
    }

    #[test]
    fn a_body_that_is_not_an_object_is_refused() {
        for body in ["", "[1]", "\"x\""] {
            assert!(request_intent(body.as_bytes(), &OpenAiChat).is_err(), "{body}");
        }
    }
}
