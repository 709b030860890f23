//! Proxies between the client and a server: those of the environment, and what messages say of them.

use std::{env, net::IpAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;

/// The environment variable that names a proxy for requests to `url`, unless `NO_PROXY` exempts it.
pub fn proxy_variable(url: &str) -> Option<&'static str> {
    proxy_of_environment(url).map(|(variable, _)| variable)
}

/// The same variable, and the host and port of the proxy.
pub fn proxy_of_environment(url: &str) -> Option<(&'static str, String)> {
    let (variable, _) = proxy_as_written(url)?;
    let proxy = Matcher::from_env().intercept(&url.parse().ok()?)?;
    Some((variable, place_of_proxy(&proxy.uri().to_string())?))
}

/// The same variable, and what it holds: as reqwest reads them, since it is what goes through one.
/// A server on this machine is never reached through one.
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
    // Of two spellings, the first that is set counts.
    let spelt = |pair: [&'static str; 2]| {
        pair.into_iter().find_map(|name| Some((name, env::var(name).ok()?)))
    };
    let names_proxy = |(_, value): &(_, String)| {
        Matcher::builder().all(value.as_str()).build().intercept(&uri).is_some()
    };
    [of_scheme, of_all].into_iter().filter_map(spelt).find(names_proxy)
}

/// Host and port of the proxy at `url`, without its user and password.
pub fn place_of_proxy(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The forms in which a server may be told the password in the environment's proxy for `url`.
pub fn proxy_passwords_of_environment(url: &str) -> Vec<String> {
    let Some((_, proxy)) = proxy_as_written(url) else { return Vec::new() };
    // There, the scheme may be left out.
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    reqwest::Url::parse(&proxy).map(|proxy| passwords(&proxy)).unwrap_or_default()
}

/// The forms in which a server may be told the password in a proxy's `url`, if it is one's at all.
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

/// Whether `url` is on this machine, so that no proxy can stand between.
pub fn is_loopback(url: &str) -> bool {
    let uri: Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches([']', '.']);
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// Whether a proxy at `url` is one that we can speak to.
pub fn is_proxy(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url);
    parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
