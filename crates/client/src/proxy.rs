//! Proxies in the environment and in the config: which one applies, and what to mask.

use std::{env, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;

/// The environment variable with the proxy for `url`, unless `NO_PROXY` exempts it.
pub fn proxy_variable(url: &str) -> Option<&'static str> {
    proxy_of_environment(url).map(|(variable, _)| variable)
}

/// The environment variable with the proxy for `url`, and the proxy's host and port.
pub(crate) fn proxy_of_environment(url: &str) -> Option<(&'static str, String)> {
    let (variable, _) = proxy_as_written(url)?;
    let proxy = Matcher::from_env().intercept(&url.parse().ok()?)?;
    Some((variable, place_of_proxy(&proxy.uri().to_string())?))
}

/// The environment variable with the proxy for `url`, and its value. Follows the rules of reqwest,
/// which connects through the proxy, except that no proxy applies to a server on this machine.
#[expect(clippy::disallowed_methods, reason = "reqwest reads these variables, too")]
fn proxy_as_written(url: &str) -> Option<(&'static str, String)> {
    let uri: Uri = url.parse().ok()?;
    if is_loopback(url) || Matcher::from_env().intercept(&uri).is_none() {
        return None;
    }
    let of_scheme = match uri.scheme_str() {
        Some("https") => ["HTTPS_PROXY", "https_proxy"],
        _ => ["HTTP_PROXY", "http_proxy"],
    };
    let of_all = ["ALL_PROXY", "all_proxy"];
    // Of two spellings, the first that is set wins.
    let spelt = |pair: [&'static str; 2]| {
        pair.into_iter().find_map(|name| Some((name, env::var(name).ok()?)))
    };
    let names_proxy = |(_, value): &(_, String)| {
        Matcher::builder().all(value.as_str()).build().intercept(&uri).is_some()
    };
    [of_scheme, of_all].into_iter().filter_map(spelt).find(names_proxy)
}

/// The host and port of the proxy at `url`, without user and password.
pub(crate) fn place_of_proxy(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The forms in which a server may see the password of the environment's proxy for `url`.
pub fn proxy_passwords_of_environment(url: &str) -> Vec<String> {
    let Some((_, proxy)) = proxy_as_written(url) else { return Vec::new() };
    // In the environment, the scheme may be missing.
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    reqwest::Url::parse(&proxy).map(|proxy| passwords(&proxy)).unwrap_or_default()
}

/// The forms in which a server may see the password of the proxy at `url`; `None` if `url` is not the
/// URL of a proxy.
pub fn proxy_passwords(url: &str) -> Option<Vec<String>> {
    let url = reqwest::Url::parse(url).ok().filter(|_| is_proxy(url))?;
    Some(passwords(&url))
}

fn passwords(proxy: &reqwest::Url) -> Vec<String> {
    let Some(written) = proxy.password() else { return Vec::new() };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decoded(proxy.username()), decoded(written));
    let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
    vec![basic, written.to_owned(), password]
}

/// Whether the host of `url` is this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let uri: Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches([']', '.']);
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// Whether `url` is the URL of a supported proxy.
pub fn is_proxy(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url);
    parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
