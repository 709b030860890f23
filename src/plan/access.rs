//! What a request to a target requires from the environment: its key, and the values of `${NAME}`.

use http::{HeaderName, HeaderValue};
use llm_stream_client::connect_options::{ConnectOptions, ProxyMode, Secret, Stamps, TlsOptions};
use llm_stream_client::{
    memory::MemoryBudget,
    options::{Access, Transport},
    proxy,
};

use super::{Endpoint, SOCKET_ORIGIN, Target};
use crate::config::{self, Config, ConfigError, EnvTemplate};

/// Returns the access to a simulated endpoint. It gets no key and no value of the environment, even
/// if `defaults` has some.
pub fn simulated(target: &Target) -> Access {
    let plain =
        |(name, value): &(HeaderName, EnvTemplate)| Some((name.clone(), header(value.plain()?)?));
    let headers = target.headers.iter().filter_map(plain).collect();
    // `cargo test` tries each case against the simulated endpoint, also on systems without packet
    // timestamps.
    let stamps = match target.stamps {
        Stamps::Socket => Stamps::Socket,
        Stamps::Auto | Stamps::Packets => Stamps::Auto,
    };
    let route = ConnectOptions { stamps, ..ConnectOptions::default() };
    Access { headers, route, ..Access::default() }
}

/// Returns the access to `target`, or the errors of missing or unusable variables.
pub fn of(target: &Target, config: &Config) -> Result<Access, Vec<ConfigError>> {
    let (url, socket) = match &target.endpoint {
        Endpoint::Url(url) => (url.clone(), None),
        Endpoint::Socket { socket, path, .. } => {
            (format!("{SOCKET_ORIGIN}{path}"), Some(socket.clone()))
        }
        Endpoint::Simulated(_) => return Ok(simulated(target)),
    };
    let mut collector = Collector { config, secrets: Vec::new(), errors: Vec::new() };
    let key = target.api_key_env.as_ref().and_then(|name| collector.keep(config.api_key(name)));
    let headers = target
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), collector.header(value)?)));
    let headers = headers.collect();
    let url = collector.url(&url, &target.network.query);
    let replicas = target.replicas.iter().map(|url| collector.url(url, &target.network.query));
    let replicas = replicas.collect();
    if !target.replicas.is_empty() && target.transport != Transport::Stamped {
        collector.refuse_replicas(target);
    }
    // A proxy of `defaults` does not apply to unix sockets.
    let proxy = target.network.proxy.as_ref().filter(|_| socket.is_none());
    if proxy.is_none() && socket.is_none() {
        let passwords = proxy::proxy_passwords_of_environment(&url);
        collector.secrets.extend(passwords.into_iter().map(Secret));
    }
    let proxy = collector.proxy(proxy);
    if !collector.errors.is_empty() {
        return Err(collector.errors);
    }
    let tls = TlsOptions {
        roots: target.network.ca.clone().unwrap_or_default(),
        identity: target.network.identity.clone(),
        insecure: target.is_insecure(),
    };
    let (stamps, memory) = (target.stamps, MemoryBudget::default());
    let route = ConnectOptions { tls, proxy, socket, secrets: collector.secrets, stamps, memory };
    Ok(Access { url, replicas, key: key.map(Secret), headers, route })
}

/// Collects secrets and errors.
struct Collector<'a> {
    config: &'a Config,
    secrets: Vec<Secret>,
    errors: Vec<ConfigError>,
}

impl Collector<'_> {
    /// Notes that only `transport: stamped` sends requests to several addresses.
    fn refuse_replicas(&mut self, target: &Target) {
        let Some(model) = self.config.models.get(target.index) else { return };
        let what = "a list of addresses requires `transport: stamped`";
        let help = "`proxy: none` ignores the proxy of the environment, which the transport `reqwest` is \
                    for; other systems than Linux require `transport: stamped` to be written";
        self.errors.push(self.config.error_in(&model.key, what, help));
    }

    fn keep<T>(&mut self, value: Result<T, ConfigError>) -> Option<T> {
        value.map_err(|error| self.errors.push(error)).ok()
    }

    /// Expands `template`. The values of its variables are secrets.
    fn expand(
        &mut self,
        template: &EnvTemplate,
        escape: impl Fn(&str, String) -> String,
    ) -> Option<String> {
        let expanded = self.keep(self.config.expand(template, escape))?;
        self.secrets.extend(expanded.values.into_iter().map(Secret));
        Some(expanded.text)
    }

    fn header(&mut self, template: &EnvTemplate) -> Option<HeaderValue> {
        let text = self.expand(template, |_, value| value)?;
        let value = header(&text);
        if value.is_none() {
            let what = "the value of this header has characters that are not allowed in headers";
            let help = "set its variable to one line of text";
            self.errors.push(self.config.error_in(template.at(), what, help));
        }
        value
    }

    /// Returns `url` with its query.
    fn url(&mut self, url: &str, query: &[(String, EnvTemplate)]) -> String {
        let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
        for (name, template) in query {
            let Some(value) = self.expand(template, |_, value| value) else { continue };
            parsed.query_pairs_mut().append_pair(name, &value);
            // The escaped value is the same secret, and servers quote URLs in errors. A literal
            // value under a secret's name is one too.
            if template.plain().is_none() || config::is_secret_header(name) {
                let pair = parsed.query().and_then(|query| query.rsplit('&').next());
                let escaped = pair.and_then(|pair| pair.split_once('=')).map(|(_, value)| value);
                let escaped = escaped.unwrap_or_default().to_owned();
                self.secrets.extend([Secret(value), Secret(escaped)]);
            }
        }
        parsed.into()
    }

    fn proxy(&mut self, proxy: Option<&config::ProxySetting>) -> ProxyMode {
        let template = match proxy {
            None => return ProxyMode::Environment,
            Some(config::ProxySetting::None) => return ProxyMode::None,
            Some(config::ProxySetting::Through(template)) => template,
        };
        // A value in the middle of a URL must not end its component.
        let escape = |before: &str, value: String| match before.is_empty() {
            true => value,
            false => config::percent_encoded(&value),
        };
        let Some(url) = self.expand(template, escape) else { return ProxyMode::None };
        let Some(passwords) = proxy::proxy_passwords(&url) else {
            let what = "`proxy` is not the URL of an HTTP proxy";
            let help = "check its variables; for example `http://proxy.example.com:3128`";
            self.errors.push(self.config.error_in(template.at(), what, help));
            return ProxyMode::None;
        };
        self.secrets.extend(passwords.into_iter().map(Secret));
        ProxyMode::Through(Secret(url))
    }
}

/// Parses a header value and marks it as sensitive.
fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
