//! Protocols whose answer is a list of items instead of generated text: embeddings and reranking.
//! They are never streamed.

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    Usage,
    json::JsonTree,
    openai, unstreamed,
    wire::{self, counted},
};
use crate::framing::{Frame, Framing};

/// `POST /embeddings`, as OpenAI, vLLM, SGLang, llama.cpp and Text Embeddings Inference serve it.
///
/// <https://platform.openai.com/docs/api-reference/embeddings>
#[derive(Debug)]
pub struct OpenAiEmbeddings;

/// `POST /rerank`, as vLLM, llama.cpp, Jina and Cohere serve it.
///
/// <https://docs.vllm.ai/en/stable/serving/openai_compatible_server/#re-rank-api>
#[derive(Debug)]
pub struct Rerank;

impl Protocol for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        "openai_embeddings"
    }

    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn framing(&self) -> Framing {
        Framing::Document
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let text = wire::plain_prompt(ask);
        let input: Value = match ask.batch {
            0 | 1 => text.into(),
            // A server could notice equal texts, or cache their beginning.
            many => (1..=many).map(|nth| format!("{nth}: {text}")).collect(),
        };
        let mut body = json!({"model": ask.model, "input": input});
        wire::add_own(&mut body, ask, None);
        body
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn limits(&self) -> &'static [&'static str] {
        &[]
    }

    fn items_asked(&self, body: &Value) -> Option<u64> {
        Some(body["input"].as_array().map_or(1, |texts| texts.len() as u64))
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        let why = match key {
            _ if value.is_null() && wire::may_be_left_out(key) => return None,
            "input" => return Some("`input` is made from the prompts: use `prompts`".into()),
            "model" => return Some("`model` is set by the model's field `model_name`".into()),
            "stream" => "does not exist for embeddings, which are not streamed",
            "encoding_format" if *value != "float" && *value != "base64" => {
                "is not a format whose vectors can be checked: `float` and `base64` are"
            }
            _ => return None,
        };
        Some(format!("`{key}: {value}` {why}"))
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let items = self.items_asked(&Value::Object(body.clone())).unwrap_or_default();
        of_items(items, body.get("input").map_or(0, wire::text_chars), body)
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        _: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        unstreamed::decode(frame, |tree| {
            let vectors = || tree.get("data").items().zip(0_u64..);
            let mut parts = failure_or(tree, "data", |parts| {
                for (vector, nth) in vectors() {
                    check_vector(vector.get("embedding"), nth)?;
                }
                let index = |(vector, nth): (&JsonTree<'_>, u64)| match vector.find("index") {
                    Some(index) => index.count(),
                    None => Some(nth),
                };
                parts.push(MessagePart::Items(all_indices(vectors().map(index), "embedding")?));
                Ok(())
            })?;
            let Usage { prompt_tokens, total_tokens, cached_tokens, renamed, .. } =
                openai::usage(tree.get("usage"));
            let prompt_tokens = prompt_tokens.or(total_tokens);
            let usage =
                Usage { prompt_tokens, total_tokens, cached_tokens, renamed, ..Usage::default() };
            parts.extend(counted(usage));
            Ok(Message { id: wire::id(tree), parts })
        })
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let vector = [0.25, -0.5, 0.125, 0.75, -0.0625, 0.5, -0.25, 1.0];
        let embedding =
            |nth: u64| json!({"object": "embedding", "index": nth, "embedding": vector});
        let document = json!({
            "object": "list",
            "data": (0..items_of(&message.parts)).map(embedding).collect::<Vec<_>>(),
            "model": envelope.model,
            "usage": usage_json(&message.parts),
        });
        encoded(self, &message.parts, &document)
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

impl Protocol for Rerank {
    fn name(&self) -> &'static str {
        "rerank"
    }

    fn path(&self) -> &'static str {
        "/rerank"
    }

    fn framing(&self) -> Framing {
        Framing::Document
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let query = wire::plain_prompt(ask);
        let mut body = json!({"model": ask.model, "query": query, "documents": ask.documents});
        wire::add_own(&mut body, ask, None);
        body
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn limits(&self) -> &'static [&'static str] {
        &[]
    }

    fn takes_documents(&self) -> bool {
        true
    }

    fn items_asked(&self, body: &Value) -> Option<u64> {
        Some(body["documents"].as_array().map_or(0, |documents| documents.len() as u64))
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        let why = match key {
            "query" | "documents" => {
                return Some(format!("`{key}` is made from the prompts: use `prompts`"));
            }
            _ if value.is_null() && wire::may_be_left_out(key) => return None,
            "model" => return Some("`model` is set by the model's field `model_name`".into()),
            "stream" => "does not exist for reranking, which is not streamed",
            "top_n" => "would leave documents out of the answer, so that nobody knows their scores",
            _ => return None,
        };
        Some(format!("`{key}: {value}` {why}"))
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let chars = |key| body.get(key).map_or(0, wire::text_chars);
        let items = self.items_asked(&Value::Object(body.clone())).unwrap_or_default();
        of_items(items, chars("query") + chars("documents"), body)
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        _: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        unstreamed::decode(frame, |tree| {
            let mut parts = failure_or(tree, "results", |parts| {
                let results = || tree.get("results").items();
                for result in results() {
                    if !matches!(result.get("relevance_score"), JsonTree::Number(_)) {
                        let score = result.get("relevance_score").written();
                        let what = format!("a `relevance_score` is not a number: {score}");
                        return Err(DecodeError(what));
                    }
                }
                let index = |result: &JsonTree<'_>| result.get("index").count();
                parts.push(MessagePart::Items(all_indices(results().map(index), "document")?));
                Ok(())
            })?;
            parts.extend(counted(rerank_usage(tree)));
            Ok(Message { id: wire::id(tree), parts })
        })
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        // The most relevant document comes first: here, the last one.
        let count = items_of(&message.parts);
        let result = |nth: u64| {
            let score = (nth + 1) as f64 / (count + 1) as f64;
            json!({"index": nth, "relevance_score": score})
        };
        let document = json!({
            "id": message.id,
            "model": envelope.model,
            "results": (0..count).rev().map(result).collect::<Vec<_>>(),
            "usage": usage_json(&message.parts),
        });
        encoded(self, &message.parts, &document)
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

// -- from the server ------------------------------------------------------------------------------

/// Returns the error in `tree` or, without one, what `read` finds in its list `field`.
fn failure_or<'a>(
    tree: &JsonTree<'a>,
    field: &str,
    read: impl Fn(&mut Vec<MessagePart<'a>>) -> Result<(), DecodeError>,
) -> Result<Vec<MessagePart<'a>>, DecodeError> {
    let list = tree.get(field);
    let mut parts: Vec<_> = wire::error(tree, "", !list.is_empty()).into_iter().collect();
    match list {
        _ if !parts.is_empty() => {}
        JsonTree::List(_) => read(&mut parts)?,
        _ => {
            let what = format!("the answer has no list `{field}`: {}", tree.written());
            return Err(DecodeError(what));
        }
    }
    Ok(parts)
}

/// Returns the number of `indices`, if each whole number up to it occurs once.
fn all_indices(indices: impl Iterator<Item = Option<u64>>, what: &str) -> Result<u64, DecodeError> {
    let indices: Vec<_> = indices.collect();
    let mut seen = vec![false; indices.len()];
    for index in &indices {
        let place = index.and_then(|index| usize::try_from(index).ok());
        match place.and_then(|place| seen.get_mut(place)) {
            Some(seen) if !*seen => *seen = true,
            found => {
                let index = index.map_or_else(|| "missing".into(), |index| index.to_string());
                let why = match found {
                    Some(_) => format!("the index {index} occurs twice"),
                    None => format!("an index is {index}, with {} results", indices.len()),
                };
                return Err(DecodeError(format!(
                    "the answer does not have each {what} once: {why}"
                )));
            }
        }
    }
    Ok(indices.len() as u64)
}

/// Fails unless `vector` has numbers, all finite.
fn check_vector(vector: &JsonTree<'_>, nth: u64) -> Result<(), DecodeError> {
    let invalid = |why: &str| Err(DecodeError(format!("embedding {nth} {why}")));
    match vector {
        JsonTree::List(numbers) if numbers.is_empty() => invalid("is empty"),
        JsonTree::List(numbers) => {
            match numbers.iter().all(|number| matches!(number, JsonTree::Number(_))) {
                true => Ok(()),
                false => invalid("has values that are not finite numbers"),
            }
        }
        JsonTree::Text(base64) => match floats(base64.as_bytes()) {
            None => invalid("is not base64 of 32-bit numbers"),
            Some(numbers) if numbers.is_empty() => invalid("is empty"),
            Some(numbers) if numbers.iter().all(|number| number.is_finite()) => Ok(()),
            Some(_) => invalid("has values that are not finite numbers"),
        },
        _ => invalid("is not a list of numbers"),
    }
}

/// Decodes base64 of little-endian 32-bit numbers.
fn floats(base64: &[u8]) -> Option<Vec<f32>> {
    let digits = base64.strip_suffix(b"==").or_else(|| base64.strip_suffix(b"="));
    let digits = digits.unwrap_or(base64);
    let (mut bits, mut held) = (0_u32, 0);
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

/// Reads the counts of reranking. vLLM and Jina count all tokens in the total, Cohere has other
/// names.
fn rerank_usage(tree: &JsonTree<'_>) -> Usage {
    let Usage { prompt_tokens, total_tokens, renamed, .. } = openai::usage(tree.get("usage"));
    let cohere = || tree.get("meta").get("tokens").get("input_tokens").count();
    let prompt_tokens = prompt_tokens.or(total_tokens).or_else(cohere);
    Usage { prompt_tokens, total_tokens, renamed, ..Usage::default() }
}

// -- to the server, and from the simulated one ----------------------------------------------------

/// Returns the intent of a request for `items`. The simulated endpoint takes the time of one token
/// for each.
fn of_items(items: u64, prompt_chars: u64, body: &Map<String, Value>) -> RequestIntent {
    RequestIntent {
        max_tokens: Some(items),
        min_tokens: items,
        prompt_chars,
        items: Some(items),
        stream: false,
        ..RequestIntent::of(body)
    }
}

fn items_of(parts: &[MessagePart<'_>]) -> u64 {
    let items = parts.iter().find_map(|part| match part {
        MessagePart::Items(items) => Some(*items),
        _ => None,
    });
    items.unwrap_or_default()
}

fn usage_json(parts: &[MessagePart<'_>]) -> Option<Value> {
    let tokens = wire::usage_of(parts)?.prompt_tokens;
    Some(json!({"prompt_tokens": tokens, "total_tokens": tokens}))
}

/// Returns the body: the first error, or `document`.
fn encoded(protocol: &dyn Protocol, parts: &[MessagePart<'_>], document: &Value) -> Vec<u8> {
    match wire::errors_of(parts).next() {
        Some(error) => protocol.encode_error(500, error),
        None => document.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_little_endian_floats() {
        assert_eq!(floats(b"AACAPwAAAMA="), Some(vec![1.0, -2.0]));
        assert_eq!(floats(b"AACAPw=="), Some(vec![1.0]));
        assert_eq!(floats(b""), Some(vec![]));
        assert!(floats(b"AADAfw==").is_some_and(|numbers| numbers[0].is_nan()));
        for bad in ["AACA", "AA*APw==", "not base64"] {
            assert_eq!(floats(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn each_index_occurs_once() {
        let of =
            |indices: &[u64]| all_indices(indices.iter().map(|index| Some(*index)), "document");
        assert_eq!(of(&[2, 0, 1]), Ok(3));
        assert_eq!(of(&[]), Ok(0));
        let twice = of(&[1, 1, 0]).unwrap_err().0;
        assert_eq!(twice, "the answer does not have each document once: the index 1 occurs twice");
        assert!(of(&[0, 2]).unwrap_err().0.ends_with("an index is 2, with 2 results"));
        assert!(all_indices([None].into_iter(), "document").is_err());
    }
}
