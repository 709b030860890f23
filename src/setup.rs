//! The circumstances of a run: everything that is needed to repeat it. Secrets are masked.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use jiff::Timestamp;
use llm_stream_client::{Redactor, connect_options::Secret, secret_names::is_secret_header};
use llm_stream_core::text::shown_url;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::{
    calibrate::machine,
    config::Config,
    env,
    machine_load::MachineLoad,
    plan::{Access, Target},
};

/// The circumstances of a run: everything that is needed to repeat it. Secrets are `***`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Setup {
    /// The start of the run by the wall clock.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub started: Timestamp,
    /// Its end; null if it was killed.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub ended: Option<Timestamp>,
    /// The command line, the program first.
    pub arguments: Vec<String>,
    /// The environment variables of this program, `LLM_STREAM_BENCH_…`.
    pub variables: BTreeMap<String, String>,
    /// The folder in which it ran, to which its paths are relative.
    pub folder: String,
    /// The revision of that folder; null outside a git repository.
    pub git: Option<GitRevision>,
    /// The revision of git that this program was built from; null if it was not built from one.
    pub built_from: Option<String>,
    /// The machine that measured.
    pub host: Host,
    /// How busy it was with other work during the run; null if the run was killed.
    #[serde(default)]
    pub machine_load: Option<MachineLoad>,
    /// The config.
    pub config: ConfigRecord,
    /// The run whose trials this one kept; null if it kept none.
    #[serde(default)]
    pub resumed: Option<ResumedRun>,
    /// What each endpoint said about itself before the first trial; without simulated ones.
    #[serde(default)]
    pub servers: Vec<ServerRecord>,
}

/// A run that was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResumedRun {
    /// Its name.
    pub run: String,
    /// Its start by the wall clock.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub started: Timestamp,
    /// The number of its trials that were kept.
    pub kept: usize,
}

/// A revision of git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GitRevision {
    /// The commit.
    pub commit: String,
    /// Whether tracked files differ from it.
    pub is_modified: bool,
}

/// The machine that measured. Values that the system does not report are null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Host {
    /// Its name.
    pub name: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// The cores that this process may use.
    pub cores: Option<usize>,
    /// Its memory in bytes.
    pub memory: Option<u64>,
    /// The operating system, such as `linux`.
    pub system: String,
    /// The kernel's release.
    pub kernel: Option<String>,
}

/// The config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigRecord {
    /// Its path as it was given, or `<command line>` for a run of a URL.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Whether the text contains masked secrets, so that it cannot be run as it is.
    pub has_secrets: bool,
    /// The files that it names: prompts, data sets, images, certificates.
    pub data: Vec<DataFile>,
}

/// A file that the config names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DataFile {
    /// Its path, as the config has it.
    pub path: String,
    /// The SHA-256 of its content, in hexadecimal digits; null if it could not be read again.
    pub sha256: Option<String>,
    /// Its length.
    pub bytes: Option<u64>,
}

/// What a server said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerRecord {
    /// The endpoint, as in the results.
    pub endpoint: String,
    /// The models of this run that it serves.
    pub models: Vec<String>,
    /// Its version, by its path `/version` or a path of the protocol.
    pub version: Option<String>,
    /// The models that it lists.
    pub lists: Vec<String>,
    /// The header `server` of its answers.
    pub software: Option<String>,
}

/// What a run was started with.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The command line, the program first.
    pub arguments: Vec<String>,
    /// The environment variables of this program.
    pub variables: BTreeMap<String, String>,
}

impl Invocation {
    /// That of this process.
    pub(crate) fn this() -> Self {
        Self { arguments: env::arguments().collect(), variables: env::ours().collect() }
    }
}

impl Setup {
    /// Gathers the circumstances of a run of `config` that starts now.
    pub(crate) fn of(
        config: &Config,
        accesses: &[(Arc<Target>, Access)],
        invocation: &Invocation,
        started: Timestamp,
    ) -> Self {
        let redactor = redactor(accesses);
        let (masked, has_masks) = config.masked_text();
        let text = redactor.redact(&masked);
        let Invocation { arguments, variables } = invocation;
        Self {
            started,
            ended: None,
            arguments: arguments.iter().map(|argument| shown(argument, &redactor)).collect(),
            variables: variables
                .iter()
                .map(|(name, value)| (name.clone(), shown(value, &redactor)))
                .collect(),
            folder: std::env::current_dir().unwrap_or_default().display().to_string(),
            git: GitRevision::of(Path::new(".")),
            built_from: option_env!("LLM_STREAM_BENCH_REVISION").map(str::to_owned),
            host: Host::this(),
            machine_load: None,
            config: ConfigRecord {
                file: config.file().to_owned(),
                has_secrets: has_masks || text != masked,
                text,
                data: config.files().iter().map(|path| DataFile::of(path)).collect(),
            },
            resumed: None,
            servers: Vec::new(),
        }
    }
}

/// Masks the keys of the models and the headers that hold secrets.
fn redactor(accesses: &[(Arc<Target>, Access)]) -> Redactor {
    let secrets = |access: &Access| -> Vec<Vec<u8>> {
        let named = access.headers.iter().filter(|(name, _)| is_secret_header(name.as_str()));
        let named = named.map(|(_, value)| value.as_bytes().to_vec());
        let others = access.key.iter().chain(&access.route.secrets);
        named.chain(others.map(|Secret(secret)| secret.clone().into_bytes())).collect()
    };
    let secrets: Vec<_> = accesses.iter().flat_map(|(_, access)| secrets(access)).collect();
    Redactor::new(secrets.iter().map(Vec::as_slice))
}

/// Returns an argument or the value of a variable without secrets: those of the models, and the user
/// and the query of a URL.
fn shown(argument: &str, redactor: &Redactor) -> String {
    let masked = redactor.redact(argument);
    match masked.contains("://") {
        true => shown_url(&masked),
        false => masked,
    }
}

impl GitRevision {
    /// Returns the revision of `folder`; `None` outside a repository, or without git.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(folder).args(arguments).stdin(Stdio::null());
            let output = command.stderr(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let commit = git(&["rev-parse", "HEAD"])?.trim().to_owned();
        let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(Self { commit, is_modified: !changes.trim().is_empty() })
    }
}

impl Host {
    /// Describes this machine.
    fn this() -> Self {
        Self {
            name: machine::host_name(),
            processor: machine::processor(),
            cores: thread::available_parallelism().ok().map(usize::from),
            memory: machine::total_memory(),
            system: std::env::consts::OS.to_owned(),
            kernel: machine::kernel(),
        }
    }
}

impl DataFile {
    /// Describes the file at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let digest = digest(path).ok();
        Self {
            path: path.display().to_string(),
            sha256: digest.as_ref().map(|(sha256, _)| sha256.clone()),
            bytes: digest.map(|(_, bytes)| bytes),
        }
    }
}

/// Returns the SHA-256 of a file and its length.
fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
        length += read as u64;
    }
    let digest = context.finish();
    Ok((digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(), length))
}

/// Returns the first difference between the configs of two runs, with the content of their files.
pub(crate) fn config_difference(then: &ConfigRecord, now: &ConfigRecord) -> Option<String> {
    if then.text != now.text {
        let lines = then.text.lines().map(Some).chain(std::iter::repeat(None));
        let mut pairs = lines.zip(now.text.lines().map(Some).chain(std::iter::repeat(None)));
        let place = pairs.position(|(then, now)| then != now)?;
        let line = |text: &str| text.lines().nth(place).map_or("nothing".to_owned(), quoted);
        let (then, current) = (line(&then.text), line(&now.text));
        return Some(format!("{}:{}: it had {then} and has {current}", now.file, place + 1));
    }
    data_differences(then, now).into_iter().next()
}

fn quoted(line: &str) -> String {
    format!("`{}`", line.trim())
}

/// Returns the differences between the circumstances of an earlier run and those of now, a line each.
pub(crate) fn differences(then: &Setup, now: &Setup) -> Vec<String> {
    let commit = |git: &Option<GitRevision>| {
        git.as_ref().map(|git| match git.is_modified {
            true => format!("{} with changes", git.commit),
            false => git.commit.clone(),
        })
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let cores = |setup: &Setup| text(setup.host.cores.map(|cores| cores as u64));
    let facts = [
        ("this program's revision", then.built_from.clone(), now.built_from.clone()),
        ("revision", commit(&then.git), commit(&now.git)),
        ("host", then.host.name.clone(), now.host.name.clone()),
        ("processor", then.host.processor.clone(), now.host.processor.clone()),
        ("number of cores", cores(then), cores(now)),
        ("memory in bytes", text(then.host.memory), text(now.host.memory)),
        ("kernel", then.host.kernel.clone(), now.host.kernel.clone()),
    ];
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let facts = facts.into_iter().filter(|(_, then, now)| then != now);
    let facts = facts
        .map(|(what, then, now)| format!("another {what}: {}, now {}", known(then), known(now)));
    facts.chain(data_differences(&then.config, &now.config)).collect()
}

fn data_differences(then: &ConfigRecord, now: &ConfigRecord) -> Vec<String> {
    let difference = |file: &DataFile| {
        let same = now.data.iter().find(|other| other.path == file.path);
        match same {
            Some(same) if same.sha256 == file.sha256 => None,
            Some(_) => Some(format!("{} has another content", file.path)),
            None => Some(format!("{} is not read any more", file.path)),
        }
    };
    then.data.iter().filter_map(difference).collect()
}
