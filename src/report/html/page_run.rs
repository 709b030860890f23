//! A run as the page reads it, and the figures of `run.json` as the page shows them.

use llm_stream_core::lacking::MissingReason;
use maud::{Markup, Render, html};

use super::{
    keys::ModelKey,
    numbers::{THIN, decimals_for, display_unit, fixed, plain},
    requests::{GroupRequests, RequestTable},
};
use crate::report::json::model::{FigureReport, GroupReport, IntervalReport, RunReport};

/// A stored run: `run.json` and the requests of `requests.jsonl`.
#[derive(Debug)]
pub(crate) struct PageRun<'r> {
    /// The name of its folder.
    pub(super) name: String,
    pub(super) report: &'r RunReport<'static>,
    pub(super) requests: RequestTable,
    /// Whether `requests.jsonl` was there.
    pub(super) has_requests: bool,
    /// Its position on the page.
    pub(super) position: usize,
}

impl PageRun<'_> {
    /// Returns when the run started.
    pub(super) fn started(&self) -> Option<jiff::Timestamp> {
        self.report.setup.as_ref().map(|setup| setup.started).or(self.requests.started)
    }
}

/// A group of a run with its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageGroup<'p> {
    pub(super) run: usize,
    pub(super) position: usize,
    pub(super) report: &'p GroupReport<'static>,
    pub(super) requests: &'p GroupRequests,
}

impl<'p> PageGroup<'p> {
    /// Returns a figure of the group.
    pub(super) fn figure(&self, metric: &str) -> Option<&'p FigureReport> {
        self.report.metrics.get(metric)
    }

    /// Returns a statistic as the page shows it.
    pub(super) fn shown(
        &self,
        metric: &'static str,
        statistic: &'static str,
    ) -> Option<ShownFigure> {
        let figure = self.figure(metric)?;
        let value = statistic_of(figure, statistic)?;
        let scale = display_scale(metric);
        let half = interval_of(figure, statistic).and_then(half_width);
        let decimals = half.map(|half| decimals_for(half * scale, value * scale));
        Some(ShownFigure {
            run: self.run,
            path: format!("groups/{}/metrics/{metric}/{statistic}", self.position),
            value,
            scale,
            half: half.map(|half| half * scale),
            decimals,
        })
    }

    /// Returns the table cell of a statistic: the figure, or why it is absent.
    pub(super) fn cell(&self, metric: &'static str, statistic: &'static str) -> Markup {
        match self.shown(metric, statistic) {
            Some(shown) => shown.cell(),
            None => html! { td.r { (self.why_absent(metric, statistic)) } },
        }
    }

    /// Returns why a statistic is absent: that nothing was streamed, the number of values that it
    /// needs, or a dash.
    pub(super) fn why_absent(&self, metric: &str, statistic: &str) -> String {
        let reasons = self.figure(metric).map(|figure| &figure.lacking_because);
        if reasons.is_some_and(|reasons| reasons.get(MissingReason::NotStreamed.name()).is_some()) {
            return MissingReason::NotStreamed.to_string();
        }
        let needs = self.figure(metric).and_then(|figure| figure.needs.get(statistic));
        needs.map_or_else(|| "–".into(), |needs| format!("needs {needs}"))
    }

    /// Returns whether the group is a load.
    pub(super) fn is_load(&self) -> bool {
        self.report.workload.is_some()
    }

    /// Returns the workload's name.
    pub(super) fn workload(&self) -> Option<&'p str> {
        self.report.workload.as_ref().map(|workload| &*workload.name)
    }
}

/// A figure of `run.json`, as the page shows it. Its place in the file goes into the page, so that a
/// reader, a program or a test can look it up.
#[derive(Debug, Clone)]
pub(super) struct ShownFigure {
    run: usize,
    path: String,
    /// In the unit of the file.
    value: f64,
    scale: f64,
    /// Half of the interval's width, in the unit of the page.
    pub(super) half: Option<f64>,
    decimals: Option<usize>,
}

impl ShownFigure {
    /// Creates a figure that is not a statistic of a group.
    pub(super) fn at(run: usize, path: String, value: f64, scale: f64) -> Self {
        Self { run, path, value, scale, half: None, decimals: None }
    }

    /// Sets the number of decimals.
    pub(super) fn with_decimals(self, decimals: usize) -> Self {
        Self { decimals: Some(decimals), ..self }
    }

    /// Returns the value in the unit of the page.
    pub(super) fn value(&self) -> f64 {
        self.value * self.scale
    }

    /// Returns the value without its unit. Three digits are enough for reading.
    pub(super) fn text(&self) -> String {
        // A number of tokens or requests.
        let is_count = self.scale == 1.0 && self.half.is_none_or(|half| half == 0.0);
        if is_count && self.value.fract() == 0.0 && self.value.abs() < 1e15 {
            return fixed(self.value, 0);
        }
        let short = plain(self.value());
        let decimals = short.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        match self.decimals {
            Some(most) if most < decimals => fixed(self.value(), most),
            _ => short,
        }
    }

    /// Returns the value with all digits that the interval leaves.
    pub(super) fn exact(&self) -> String {
        self.decimals.map_or_else(|| plain(self.value()), |decimals| fixed(self.value(), decimals))
    }

    /// Returns half of the interval with two significant digits.
    pub(super) fn half_text(&self) -> Option<String> {
        let half = self.half.filter(|half| half.is_finite())?;
        Some(format!("±{THIN}{}", fixed(half, self.decimals.unwrap_or(2))))
    }

    /// Returns a table cell.
    pub(super) fn cell(&self) -> Markup {
        html! { td.r { (self) } }
    }

    fn element(&self, text: &str) -> Markup {
        let scale = (self.scale != 1.0).then(|| self.scale.to_string());
        let run = (self.run > 0).then(|| self.run.to_string());
        html! { span.v data-json=(self.path) data-scale=[scale] data-run=[run] { (text) } }
    }

    /// Returns the value with all digits that the interval leaves, as markup.
    pub(super) fn exact_element(&self) -> Markup {
        self.element(&self.exact())
    }
}

impl Render for ShownFigure {
    fn render(&self) -> Markup {
        self.element(&self.text())
    }
}

/// Returns the number of units that the page shows in one of the file's.
pub(super) fn display_scale(metric: &str) -> f64 {
    let unit = llm_stream_core::metric::Metric::named(metric).map(|metric| metric.unit);
    unit.map_or(1.0, |unit| unit.display().1)
}

/// Returns the unit of a metric on the page.
pub(super) fn display_name(unit: &str) -> &str {
    display_unit(unit).0
}

/// Returns a statistic of a figure by its name.
pub(super) fn statistic_of(figure: &FigureReport, statistic: &str) -> Option<f64> {
    match statistic {
        "mean" => figure.mean,
        "median" => figure.median,
        "sd" => figure.sd,
        "min" => figure.min,
        "max" => figure.max,
        "p5" => figure.p5,
        "p25" => figure.p25,
        "p75" => figure.p75,
        "p90" => figure.p90,
        "p95" => figure.p95,
        "p99" => figure.p99,
        _ => None,
    }
}

/// Returns the interval of a statistic that has one.
pub(super) fn interval_of<'f>(
    figure: &'f FigureReport,
    statistic: &str,
) -> Option<&'f IntervalReport> {
    match statistic {
        "mean" => figure.intervals.mean.as_ref(),
        "median" => figure.intervals.median.as_ref(),
        _ => None,
    }
}

/// Returns the ends of an interval; infinite ones are not bounded by the sample.
pub(super) const fn ends(interval: &IntervalReport) -> (f64, f64) {
    (interval.low, interval.high)
}

fn half_width(interval: &IntervalReport) -> Option<f64> {
    let (low, high) = ends(interval);
    Some((high - low) / 2.0).filter(|half| half.is_finite())
}

/// Returns the confidence of the intervals of the main run in percent, without trailing zeros.
pub(super) fn confidence(page: &PageData<'_>) -> String {
    let text = format!("{:.3}", 100.0 * page.main().report.confidence);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// All that the sections of the page are made from.
#[derive(Debug)]
pub(super) struct PageData<'r> {
    /// The newest run first.
    pub(super) runs: Vec<PageRun<'r>>,
    /// The models of all runs, in the order of the config.
    pub(super) keys: Vec<ModelKey>,
}

impl<'r> PageData<'r> {
    /// Gathers the models of the runs. The newest run is the subject of the page; the others are shown
    /// next to it.
    pub(super) fn new(mut runs: Vec<PageRun<'r>>) -> Self {
        runs.sort_by_key(|run| std::cmp::Reverse(run.started()));
        runs.iter_mut().enumerate().for_each(|(position, run)| run.position = position);
        let mut models: Vec<(String, bool)> = Vec::new();
        for group in runs.iter().flat_map(|run| &run.report.groups) {
            if !models.iter().any(|(name, _)| *name == *group.model) {
                models.push((group.model.to_string(), group.simulated));
            }
        }
        // A run may have ended before its first group.
        if models.is_empty() {
            models.push(("no model".into(), false));
        }
        let several = models.len() > 1;
        let key = |(index, (name, simulated)): (usize, (String, bool))| {
            ModelKey::new(index, &name, simulated, several)
        };
        let keys = models.into_iter().enumerate().map(key).collect();
        Self { runs, keys }
    }

    /// Returns the subject of the page.
    pub(super) fn main(&self) -> &PageRun<'r> {
        &self.runs[0]
    }

    /// Returns when a run started, with as much of the date as tells the runs of the page apart; the
    /// name of its folder if that is not known.
    pub(super) fn run_label(&self, run: usize) -> String {
        let of = &self.runs[run];
        let Some(started) = of.started() else { return of.name.clone() };
        let day = |started: jiff::Timestamp| started.strftime("%Y-%m-%d").to_string();
        let is_one_day =
            self.runs.iter().all(|other| other.started().map(day) == Some(day(started)));
        let format = if is_one_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
        let label = started.strftime(format).to_string();
        let is_unique = self.runs.iter().filter(|other| {
            other.started().is_some_and(|other| other.strftime(format).to_string() == label)
        });
        if is_unique.count() == 1 { label } else { of.name.clone() }
    }

    /// Returns the groups of a run.
    pub(super) fn groups(&self, run: usize) -> impl Iterator<Item = PageGroup<'_>> {
        let of = &self.runs[run];
        let pairs = of.report.groups.iter().zip(&of.requests.groups).enumerate();
        pairs.map(move |(position, (report, requests))| PageGroup {
            run,
            position,
            report,
            requests,
        })
    }

    /// Returns the groups of the main run whose requests were sent one by one.
    pub(super) fn one_by_one(&self) -> Vec<PageGroup<'_>> {
        self.groups(0).filter(|group| !group.is_load()).collect()
    }

    /// Returns the loads of the main run.
    pub(super) fn loads(&self) -> Vec<PageGroup<'_>> {
        self.groups(0).filter(PageGroup::is_load).collect()
    }

    /// Returns the group of another run with the same model and workload.
    pub(super) fn counterpart(&self, run: usize, of: &PageGroup<'_>) -> Option<PageGroup<'_>> {
        let is_it = |group: &PageGroup<'_>| {
            group.report.model == of.report.model && group.workload() == of.workload()
        };
        self.groups(run).find(is_it)
    }

    /// Returns the key of a group's model.
    pub(super) fn key(&self, group: &PageGroup<'_>) -> &ModelKey {
        self.key_named(&group.report.model)
    }

    /// Returns the key of a model.
    pub(super) fn key_named(&self, model: &str) -> &ModelKey {
        self.keys.iter().find(|key| key.model == model).unwrap_or(&self.keys[0])
    }
}
