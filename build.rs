//! Tells the program the revision of git that it is built from, for the reports of its runs.

use std::{fs, path::Path, process::Command};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(revision) = packaged(folder).or_else(|| checked_out(folder)) {
        println!("cargo:rustc-env=LLM_STREAM_BENCH_REVISION={revision}");
    }
}

/// Returns the revision that `cargo package` recorded.
fn packaged(folder: &Path) -> Option<String> {
    let path = folder.join(".cargo_vcs_info.json");
    println!("cargo:rerun-if-changed=build.rs");
    let info = fs::read_to_string(path).ok()?;
    let (_, rest) = info.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// Returns the revision of the repository whose root is `folder`: a copy in another repository does
/// not have that one's revision.
fn checked_out(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let root = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(root).ok()? != fs::canonicalize(folder).ok()? {
        return None;
    }
    // It changes with each commit and each checkout.
    let log = folder.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "HEAD"])
}
