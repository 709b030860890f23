//! Servers that several tests ask.

use std::io::{Read as _, Write as _};

use crate::bench::Bench;

/// A server that counts the words of the question as `count` does, in chats and completions.
pub(crate) struct Counting {
    runtime: tokio::runtime::Runtime,
    server: wiremock::MockServer,
}

impl Counting {
    pub(crate) fn by(count: impl Fn(&str) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::up_to(u64::MAX, count)
    }

    /// One whose model takes so many tokens at most.
    pub(crate) fn limited(count: impl Fn(&str) -> u64 + Send + Sync + 'static, most: u64) -> Self {
        Self::up_to(most, move |text| Some(count(text)))
    }

    fn up_to(most: u64, count: impl Fn(&str) -> Option<u64> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(wiremock::MockServer::start());
        let answer = move |request: &wiremock::Request| {
            let prompt = count(&question(request));
            if prompt.is_some_and(|tokens| tokens > most) {
                let message = format!(
                    "This model's maximum context length is {most} tokens. However, your request \
                     has {} input tokens. Please reduce the length of the input messages.",
                    prompt.unwrap_or_default()
                );
                let error = serde_json::json!({"error": {"message": message, "code": 400}});
                return wiremock::ResponseTemplate::new(400).set_body_json(error);
            }
            let chat = request.url.path().ends_with("/chat/completions");
            let piece = if chat { r#""delta":{"content":"a"}"# } else { r#""text":"a""# };
            let body = format!(
                "data: {{\"choices\":[{{\"index\":0,{piece},\"finish_reason\":\"stop\"}}]}}\n\n\
                 data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\
                 \"completion_tokens\":1}}}}\n\ndata: [DONE]\n\n",
                prompt.map_or("null".into(), |tokens| tokens.to_string())
            );
            // So long that a request is in flight all the time.
            wiremock::ResponseTemplate::new(200)
                .set_body_raw(body, "text/event-stream")
                .set_delay(std::time::Duration::from_millis(60))
        };
        let mock = wiremock::Mock::given(wiremock::matchers::method("POST")).respond_with(answer);
        runtime.block_on(mock.mount(&server));
        Self { runtime, server }
    }

    /// A bench that asks it prompts with these keys, and a load of them.
    pub(crate) fn bench(&self, prompt: &str, model: &str) -> Bench {
        Bench::new(&format!(
            "runs: 2\nprompts: [{{ name: long, {prompt} }}]\n\
             workloads: {{ load: {{ concurrency: 1, requests: 6, runs: 1 }} }}\n\
             models: {{ m: {{ base_url: \"{}\"{model} }} }}\n",
            self.server.uri()
        ))
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        let requests = self.runtime.block_on(self.server.received_requests()).unwrap();
        requests.iter().map(question).collect()
    }
}

pub(crate) fn question(request: &wiremock::Request) -> String {
    let body: serde_json::Value = request.body_json().unwrap();
    let text = body["prompt"].as_str().or_else(|| body["messages"][0]["content"].as_str());
    text.unwrap().to_owned()
}

pub(crate) fn counts(bench: &Bench) -> Vec<u64> {
    bench.column("prompt_tokens").iter().map(|cell| cell.parse().unwrap()).collect()
}

/// A server that puts these into the answer of each request, the second half of a piece later
/// than the first.
pub(crate) fn repeats(answer: Vec<u8>) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.set_nodelay(true);
            let _ = socket.read(&mut [0; 1 << 16]);
            for piece in answer.split_inclusive(|&byte| byte == b'7') {
                let _ = socket.write_all(piece);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    });
    address
}
