//! The keys of a model for its network connection: query, TLS and proxy.

use llm_stream_client::connect_options::{self, Certificate, TlsIdentity};

use super::{
    ProxySetting,
    files::{read, unreadable},
    reader::{Entry, Fields, Reader},
    template::EnvTemplate,
    validate,
    yaml::Yaml,
};

/// Query parameters, certificates and proxy of a connection.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// `query`: the parameters after the `?` of the URL. Default: none.
    pub query: Vec<(String, EnvTemplate)>,
    /// `ca_file`, read: certificates to trust in addition to those of the system. Default: none.
    pub ca: Option<Vec<Certificate>>,
    /// `client_cert` with `client_key`, read. Default: none.
    pub identity: Option<TlsIdentity>,
    /// `insecure_tls`: whether certificates are not verified. Default: `false`.
    pub insecure_tls: Option<bool>,
    /// `proxy`. Default: the proxy of the environment.
    pub proxy: Option<ProxySetting>,
}

impl NetworkSettings {
    /// These settings, completed by those of `defaults`. Query parameters are merged one by one.
    pub fn over(&self, defaults: &Self) -> Self {
        let overridden = |name| self.query.iter().any(|(own, _)| own == name);
        let inherited = defaults.query.iter().filter(|(name, _)| !overridden(name));
        Self {
            query: inherited.chain(&self.query).cloned().collect(),
            ca: self.ca.clone().or_else(|| defaults.ca.clone()),
            identity: self.identity.clone().or_else(|| defaults.identity.clone()),
            insecure_tls: self.insecure_tls.or(defaults.insecure_tls),
            proxy: self.proxy.clone().or_else(|| defaults.proxy.clone()),
        }
    }
}

/// Reads the network keys of a model or of `defaults`.
pub(super) fn settings(reader: &mut Reader<'_>, fields: &Fields<'_>) -> NetworkSettings {
    NetworkSettings {
        query: fields.get("query").map_or_else(Vec::new, |entry| query(reader, entry)),
        ca: fields.get("ca_file").and_then(|entry| {
            let pem = file(reader, entry)?;
            connect_options::certificates(&pem).map_err(|what| unfit(reader, entry, &what)).ok()
        }),
        identity: identity(reader, fields),
        insecure_tls: fields.get("insecure_tls").and_then(|entry| reader.flag(entry)),
        proxy: fields.get("proxy").and_then(|entry| validate::proxy(reader, entry)),
    }
}

fn query(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<(String, EnvTemplate)> {
    let fields = reader.map(entry, "a map of a query's fields", entry.example());
    let mut field = |(name, field): (&str, Entry<'_>)| {
        let text = reader.text_like(&field, "\"2024-10-21\"")?;
        Some((name.to_owned(), validate::template(reader, &field, text)?))
    };
    fields.into_iter().filter_map(&mut field).collect()
}

/// `client_cert`, and `client_key` if the key is in a separate file.
fn identity(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<TlsIdentity> {
    let Some(cert) = fields.get("client_cert") else {
        if let Some(key) = fields.get("client_key") {
            let help = "add the certificate of this key: `client_cert: certs/client.pem`";
            reader.error_at_key(key, "`client_key` requires `client_cert`", help);
        }
        return None;
    };
    let pem = file(reader, cert)?;
    let chain =
        connect_options::certificates(&pem).map_err(|what| unfit(reader, cert, &what)).ok()?;
    let (of_key, key) = match fields.get("client_key") {
        None => (
            cert,
            connect_options::private_key(&pem).map_err(|what| {
                let help = "name the file that has it: `client_key: certs/client.key`";
                let what = format!("{} {what}", reader.written(cert));
                reader.error(cert, what, help);
            }),
        ),
        Some(entry) => {
            let pem = file(reader, entry)?;
            (entry, connect_options::private_key(&pem).map_err(|what| unfit(reader, entry, &what)))
        }
    };
    let identity = TlsIdentity::new(chain, key.ok()?);
    let wrong = |what| {
        let help = "`client_cert` and `client_key` must belong together";
        reader.error(of_key, what, help);
    };
    identity.map_err(wrong).ok()
}

/// Reads the file that `entry` names.
fn file(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<u8>> {
    if matches!(&entry.value.value, Yaml::Text(text) if text.contains("-----BEGIN")) {
        let what = format!("{} is not the name of a file", entry.label);
        let help = format!("put the PEM into a file: `{}{}`", entry.lead, entry.example());
        reader.error(entry, what, help);
        return None;
    }
    let name = reader.text(entry)?.value;
    let path = reader.base_dir.join(name);
    match read(reader, &path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            unreadable(reader, entry, &path, &error);
            None
        }
    }
}

/// Notes that a file does not hold the expected PEM.
fn unfit(reader: &mut Reader<'_>, entry: &Entry<'_>, what: &str) {
    let help = "PEM is text with `-----BEGIN …-----`; `openssl` converts other formats:\n\
                `openssl x509 -inform der`, `openssl pkcs12 -nodes`, `openssl pkey`";
    let what = format!("{} {what}", reader.written(entry));
    reader.error(entry, what, help);
}
