//! Selects trials by filters and `--skip`.
//!
//! libtest's rules, with three differences. Any of several filters may match. A filter is compared
//! with the name of the trial and with the name in the config, because trial names have `_` instead
//! of a model's `:`. And a filter that matches nothing is an error, because a dropped filter, or a
//! model that was not skipped, would go unnoticed.

use libtest_mimic::Trial;
use llm_stream_core::prompt::Prompt;

use crate::{
    cli::Cli,
    config,
    plan::{Case, Plan},
};

/// The selection of the command line.
pub(super) struct Selection<'a> {
    cli: &'a Cli,
    filters: Vec<&'a str>,
}

impl<'a> Selection<'a> {
    pub(super) fn of(cli: &'a Cli) -> Self {
        Self { cli, filters: cli.filters() }
    }

    /// Whether the trial `case` is selected.
    pub(super) fn has(&self, case: &Case) -> bool {
        if self.filters.is_empty() && self.cli.libtest.skip.is_empty() {
            return !self.is_of_another_kind(case);
        }
        let names = names(case);
        let is_wanted =
            self.filters.is_empty() || self.filters.iter().any(|word| self.matches(&names, word));
        let is_skipped = self.cli.libtest.skip.iter().any(|word| self.matches(&names, word));
        is_wanted && !is_skipped && !self.is_of_another_kind(case)
    }

    fn matches(&self, names: &[String], word: &str) -> bool {
        match self.cli.libtest.exact {
            true => names.iter().any(|name| name == word),
            false => names.iter().any(|name| name.contains(word)),
        }
    }

    /// Whether another flag of libtest excludes it, such as `--ignored`.
    fn is_of_another_kind(&self, case: &Case) -> bool {
        let trial = Trial::bench(case.name.as_str(), |_| Ok(None));
        let mut arguments = self.cli.libtest.clone();
        (arguments.filter, arguments.skip) = (None, Vec::new());
        arguments.is_filtered_out(&trial)
    }

    /// Describes the mistake if words match no trial of `plan`, which holds all trials, or nothing
    /// is left.
    pub(super) fn mistake(&self, plan: &Plan) -> Option<String> {
        if !self.must_match() {
            return None;
        }
        let has_words = !self.filters.is_empty() || !self.cli.libtest.skip.is_empty();
        let cases = plan.cases.iter().filter(|_| has_words);
        let all: Vec<_> = cases.map(|case| names(case)).collect();
        let idle = |word: &&str| !all.iter().any(|names| self.matches(names, word));
        let skip = || self.cli.libtest.skip.iter().map(String::as_str);
        let filters: Vec<_> = self.filters.iter().copied().filter(idle).collect();
        let skips: Vec<_> = skip().filter(idle).collect();
        let is_empty = !plan.cases.iter().any(|case| self.has(case));
        let mut message = match (&filters[..], &skips[..]) {
            ([], []) if is_empty => match skip().next() {
                Some(_) => nothing_left(&self.filters, &skip().collect::<Vec<_>>()),
                None => "no trial is selected".into(),
            },
            ([], []) => return None,
            (filters, []) => format!("no trial matches {}", quoted(filters)),
            ([], skips) => format!("no trial matches `--skip` {}", quoted(skips)),
            (filters, skips) => {
                format!("no trial matches {}, nor `--skip` {}", quoted(filters), quoted(skips))
            }
        };
        message.push_str(": they are called MODEL::PROMPT::run-N");
        if self.cli.libtest.exact {
            message.push_str(", and `--exact` requires the full name");
        }
        for word in filters.iter().chain(&skips) {
            if let Some(near) = self.nearest(plan, word) {
                message.push_str(&format!("\n  help: for `{word}`, did you mean `{near}`?"));
            }
        }
        Some(message + &inventory(plan))
    }

    /// Whether each word must match. Under `cargo test` filters are meant for other targets too,
    /// and nextest lists ignored trials, of which this program has none.
    fn must_match(&self) -> bool {
        let libtest = &self.cli.libtest;
        libtest.bench && !(libtest.list && libtest.ignored)
    }

    /// Returns the most similar name of a model, prompt or workload; with `--exact`, of a trial.
    fn nearest(&self, plan: &Plan, word: &str) -> Option<String> {
        let listed = plan.listed();
        let whole = listed.iter().map(|case| case.name.as_str());
        if self.cli.libtest.exact {
            let has = |name: &String| name.contains(word);
            let begun = || listed.iter().find(|case| names(case).iter().any(has));
            let near = config::nearest(word, whole).map(str::to_owned);
            return near.or_else(|| Some(begun()?.name.clone()));
        }
        let models = plan.targets.iter().flat_map(|target| [&target.key, &target.name]);
        let prompts = plan.prompts.iter().map(|prompt| &prompt.name);
        let workloads = plan.workloads.iter().map(|workload| &workload.name);
        let parts = models.chain(prompts).chain(workloads).map(String::as_str);
        config::nearest(word, parts).map(str::to_owned)
    }
}

/// Returns the names that match a trial: its parts as shown and as written.
fn names(case: &Case) -> Vec<String> {
    let target = &case.target;
    let shown = config::sanitise(case.task.written());
    let mut tasks = vec![shown.as_str(), case.task.name(), case.task.written()];
    tasks.dedup();
    let mut models = vec![&target.trial_name, &target.name, &target.written, &target.key];
    models.dedup();
    let run = case.run;
    let of_model = |model: &String| {
        let names = tasks.iter().map(move |task| format!("{model}::{task}::run-{run}"));
        names.collect::<Vec<_>>()
    };
    models.into_iter().flat_map(of_model).collect()
}

/// Lists what can be selected.
fn inventory(plan: &Plan) -> String {
    let models: Vec<_> = plan.targets.iter().map(|target| target.trial_name.as_str()).collect();
    // A data set may have thousands of records.
    let label = |prompt: &Prompt| match &prompt.set {
        Some(set) => format!("{set}-…"),
        None => prompt.name.clone(),
    };
    let mut prompts: Vec<_> = plan.prompts.iter().map(|prompt| label(prompt)).collect();
    prompts.dedup();
    let prompts: Vec<_> = prompts.iter().map(String::as_str).collect();
    let workloads: Vec<_> = plan.workloads.iter().map(|load| load.name.as_str()).collect();
    let workloads = match workloads.is_empty() {
        true => String::new(),
        false => format!("\n  workloads: {}", quoted(&workloads)),
    };
    format!(
        "\n  models: {}\n  prompts: {}{workloads}\n  help: `--list` shows every name",
        quoted(&models),
        quoted(&prompts)
    )
}

/// Explains that `skips` leave none of the trials that match `filters`.
fn nothing_left(filters: &[&str], skips: &[&str]) -> String {
    let skips = skips.join(" --skip ");
    match filters {
        [] => format!("`--skip {skips}` leaves no trial"),
        filters => format!("no trial matches {} and is left by `--skip {skips}`", quoted(filters)),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
