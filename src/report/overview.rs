//! The summary on a terminal: one table of the models, and one for each workload. The long table of
//! each model follows on request.

use llm_stream_core::{group::WorkloadSpec, metric::Metric, statistic::Statistic, summary::Group};

use super::{
    Exporter, Run,
    models_table::{self, Mean, ModelRow},
    number,
    summary::{self, SummaryTables},
    table,
};

/// The figures of a run for people: the models next to each other, or all figures of a single model.
#[derive(Debug, Clone, Copy)]
pub struct Overview {
    /// The number of columns of the terminal.
    pub width: usize,
    /// Whether all figures of each model follow.
    pub is_verbose: bool,
}

impl Exporter for Overview {
    fn render(&self, run: &Run) -> String {
        let groups = &run.summary.groups;
        let is_single = |pair: &[Group]| pair[0].spec.id.model == pair[1].spec.id.model;
        if groups.windows(2).all(is_single) {
            return SummaryTables.render(run);
        }
        let confidence = number(run.confidence * 100.0);
        let confidence = confidence.trim_end_matches('0').trim_end_matches('.');
        let mut out = format!(
            "Summary (mean ± half of its {confidence} % interval; * best, or not clearly worse)\n"
        );
        let tables = run.summary.comparable();
        for compared in &tables {
            out.push_str(&self.render_table(compared, run.confidence));
        }
        let remarks: String = match self.is_verbose {
            true => String::new(),
            false => groups.iter().map(|group| remarks(group, &tables)).collect(),
        };
        let remarks = simulated(groups) + &remarks;
        if !remarks.is_empty() {
            out.push_str(&format!("\n{remarks}"));
        }
        if self.is_verbose {
            out.push_str(&format!("\nAll figures\n{}", summary::tables(run)));
        }
        out
    }
}

impl Overview {
    /// Formats the table of groups that can be compared.
    fn render_table(&self, groups: &[&Group], confidence: f64) -> String {
        let workload = groups.first().and_then(|group| group.spec.workload.as_ref());
        let metrics = metrics(groups);
        let rows: Vec<_> =
            groups.iter().map(|group| model_row(group, metrics, confidence)).collect();
        let load = workload
            .map(|WorkloadSpec { name, shape, until, .. }| format!("{name}: {shape}, {until}"));
        let width = self.width.max(table::NARROW);
        format!("\n{}", models_table::render(load, &rows, metrics, width))
    }
}

/// Returns the metrics of the table of these groups.
fn metrics(groups: &[&Group]) -> &'static [&'static Metric] {
    let is_load = groups.iter().any(|group| group.spec.workload.is_some());
    models_table::columns(|metric| groups.iter().any(|group| group.count(metric) > 0), is_load)
}

fn model_row<'a>(group: &'a Group, metrics: &[&'static Metric], confidence: f64) -> ModelRow<'a> {
    ModelRow {
        name: &group.spec.model,
        valid: group.tally.valid,
        failed: group.tally.failed(),
        means: metrics.iter().map(|metric| mean(group, metric, confidence)).collect(),
    }
}

fn mean(group: &Group, metric: &Metric, confidence: f64) -> Option<Mean> {
    let estimate = group.estimate(metric, Statistic::Mean, confidence).ok()?;
    let interval = estimate.interval.ok().flatten();
    let interval = interval.filter(|of| of.low.is_finite() && of.high.is_finite());
    Some(Mean { value: estimate.value, interval })
}

/// Names the simulated models.
fn simulated(groups: &[Group]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for group in groups.iter().filter(|group| group.spec.is_simulated) {
        if !names.contains(&group.spec.model.as_str()) {
            names.push(&group.spec.model);
        }
    }
    let all = groups.iter().all(|group| group.spec.is_simulated);
    match (names.is_empty(), all) {
        (true, _) => String::new(),
        (false, true) => "  simulated: figures of a script, not of a model\n".into(),
        (false, false) => {
            let text =
                format!("simulated: figures of a script, not of a model: {}", names.join(", "));
            table::paragraph(&text, "  ")
        }
    }
}

/// Formats what a reader of the tables must know about a group, each in a line with its name.
fn remarks(group: &Group, tables: &[Vec<&Group>]) -> String {
    let mut lines = summary::losses(group);
    if group.tally.valid > 0 {
        lines.push_str(&summary::drifts(group));
        if group.tally.server_disagrees > 0 {
            lines.push_str(&summary::server_timings(group));
        }
        lines.push_str(&summary::yields(group));
        lines.push_str(&summary::server_over_time(group));
        let is_in = |table: &&Vec<&Group>| table.iter().any(|other| other.spec.id == group.spec.id);
        let of = metrics(tables.iter().find(is_in).map_or(&[group], |table| table));
        lines.push_str(&summary::absent(group, &|metric| metric.is_one_of(of)));
    }
    let name = group.name();
    lines.lines().map(|line| format!("  {name}: {}\n", line.trim_start())).collect()
}
