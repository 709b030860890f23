//! Documents that are refused: one snapshot per topic, which lists each document and its errors.

use super::*;

/// One test and one snapshot per topic. A document that is accepted fails the test.
macro_rules! refused {
    ($($(#[$meta:meta])* $topic:ident { $($name:ident => $text:expr,)+ })+) => {$(
        $(#[$meta])*
        #[test]
        fn $topic() {
            let cases = [$((stringify!($name).replace('_', " "), rendered_case(&$text))),+];
            insta::assert_snapshot!(stringify!($topic), crate::bench::table(&cases));
        }
    )+};
}

/// A document and its errors, as a snapshot shows them.
fn rendered_case(text: &str) -> String {
    let document = if text.is_empty() { "(nothing)\n" } else { text };
    let end = if document.ends_with('\n') { "" } else { "\n" };
    format!("{document}{end}---------- is refused:\n{}\n", rendered(text))
}

/// A config with a workload of these keys.
pub(super) fn workload(lines: &str) -> String {
    top(&format!("workloads:\n  load: {lines}"))
}

refused! {
    invalid_yaml {
        a_tab_in_the_indentation => "models:\n\tm:\n\t\tport: 1\n",
        an_unclosed_quote => "models:\n  m:\n    base_url: \"http://localhost\n    port: 8000\n",
        an_unclosed_bracket => "models: { m: { base_url: http://localhost }\nruns: 3\n",
        a_colon_in_plain_text => "models:\n  m:\n    name: Qwen: the big one\n",
        keys_at_two_indentations => "models:\n  m:\n    base_url: \"http://localhost\"\n   port: 8000\n",
        a_key_without_a_colon => model("port 8000\nname: x"),
        a_colon_without_a_blank => model("port:8000\nname: x"),
        a_percent_sign_at_the_start => "thresholds:\n  - %success\n",
        a_backslash_in_double_quotes => model("name: \"C:\\models\\q\""),
        an_unknown_anchor => "models:\n  m: *base\n",
        two_documents => "models:\n  m: { simulate: {} }\n---\nruns: 3\n",
        a_merge_of_no_map => model("<<: 3"),
        an_alias_within_itself => "models: &m\n  m: *m\n",
        wide_characters_before_a_mistake => "models:\n  模型甲: { name: 千问：大, base_url: b: c }\n",
        a_secret_near_bad_yaml => model("headers:\n  x-team: 'hunter2\nport: 1"),
        a_key_near_bad_yaml => model("api_key: \"sk-proj-0123456789abcdef"),
    }

    documents {
        empty => "",
        only_comments => "# models:\n#   m: {}\n",
        a_word => "models\n",
        a_list => "- m\n- n\n",
        no_models => "runs: 3\n",
        misspelt_models => "model:\n  m: { simulate: {} }\n",
        models_without_value => "models:\nruns: 3\n",
        models_empty => "models: {}\n",
        models_as_a_list => "models:\n  - name: m\n    base_url: \"http://localhost\"\n",
        models_as_text => "models: Qwen\n",
        a_model_without_value => "models:\n  m:\n  n: { simulate: {} }\n",
        a_model_as_text => "models:\n  m: http://localhost:8000\n",
        a_number_as_a_models_name => "models:\n  7: { simulate: {} }\n",
        a_list_as_a_models_name => "models:\n  [a]: { simulate: {} }\n",
        an_empty_name_of_a_model => "models:\n  \"\": { simulate: {} }\n",
        a_model_twice => "models:\n  m: { simulate: {} }\n  n: { simulate: {} }\n  m: { base_url: \"http://localhost\" }\n",
        a_key_twice => model("port: 1\nport: 2"),
        runs_with_a_fraction => top("runs: 2.5"),
        runs_zero => top("runs: 0"),
        runs_too_many => top("runs: 10001"),
        runs_in_quotes => top("runs: \"3\""),
        runs_without_value => top("runs:"),
        runs_in_a_model => model("runs: 3"),
        temperature_at_the_top => top("temperature: 0"),
        port_in_defaults => top("defaults: { port: 80 }"),
        defaults_as_a_list => top("defaults: [temperature]"),
        thresholds_as_text => top("thresholds: ttft <= 500 ms"),
        a_threshold_as_a_number => top("thresholds: [80]"),
        a_threshold_without_value => top("thresholds:\n  -\n"),
        several_mistakes_at_once => "\
models:
  Qwen/Qwen3-30B:
    base_url: \"10.180.116.2\"
    modelname: \"Qwen3\"
    port: \"6384\"
  Llama:
    temperature: hot
    base_url: \"http://localhost:8000\"
run: 3
",
    }

    keys {
        near => model("modelname: \"Qwen3\""),
        other_case => model("maxTokens: 3"),
        a_synonym => "models:\n  m:\n    url: \"http://localhost\"\n",
        a_field_of_the_body => model("top_p: 0.9"),
        of_another_section => model("ttft: 50ms"),
        far => model("colour: blue"),
        far_in_timeouts => model("timeouts: { read: 3s }"),
        far_in_a_prompt => top("prompts: [{ name: a, text: b, colour: c }]"),
        a_key_in_the_file => model("api_key: \"sk-proj-0123456789abcdef\""),
        headers_misspelt => model("header: { x-team: \"hunter2\" }"),
        after_tabs_and_wide_characters => "models: {\t模型: { simulate: {},\t\tnaem: 甲 } }\n",
        in_a_long_line => model(&format!("extra_body: {{ a: \"{}\" }}", "é".repeat(200)).replace(" }", ", b: .nan, c: \"and so on, and so on, and so on, and so on, and so on\" }")),
    }

    endpoints {
        neither => "models:\n  m:\n    port: 8000\n",
        both => model("simulate: {}"),
        without_scheme => "models:\n  m:\n    base_url: \"10.180.116.2\"\n",
        with_half_a_scheme => "models:\n  m:\n    base_url: http:/localhost:8000\n",
        with_another_scheme => "models:\n  m:\n    base_url: \"ws://localhost:8000\"\n",
        with_a_password => "models:\n  m:\n    base_url: \"https://me:hunter2@localhost\"\n",
        with_a_variable => "models:\n  m:\n    base_url: \"https://${HOST}/v1\"\n",
        with_a_query => "models:\n  m:\n    base_url: \"https://localhost/v1?key=hunter2\"\n",
        with_a_fragment => "models:\n  m:\n    base_url: \"https://localhost/v1#x\"\n",
        without_host => "models:\n  m:\n    base_url: \"http://\"\n",
        with_a_blank => "models:\n  m:\n    base_url: \"http://local host\"\n",
        with_a_bad_port => "models:\n  m:\n    base_url: \"http://localhost:99999\"\n",
        with_the_whole_path => "models:\n  m:\n    base_url: \"http://localhost:8000/v1/chat/completions\"\n",
        url_empty => "models:\n  m:\n    base_url: \"\"\n",
        url_without_value => "models:\n  m:\n    base_url:\n    port: 1\n",
        a_socket_without_a_path => "models:\n  m:\n    base_url: \"unix://\"\n",
        a_socket_by_a_relative_path => "models:\n  m:\n    base_url: \"unix:x.sock\"\n",
        a_socket_with_two_slashes => "models:\n  m:\n    base_url: \"unix://run/x.sock\"\n",
        a_socket_with_one_slash => "models:\n  m:\n    base_url: \"unix:/run/x.sock\"\n",
        a_socket_as_nginx_has_it => "models:\n  m:\n    base_url: \"http://unix:/run/x.sock:/v1\"\n",
        a_socket_with_a_port => "models:\n  m:\n    base_url: \"unix:///run/x.sock\"\n    port: 8000\n",
        a_socket_with_a_proxy => "models:\n  m:\n    base_url: \"unix:///run/x.sock\"\n    proxy: \"http://localhost:3128\"\n",
        a_socket_with_the_whole_path => "models:\n  m:\n    base_url: \"unix:///run/x.sock:/v1/chat/completions\"\n",
        a_socket_with_a_query => "models:\n  m:\n    base_url: \"unix:///run/x.sock:/v1?key=hunter2\"\n",
        a_socket_with_a_long_path => &format!("models:\n  m:\n    base_url: \"unix:///run/{}\"\n", "x".repeat(120)),
        two_ports => model("port: 8001"),
        port_zero => "models: { m: { base_url: \"http://localhost\", port: 0 } }\n",
        port_too_large => "models: { m: { base_url: \"http://localhost\", port: 65536 } }\n",
        port_in_quotes => "models: { m: { base_url: \"http://localhost\", port: \"6384\" } }\n",
        port_as_a_word => "models: { m: { base_url: \"http://localhost\", port: abc } }\n",
        port_without_value => "models: { m: { base_url: \"http://localhost\", port: } }\n",
        port_beside_simulate => "models: { m: { simulate: {}, port: 80 } }\n",
        simulate_without_value => "models: { m: { simulate: } }\n",
        simulate_as_a_word => "models: { m: { simulate: true } }\n",
    }

    settings {
        name_as_a_number => model("name: 1.10"),
        name_empty => model("name: \"\""),
        model_name_as_a_list => model("model_name: [a]"),
        temperature_too_high => model("temperature: 2.5"),
        temperature_negative => model("temperature: -0.1"),
        temperature_not_a_number => model("temperature: .nan"),
        temperature_in_quotes => model("temperature: \"0.7\""),
        max_tokens_zero => model("max_tokens: 0"),
        max_tokens_with_a_fraction => model("max_tokens: 10.5"),
        extra_body_as_a_list => model("extra_body: [top_p]"),
        extra_body_with_infinity => model("extra_body: { a: [.inf] }"),
        extra_body_with_a_key_twice => model("extra_body: { a: { b: 1, b: 2 } }"),
        extra_body_with_a_list_as_key => model("extra_body: { [a]: 1 }"),
        a_key_for_a_variable => model("api_key_env: sk-proj-0123456789abcdef"),
        a_key_of_letters_only => model("api_key_env: 0123456789abcdef0123456789abcdef"),
        a_variable_with_a_dollar => model("api_key_env: ${OPENAI_API_KEY}"),
        a_variable_with_a_blank => model("api_key_env: MY KEY"),
        headers_as_a_list => model("headers: [x-team]"),
        header_with_a_bad_name => model("headers: { \"x team\": \"hunter2\" }"),
        header_with_a_bad_value => model("headers: { x-team: \"hunter\\n2\" }"),
        header_with_a_number => model("headers: { x-team: 123456 }"),
        header_twice => model("headers:\n  x-team: \"hunter2\"\n  X-Team: \"hunter3\""),
        header_authorization => model("headers: { Authorization: \"Bearer hunter2\" }"),
        header_host => model("headers: { host: \"hunter2\" }"),
        header_accept_encoding => model("headers: { accept-encoding: gzip }"),
        header_with_an_open_variable => model("headers: { x-team: \"${TEAM\" }"),
        header_with_a_key_for_a_variable => model("headers: { x-team: \"${sk-hunter2-hunter2}\" }"),
        query_as_text => model("query: \"api-version=1\""),
        query_with_a_number => model("query: { api-version: 3 }"),
        proxy_as_a_word => model("proxy: off"),
        proxy_socks => model("proxy: \"socks5://me:hunter2@localhost:1080\""),
        ca_file_missing => model("ca_file: certs/none.pem"),
        ca_file_is_a_folder => model("ca_file: prompts"),
        ca_file_without_pem => model("ca_file: configs.yaml"),
        ca_file_pasted => model("ca_file: |\n  -----BEGIN CERTIFICATE-----\n  hunter2"),
        client_key_alone => model("client_key: configs.yaml"),
        client_cert_without_pem => model("client_cert: configs.yaml"),
        client_key_pasted => model("client_cert: configs.yaml\nclient_key: \"-----BEGIN PRIVATE KEY----- hunter2\""),
        insecure_tls_as_text => model("insecure_tls: \"yes\""),
        verify_ssl => model("verify_ssl: false"),
        protocol_near => model("protocol: openai-chat"),
        protocol_far => model("protocol: grpc"),
        token_count_near => model("token_count: chunk"),
        token_count_far => model("token_count: tiktoken"),
        token_count_without_tokenizer => model("token_count: {}"),
        token_count_tokenizer_as_a_list => model("token_count: { tokenizer: [a] }"),
        metrics_url_scheme => model("metrics_url: localhost:8000/metrics"),
        metrics_url_user => model("metrics_url: http://me:secret@localhost/metrics"),
        power_url_auto => model("power_url: auto"),
        power_url_user => model("power_url: http://me:secret@localhost/metrics"),
        power_url_query => model("power_url: \"http://localhost:9400/metrics?key=secret\""),
        gpus_zero => model("gpus: 0"),
        cost_per_hour_with_a_currency => model("cost_per_hour: 23.9 USD"),
        timeouts_as_a_duration => model("timeouts: 30s"),
        timeout_without_unit => model("timeouts: { total: 30 }"),
        timeout_in_quotes_without_unit => model("timeouts: { total: \"30\" }"),
        timeout_zero => model("timeouts: { total: 0s }"),
        timeout_negative => model("timeouts: { total: -3s }"),
        timeout_too_long => model("timeouts: { total: 25h }"),
        timeout_with_an_unknown_unit => model("timeouts: { total: 3 parsecs }"),
        timeout_as_a_list => model("timeouts: { total: [3s] }"),
    }

    #[cfg(not(feature = "tokenizers"))]
    without_tokenizers {
        a_tokenizer => model("token_count: { tokenizer: tokenizer.json }"),
    }

    rhythms {
        ttft_without_unit => simulated("ttft: 500"),
        itl_with_a_fraction_without_unit => simulated("itl: 11.5"),
        jitter_longer_than_itl => simulated("itl: 10ms\njitter: 11ms"),
        jitter_longer_than_ttft => simulated("ttft: 5ms\njitter: 8ms"),
        jitter_beside_no_itl => simulated("itl: 0\njitter: 1us"),
        tokens_zero => simulated("tokens: 0"),
        tokens_too_many => simulated("tokens: 1000001"),
        tokens_negative => simulated("tokens: -1"),
        tokens_per_event_zero => simulated("tokens_per_event: 0"),
        more_reasoning_than_tokens => simulated("tokens: 8\nreasoning_tokens: 9"),
        faults_as_a_map => simulated("faults: { stall: 10 }"),
        fault_unknown => simulated("faults: [explode]"),
        fault_near => simulated("faults: [missing-usage]"),
        fault_in_a_map_unknown => simulated("faults:\n  - stal: 10"),
        fault_without_number => simulated("faults: [stall]"),
        fault_without_value => simulated("faults:\n  - stall:"),
        fault_with_an_ok_status => simulated("faults: [status: 200]"),
        fault_split_zero => simulated("faults: [split: 0]"),
        fault_flag_false => simulated("faults: [{ missing_usage: false }]"),
        fault_of_request_zero => simulated("faults: [{ reset: 10, request: 0 }]"),
        fault_without_a_kind => simulated("faults: [{ request: 2 }]"),
        two_faults_in_one => simulated("faults: [{ reset: 10, stall: 3 }]"),
    }

    prompts {
        prompts_empty => top("prompts: []"),
        prompts_without_value => top("prompts:"),
        prompts_as_a_map => top("prompts: { name: a, text: b }"),
        prompt_as_text => top("prompts:\n  - Say hello."),
        prompt_without_name => top("prompts: [{ text: b }]"),
        prompt_without_text => top("prompts: [{ name: a }]"),
        prompt_with_both => top("prompts: [{ name: a, text: b, file: prompts/a-hello.txt }]"),
        prompt_with_a_blank_name => top("prompts: [{ name: \" \", text: b }]"),
        prompt_with_blank_text => top("prompts: [{ name: a, text: \" \" }]"),
        prompt_with_empty_system => top("prompts: [{ name: a, text: b, system: \"\" }]"),
        prompt_file_missing => top("prompts: [{ name: a, file: prompts/hello.txt }]"),
        prompt_file_blank => top("prompts: [{ name: a, file: blank.txt }]"),
        prompt_file_not_utf8 => top("prompts: [{ name: a, file: latin1.txt }]"),
        prompt_file_a_folder => top("prompts: [{ name: a, file: prompts }]"),
        folder_missing => top("prompts: promts"),
        folder_a_file => top("prompts: blank.txt"),
        folder_without_prompts => top("prompts: no-prompts"),
        folder_with_clash => top("prompts: clash"),
    }

    names {
        of_models_equal => "models:\n  a: { name: X, simulate: {} }\n  b: { name: \"X\", simulate: {} }\n",
        of_a_model_like_anothers_key => "models:\n  a: { simulate: {} }\n  b: { name: a, simulate: {} }\n",
        of_models_equal_when_sanitised => "models:\n  \"llama3:8b\": { simulate: {} }\n  llama3 8b: { simulate: {} }\n",
        of_prompts_equal => top("prompts:\n  - { name: a, text: b }\n  - { name: a, text: c }"),
        of_prompts_equal_when_sanitised => top("prompts:\n  - { name: 'a, b', text: b }\n  - { name: a b, text: c }"),
    }

    workloads {
        workload_without_shape => workload("{ requests: 5 }"),
        workload_with_both_shapes => workload("{ concurrency: 5, rate: 20/s, requests: 5 }"),
        workload_without_end => workload("{ concurrency: 5 }"),
        workload_of_no_time => workload("{ concurrency: 5, duration: 0s }"),
        workload_with_a_misspelt_key => workload("{ concurency: 5, requests: 5 }"),
        workload_with_anothers_word => workload("{ request_rate: 20/s, num_prompts: 5 }"),
        workload_of_none => workload("{ concurrency: 0, requests: 5 }"),
        rate_without_unit => workload("{ rate: 20, requests: 5 }"),
        rate_with_another_unit => workload("{ rate: 20/day, requests: 5 }"),
        rate_of_nothing => workload("{ rate: 0/s, requests: 5 }"),
        rate_as_a_word => workload("{ rate: fast, requests: 5 }"),
        arrivals_beside_concurrency =>
            workload("{ concurrency: 5, arrivals: poisson, seed: 1, requests: 5 }"),
        arrivals_misspelt => workload("{ rate: 5/s, arrivals: poison, requests: 5 }"),
        arrivals_without_burstiness => workload("{ rate: 5/s, arrivals: gamma, requests: 5 }"),
        workload_as_a_number => workload("64"),
        workloads_as_a_list => top("workloads: [{ concurrency: 5, requests: 5 }]"),
        workload_of_an_unknown_prompt =>
            workload("{ concurrency: 5, requests: 5, prompts: [chat-eng] }"),
        workload_of_no_prompt => workload("{ concurrency: 5, requests: 5, prompts: [] }"),
        workload_called_like_a_prompt =>
            top("workloads: { code: { concurrency: 5, requests: 5 } }"),
        workloads_of_one_name =>
            top("workloads:\n  a b: { concurrency: 5, requests: 5 }\n  a:b: { rate: 5/s, requests: 5 }"),
        connection_misspelt => model("connection: hot"),
        order_misspelt => top("order: interleave"),
        order_without_seed => top("order: shuffled(x)"),
    }
}
