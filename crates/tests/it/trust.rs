//! Trusted certificates, client certificates, and the messages when TLS fails.

use std::{fs, sync::Arc, time::Duration};

use llm_stream_core::protocol::OpenAiChat;
use llm_stream_sim::{Script, Simulator, SimulatorTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use crate::bench::{Bench, Ran};

/// A certificate authority.
struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Signed {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str, until: i32) -> Signed {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate, key }
    }
}

impl Signed {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

fn endpoint(tls: SimulatorTls) -> Simulator {
    let (ttft, itl) = (Duration::from_millis(5), Duration::from_millis(5));
    let script = Script { ttft, itl, tokens: 6, ..Script::default() };
    Simulator::over_tls("127.0.0.1:0".parse().unwrap(), script, &OpenAiChat, tls).unwrap()
}

fn serving(signed: &Signed) -> Simulator {
    endpoint(SimulatorTls::new(&signed.chain(), signed.key().secret_der()).unwrap())
}

/// An endpoint that requires a client certificate of `ca`.
fn requiring_certificate(ca: &Ca, signed: &Signed) -> Simulator {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(signed.chain(), signed.key());
    endpoint(Arc::new(config.unwrap()).into())
}

/// Runs a config with both transports against an endpoint; `keys` are in `defaults`.
fn asking(url: &str, keys: &str, files: &[(&str, String)]) -> (Bench, Ran) {
    let bench = Bench::new(&format!(
        "runs: 1\nprompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
         defaults: {{ {keys} }}\nmodels:\n  \
         stamped: {{ base_url: \"{url}\", transport: stamped }}\n  \
         reqwest: {{ base_url: \"{url}\", transport: reqwest }}\n"
    ));
    fs::create_dir(bench.folder.path().join("certs")).unwrap();
    for (name, text) in files {
        fs::write(bench.folder.path().join("certs").join(name), text).unwrap();
    }
    let ran = bench.run(&["--no-warmup"]);
    (bench, ran)
}

fn at(simulator: &Simulator, scheme: &str, host: &str) -> String {
    format!("{scheme}://{host}:{}", simulator.addr().unwrap().port())
}

const CA_FILE: &str = "ca_file: certs/ca.pem";

#[test]
fn ca_file_adds_a_trusted_ca() {
    let ca = Ca::new("ours");
    let simulator = serving(&ca.sign("localhost", 2999));
    let files = [("ca.pem", ca.certificate.pem())];
    let (bench, ran) = asking(&at(&simulator, "https", "localhost"), CA_FILE, &files);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(bench.results().len(), 2);
}

#[test]
fn ca_file_may_be_the_certificate_of_the_server_though_it_is_a_ca() {
    // As `openssl req -x509` makes them.
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let signed = Signed { certificate: params.self_signed(&key).unwrap(), key };
    let simulator = serving(&signed);
    let url = at(&simulator, "https", "localhost");
    let files = [("ca.pem", signed.certificate.pem())];
    let (_, ran) = asking(&url, CA_FILE, &files);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (_, ran) = asking(&at(&simulator, "https", "127.0.0.1"), CA_FILE, &files);
    assert_eq!(ran.code, Some(101), "the certificate has another name: {}", ran.stderr);
}

#[test]
fn client_cert_is_sent_to_a_server_that_requires_one() {
    let ca = Ca::new("ours");
    let simulator = requiring_certificate(&ca, &ca.sign("localhost", 2999));
    let us = ca.sign("bench", 2999);
    let files = [
        ("ca.pem", ca.certificate.pem()),
        ("us.pem", us.certificate.pem()),
        ("us.key", us.key.serialize_pem()),
        ("both.pem", us.certificate.pem() + &us.key.serialize_pem()),
    ];
    let url = at(&simulator, "https", "localhost");
    for keys in
        ["client_cert: certs/us.pem, client_key: certs/us.key", "client_cert: certs/both.pem"]
    {
        let (_, ran) = asking(&url, &format!("{CA_FILE}, {keys}"), &files);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn insecure_tls_accepts_any_certificate_and_each_run_warns() {
    let simulator = serving(&Ca::new("theirs").sign("elsewhere", 2000));
    let (_, ran) = asking(&at(&simulator, "https", "localhost"), "insecure_tls: true", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let warnings: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("warning:")).collect();
    insta::assert_snapshot!(warnings.join("\n"));
}

#[test]
fn a_tls_failure_has_a_hint() {
    let ca = Ca::new("ours");
    let good = serving(&ca.sign("localhost", 2999));
    let old = serving(&ca.sign("localhost", 2000));
    let wants = requiring_certificate(&ca, &ca.sign("localhost", 2999));
    let stranger = Ca::new("theirs").sign("bench", 2999);
    let plain = Simulator::start(Script::default(), &OpenAiChat).unwrap();
    let files = [
        ("ca.pem", ca.certificate.pem()),
        ("us.pem", stranger.certificate.pem() + &stranger.key.serialize_pem()),
    ];
    let with_cert = format!("{CA_FILE}, client_cert: certs/us.pem");
    let cases = [
        ("untrusted certificate", &good, "https", "localhost", ""),
        ("another name", &good, "https", "127.0.0.1", CA_FILE),
        ("expired", &old, "https", "localhost", CA_FILE),
        ("requires a certificate", &wants, "https", "localhost", CA_FILE),
        ("requires another certificate", &wants, "https", "localhost", &with_cert),
        ("does not speak TLS", &plain, "https", "localhost", ""),
        ("speaks TLS", &good, "http", "localhost", ""),
    ];
    let mut messages = String::new();
    for (what, simulator, scheme, host, keys) in cases {
        let (bench, ran) = asking(&at(simulator, scheme, host), keys, &files);
        assert_eq!(ran.code, Some(101), "{what}: {}", ran.stderr);
        messages += &format!("{what}\n");
        for row in bench.results() {
            let port = simulator.addr().unwrap().port().to_string();
            let mut message = row[12].replace(&port, "PORT");
            // The time and the number of seconds vary.
            if let Some(start) = message.find("verification time") {
                let end = message.find("seconds ago)").unwrap_or(start);
                message.replace_range(start..end, "… ");
            }
            messages += &format!("  {}: {message}\n", &row[0]);
        }
    }
    insta::assert_snapshot!(messages);
}
