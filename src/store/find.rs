//! Finds runs by what a user names: a path, the beginning of a time, `latest`, `latest~1`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::folder::{RESULTS, RUN};

/// The folders in which runs are kept.
#[derive(Debug, Clone)]
pub(crate) struct RunFinder {
    parents: Vec<PathBuf>,
}

/// A folder of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// Its name: the time of its start.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
}

/// No run is meant, or several.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// No run has this name.
    #[error(
        "no run `{name}`{}\n  help: a RUN is a folder, the beginning of its name, `latest` or \
         `latest~1`; `llm-stream-bench list` shows them",
        looked(parents)
    )]
    Unknown {
        /// The name.
        name: String,
        /// The folders that were searched.
        parents: Vec<PathBuf>,
    },
    /// Several runs begin with this name.
    #[error("several runs begin with `{name}`: {}", matches.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The names of the runs.
        matches: Vec<String>,
    },
}

fn looked(parents: &[PathBuf]) -> String {
    let parents: Vec<_> = parents.iter().map(|parent| parent.display().to_string()).collect();
    if parents.is_empty() { String::new() } else { format!(" in {}", parents.join(" or ")) }
}

impl RunFinder {
    /// Finds runs in these folders.
    pub(crate) fn new(parents: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut seen = Vec::new();
        let mut parents: Vec<_> = parents.into_iter().collect();
        // Two names of one folder would list its runs twice.
        parents.retain(|parent| {
            let id = fs::canonicalize(parent).unwrap_or_else(|_| parent.clone());
            let is_new = !seen.contains(&id);
            seen.push(id);
            is_new
        });
        Self { parents }
    }

    /// The folders that are searched.
    pub(crate) fn parents(&self) -> &[PathBuf] {
        &self.parents
    }

    /// Returns the runs, the latest first.
    pub(crate) fn all(&self) -> Vec<Found> {
        let entries = self.parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
        let run = |entry: fs::DirEntry| {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            is_run(&path).then_some(Found { name, path })
        };
        let mut runs: Vec<_> = entries.flatten().filter_map(run).collect();
        runs.sort_by(|a, b| order(&b.name).cmp(&order(&a.name)).then_with(|| a.path.cmp(&b.path)));
        runs
    }

    /// Returns the path of the run that `name` means.
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf, FindError> {
        let path = Path::new(name);
        if path.exists() {
            return Ok(path.to_owned());
        }
        let unknown =
            || FindError::Unknown { name: name.to_owned(), parents: self.parents.clone() };
        if let Some(back) = steps_back(name) {
            return self.all().into_iter().nth(back).map(|run| run.path).ok_or_else(unknown);
        }
        let all = self.all();
        if let Some(exact) = all.iter().find(|run| run.name == name) {
            return Ok(exact.path.clone());
        }
        let mut matches =
            all.into_iter().filter(|run| !name.is_empty() && run.name.starts_with(name));
        match (matches.next(), matches.next()) {
            (Some(only), None) => Ok(only.path),
            (None, _) => Err(unknown()),
            (Some(first), Some(second)) => {
                let matches = [first, second].into_iter().chain(matches);
                let matches = matches.map(|run| run.name).collect();
                Err(FindError::Ambiguous { name: name.to_owned(), matches })
            }
        }
    }
}

/// Whether the folder has the files of a run. Those of the first version have no `run.json`.
fn is_run(path: &Path) -> bool {
    [RUN, RESULTS].iter().any(|file| path.join(file).is_file())
}

/// The key by which runs are ordered: the time, then the number of runs of the same second.
fn order(name: &str) -> (&str, usize) {
    match name.split_once('-') {
        Some((time, number)) => (time, number.parse().unwrap_or(0)),
        None => (name, 1),
    }
}

/// Returns how many runs `latest` or `latest~N` goes back from the latest run.
fn steps_back(name: &str) -> Option<usize> {
    match name.strip_prefix("latest")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(names: &[&str]) -> (tempfile::TempDir, RunFinder) {
        let parent = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join(RUN), "{}").unwrap();
        }
        fs::create_dir(parent.path().join("baselines")).unwrap();
        let finder = RunFinder::new([parent.path().to_owned(), parent.path().join(".")]);
        (parent, finder)
    }

    #[test]
    fn a_run_is_found_by_its_place_or_the_beginning_of_its_name() {
        let names =
            ["20261126T100000Z", "20261127T100000Z", "20261127T100000Z-2", "20261127T100000Z-10"];
        let (_parent, finder) = finder(&names);
        let found = |name: &str| {
            let path = finder.find(name).map_err(|error| error.to_string())?;
            Ok::<_, String>(path.file_name().unwrap().to_string_lossy().into_owned())
        };
        assert_eq!(finder.all().len(), 4);
        assert_eq!(found("latest").unwrap(), "20261127T100000Z-10");
        assert_eq!(found("latest~1").unwrap(), "20261127T100000Z-2");
        assert_eq!(found("latest~3").unwrap(), "20261126T100000Z");
        assert_eq!(found("20261127T100000Z").unwrap(), "20261127T100000Z");
        assert_eq!(found("20261126").unwrap(), "20261126T100000Z");
        assert!(found("20261127").unwrap_err().starts_with("several runs begin with"));
        for unknown in ["latest~4", "latest~", "latest2", "", "baselines"] {
            assert!(found(unknown).unwrap_err().starts_with("no run"), "{unknown}");
        }
    }
}
