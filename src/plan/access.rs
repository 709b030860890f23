//! What a request to a target needs of the environment: its key, and the values of `${NAME}`.

use http::{HeaderName, HeaderValue};
use llm_stream_client::connect_options::{ConnectOptions, ProxyMode, Secret, Stamps, TlsOptions};
use llm_stream_client::{options::Access, proxy};

use super::{Endpoint, SOCKET_ORIGIN, Target};
use crate::config::{self, Config, ConfigError, EnvTemplate};

/// Access to a simulated endpoint, which needs none, whatever `defaults` says, and is not told
/// any: nothing of the environment.
pub fn simulated(target: &Target) -> Access {
    let plain =
        |(name, value): &(HeaderName, EnvTemplate)| Some((name.clone(), header(value.plain()?)?));
    let headers = target.headers.iter().filter_map(plain).collect();
    // A check of the config runs where packets cannot be seen, too.
    let stamps = match target.stamps {
        Stamps::Socket => Stamps::Socket,
        Stamps::Auto | Stamps::Packets => Stamps::Auto,
    };
    let route = ConnectOptions { stamps, ..ConnectOptions::default() };
    Access { headers, route, ..Access::default() }
}

/// Access to `target`; errors say which variables are missing or of no use.
pub fn of(target: &Target, config: &Config) -> Result<Access, Vec<ConfigError>> {
    let (url, socket) = match &target.endpoint {
        Endpoint::Url(url) => (url.clone(), None),
        Endpoint::Socket { socket, path, .. } => {
            (format!("{SOCKET_ORIGIN}{path}"), Some(socket.clone()))
        }
        Endpoint::Simulated(_) => return Ok(simulated(target)),
    };
    let mut found = Found { config, secrets: Vec::new(), errors: Vec::new() };
    let key = target.api_key_env.as_ref().and_then(|name| found.noted(config.api_key(name)));
    let headers = target
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), found.header(value)?)));
    let headers = headers.collect();
    let url = found.url(&url, &target.network.query);
    // That of `defaults` is for others.
    let proxy = target.network.proxy.as_ref().filter(|_| socket.is_none());
    if proxy.is_none() && socket.is_none() {
        let passwords = proxy::proxy_passwords_of_environment(&url);
        found.secrets.extend(passwords.into_iter().map(Secret));
    }
    let proxy = found.proxy(proxy);
    if !found.errors.is_empty() {
        return Err(found.errors);
    }
    let tls = TlsOptions {
        roots: target.network.ca.clone().unwrap_or_default(),
        identity: target.network.identity.clone(),
        insecure: target.is_insecure(),
    };
    let stamps = target.stamps;
    let route = ConnectOptions { tls, proxy, socket, secrets: found.secrets, stamps };
    Ok(Access { url, key: key.map(Secret), headers, route })
}

/// What has been found so far.
struct Found<'a> {
    config: &'a Config,
    secrets: Vec<Secret>,
    errors: Vec<ConfigError>,
}

impl Found<'_> {
    fn noted<T>(&mut self, found: Result<T, ConfigError>) -> Option<T> {
        found.map_err(|error| self.errors.push(error)).ok()
    }

    /// `template` with its values, which are secrets.
    fn expand(
        &mut self,
        template: &EnvTemplate,
        escape: impl Fn(&str, String) -> String,
    ) -> Option<String> {
        let expanded = self.noted(self.config.expand(template, escape))?;
        self.secrets.extend(expanded.values.into_iter().map(Secret));
        Some(expanded.text)
    }

    fn header(&mut self, template: &EnvTemplate) -> Option<HeaderValue> {
        let text = self.expand(template, |_, value| value)?;
        let value = header(&text);
        if value.is_none() {
            let what = "this header has characters that none may have";
            let help = "look at what its variable holds: one line of text";
            self.errors.push(self.config.error_in(template.at(), what, help));
        }
        value
    }

    /// `url` with its query.
    fn url(&mut self, url: &str, query: &[(String, EnvTemplate)]) -> String {
        let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
        for (name, template) in query {
            let Some(value) = self.expand(template, |_, value| value) else { continue };
            parsed.query_pairs_mut().append_pair(name, &value);
            // As it stands there, it is the same secret; so is one that is written out.
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
        // What is a part of a URL must not end that part.
        let escape = |before: &str, value: String| match before.is_empty() {
            true => value,
            false => config::percent_encoded(&value),
        };
        let Some(url) = self.expand(template, escape) else { return ProxyMode::None };
        let Some(passwords) = proxy::proxy_passwords(&url) else {
            let what = "`proxy` is not the URL of an HTTP proxy";
            let help =
                "look at what its variables hold; for example `http://proxy.example.com:3128`";
            self.errors.push(self.config.error_in(template.at(), what, help));
            return ProxyMode::None;
        };
        self.secrets.extend(passwords.into_iter().map(Secret));
        ProxyMode::Through(Secret(url))
    }
}

/// A header's value that is not shown.
fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
