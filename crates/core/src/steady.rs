//! The part of a load that its figures are of: without the ramp, the warm-up, and the end in which
//! the load drains. Pure.
//!
//! `steady_state: auto` truncates by MSER, the marginal standard error rule (White 1997; White, Cobb and
//! Spratt 2000): the first `d` of `n` successive means are cut where
//! `Σ (mean − average)² / (n − d)²`, summed over the rest, is least; at most half are cut. The rule is
//! applied to `ttft` and to `e2e`, and the later cut counts. A load has no steady state if the
//! remaining means have a significant step or trend ([`trend`]) of more than 20 %: its figures depend
//! on how long it lasts. The window ends a mean answer time before the last start, because the
//! requests of that time end while the load drains.

use std::{sync::Arc, time::Duration};

use crate::{
    column::Storage,
    metric::{METRICS, Metric},
    phases::{Phases, Window, WindowRule},
    prompt::Prompt,
    recording::RequestError,
    sample::Sample,
    summary::Tally,
    trend::{self, Trend},
};

/// Why a load has no measured part.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoWindow {
    /// No request started in it.
    #[error(
        "no request started after the ramp and the warm-up: a longer load, or a shorter `ramp` and \
         `warm_up`, has some"
    )]
    Empty,
    /// There is too little to find it in.
    #[error(
        "requests started in {0} intervals of time, too few to find a steady state (at least \
         {MIN_SLICES}): a longer load has more, or `steady_state: {{ from: 10s }}` sets it"
    )]
    TooShort(usize),
    /// The figures change until the end.
    #[error(
        "no steady state: `{0}` keeps changing during the load: a longer load or `warm_up` may have \
         one, and a server below its capacity has"
    )]
    StillChanges(&'static str),
}

/// The fewest slices in which a steady state is searched for.
const MIN_SLICES: usize = 16;

/// The largest step or trend within a steady state, as a share.
const MAX_CHANGE: f64 = 0.2;

/// The number of slices at which two become one.
const MAX_SLICES: usize = 80;

/// The length of the first slices.
const SLICE: Duration = Duration::from_millis(10);

/// The requests of a load by their phase. The measured part is cut into slices of equal time if the
/// steady state is to be found in it.
#[derive(Debug)]
pub struct PhasedTally {
    phases: Phases,
    storage: Storage,
    before: Tally,
    slices: Vec<Tally>,
    /// The length of a slice.
    length: Duration,
    after: Tally,
    /// The first start of the measured part, once it is known.
    from: Option<Duration>,
    last_start: Duration,
}

/// A request that has ended, as [`PhasedTally::add`] takes it.
pub type TalliedRequest<'a> = (&'a Arc<Prompt>, u32, &'a Result<Sample, RequestError>);

/// The measured part of a load.
#[derive(Debug)]
pub struct MeasuredRequests {
    /// The requests that started in it.
    pub tally: Tally,
    /// When it was; `None` if the whole load is measured.
    pub window: Option<Window>,
    /// The means over all valid requests of the load, if only a part is measured.
    pub of_whole: Vec<(&'static Metric, f64)>,
    /// The length of the slices from which `window` was chosen.
    slice: Duration,
}

impl PhasedTally {
    /// Creates one without requests.
    pub fn new(phases: Phases, storage: &Storage) -> Self {
        let tally = || Tally::new(storage);
        Self {
            phases,
            storage: storage.clone(),
            before: tally(),
            slices: vec![tally()],
            length: SLICE,
            after: tally(),
            from: phases.measured_from(),
            last_start: Duration::ZERO,
        }
    }

    /// Sets when the measured part begins, if it depends on the number of requests.
    pub fn begin_at(&mut self, from: Duration) {
        self.from.get_or_insert(from);
    }

    /// Adds a request that started at `begun`, counted from the start of the load.
    pub fn add(&mut self, begun: Duration, (prompt, run, outcome): TalliedRequest<'_>) {
        self.last_start = self.last_start.max(begun);
        self.of(begun).add(prompt, run, outcome);
    }

    /// Returns the list for requests that started at `begun`.
    fn of(&mut self, begun: Duration) -> &mut Tally {
        if self.phases.is_whole() {
            return &mut self.slices[0];
        }
        let Some(since) = self.from.and_then(|from| begun.checked_sub(from)) else {
            return &mut self.before;
        };
        match self.phases.window {
            WindowRule::Rest => &mut self.slices[0],
            WindowRule::Between(_, to) if to.is_some_and(|to| begun > to) => &mut self.after,
            WindowRule::Between(..) => &mut self.slices[0],
            WindowRule::Found => self.slice(since),
        }
    }

    fn slice(&mut self, since: Duration) -> &mut Tally {
        let place = |length: Duration| (since.as_nanos() / length.as_nanos()) as usize;
        while place(self.length) >= MAX_SLICES {
            self.join_pairs();
        }
        let (place, storage) = (place(self.length), &self.storage);
        if place >= self.slices.len() {
            self.slices.resize_with(place + 1, || Tally::new(storage));
        }
        &mut self.slices[place]
    }

    fn join_pairs(&mut self) {
        self.length *= 2;
        let mut slices = std::mem::take(&mut self.slices).into_iter();
        while let Some(mut slice) = slices.next() {
            slices.next().into_iter().for_each(|next| slice.merge(next));
            self.slices.push(slice);
        }
    }

    /// Returns the requests of all phases.
    pub fn all(&self) -> Tally {
        let mut all = Tally::new(&self.storage);
        self.parts().for_each(|part| all.merge(part.clone()));
        all
    }

    /// Returns the number of requests of all phases.
    pub fn finished(&self) -> usize {
        self.parts().map(Tally::finished).sum()
    }

    /// Returns the number of requests of the measured part so far.
    pub fn measured(&self) -> usize {
        self.slices.iter().map(Tally::finished).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &Tally> {
        [&self.before].into_iter().chain(&self.slices).chain([&self.after])
    }

    /// Returns the measured part. A part of a mix is measured when the `whole` load is.
    pub fn measure(
        mut self,
        whole: Option<&MeasuredRequests>,
    ) -> Result<MeasuredRequests, NoWindow> {
        if self.phases.is_whole() {
            let tally = self.slices.into_iter().next().unwrap_or_default();
            return Ok(MeasuredRequests {
                tally,
                window: None,
                of_whole: Vec::new(),
                slice: SLICE,
            });
        }
        let of_whole = self.means();
        let window = match whole.and_then(|whole| Some((whole.window?, whole.slice))) {
            Some((window, slice)) => {
                while self.length < slice {
                    self.join_pairs();
                }
                window
            }
            None => self.window()?,
        };
        let from = self.from.unwrap_or_default();
        let Self { slices, length, storage, phases, .. } = self;
        let mut tally = Tally::new(&storage);
        for (slice, nth) in slices.into_iter().zip(0_u32..) {
            // The window has whole slices.
            let middle = from + length * nth + length / 2;
            if phases.window != WindowRule::Found || window.holds(middle) {
                tally.merge(slice);
            }
        }
        Ok(MeasuredRequests { tally, window: Some(window), of_whole, slice: length })
    }

    /// The means of all metrics over all requests.
    fn means(&self) -> Vec<(&'static Metric, f64)> {
        let mean = |metric: &'static Metric| {
            let (mut sum, mut count) = (0.0, 0);
            for part in self.parts() {
                let values = part.values(metric);
                sum += values.iter().sum::<f64>();
                count += values.len();
            }
            (count > 0).then(|| (metric, sum / count as f64))
        };
        METRICS.iter().filter_map(mean).collect()
    }

    fn window(&self) -> Result<Window, NoWindow> {
        let from = self.from.ok_or(NoWindow::Empty)?;
        let to = match self.phases.window {
            WindowRule::Between(_, Some(to)) => to.min(self.last_start),
            _ => self.last_start,
        };
        if self.measured() == 0 || to <= from {
            return Err(NoWindow::Empty);
        }
        let WindowRule::Found = self.phases.window else { return Ok(Window { from, to }) };
        let first = self.first_steady_slice()?;
        let from = from + self.length * u32::try_from(first).unwrap_or(u32::MAX);
        // Requests that start in the last answer time end while the load drains.
        let drain = Duration::try_from_secs_f64(self.mean_e2e()).unwrap_or_default();
        let slices =
            to.saturating_sub(drain).saturating_sub(from).as_nanos() / self.length.as_nanos();
        // The end counts, the start of the next slice does not.
        let to = from + self.length * u32::try_from(slices).unwrap_or(u32::MAX);
        let to = to.saturating_sub(Duration::from_nanos(1));
        if slices > 0 { Ok(Window { from, to }) } else { Err(NoWindow::TooShort(0)) }
    }

    /// The mean answer time in the part in which the steady state is searched for.
    fn mean_e2e(&self) -> f64 {
        let values = || self.slices.iter().map(|slice| slice.values(Metric::E2E));
        let count: usize = values().map(|values| values.len()).sum();
        let sum: f64 = values().map(|values| values.iter().sum::<f64>()).sum();
        if count > 0 { sum / count as f64 } else { 0.0 }
    }

    /// The first slice of the steady state.
    fn first_steady_slice(&self) -> Result<usize, NoWindow> {
        let mut first = 0;
        for metric in [Metric::TTFT, Metric::E2E] {
            let mean = |slice: &Tally| {
                let values = slice.values(metric);
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            let means: Vec<_> = self.slices.iter().map(mean).enumerate().collect();
            let (places, means): (Vec<_>, Vec<_>) =
                means.into_iter().filter_map(|(nth, mean)| Some((nth, mean?))).unzip();
            if means.is_empty() {
                // Answers that are not streamed have no first token.
                continue;
            }
            if means.len() < MIN_SLICES {
                return Err(NoWindow::TooShort(means.len()));
            }
            let cut = unsteady(&means).ok_or(NoWindow::StillChanges(metric.name))?;
            first = first.max(places[cut]);
        }
        Ok(first)
    }
}

/// Returns how many of the first means are cut; `None` if the others keep changing.
fn unsteady(means: &[f64]) -> Option<usize> {
    let cut = mser(means);
    // MSER finds the level that lasts longest, not whether it lasts.
    let changes = |trend: Trend| trend.p <= trend::SIGNIFICANT && trend.change.abs() > MAX_CHANGE;
    let is_steady = !trend::test(&means[cut..]).is_some_and(changes);
    is_steady.then_some(cut)
}

/// Returns how many of the first means are to be cut by MSER, at most half of them.
pub fn mser(means: &[f64]) -> usize {
    let value = |cut: usize| {
        let rest = &means[cut..];
        let (count, average) = (rest.len() as f64, rest.iter().sum::<f64>() / rest.len() as f64);
        rest.iter().map(|mean| (mean - average).powi(2)).sum::<f64>() / (count * count)
    };
    let half = 0..=means.len() / 2;
    half.min_by(|a, b| value(*a).total_cmp(&value(*b))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;
    use crate::phases::WarmUp;

    /// Means with noise of 10 % around `level`, which depends on the place in the load (0 to 1).
    fn means(seed: u64, level: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let noise = |random: &mut Pcg64Mcg| {
            (0..12).map(|_| random.random_range(-0.5..0.5)).sum::<f64>() * 0.1
        };
        (0..64).map(|nth| level(f64::from(nth) / 64.0) * (1.0 + noise(&mut random))).collect()
    }

    /// The cuts of 30 loads; `None` for those without a steady state.
    fn cuts(level: impl Fn(f64) -> f64 + Copy) -> Vec<Option<usize>> {
        (0..30).map(|seed| unsteady(&means(seed, level))).collect()
    }

    #[test]
    fn the_start_is_cut_and_a_steady_load_is_kept() {
        let within = |cuts: &[Option<usize>], from: usize, to: usize| {
            cuts.iter().flatten().filter(|cut| (from..=to).contains(*cut)).count()
        };
        let steady = cuts(|_| 1.0);
        assert!(steady.iter().flatten().count() >= 29, "{steady:?}");
        assert!(within(&steady, 0, 16) >= 24, "{steady:?}");
        // A fifth of the load is three times as slow.
        let start = cuts(|at| if at < 0.2 { 3.0 } else { 1.0 });
        assert_eq!(within(&start, 13, 32), 30, "{start:?}");
        assert!(within(&start, 13, 20) >= 24, "{start:?}");
        // A start that falls off exponentially: 7 % above the level are left after a fifth.
        let decay = cuts(|at| 1.0 + 4.0 * (-at * 20.0).exp());
        assert!(within(&decay, 6, 26) >= 27, "{decay:?}");
        // A load with a small drift is kept.
        let small = cuts(|at| 1.0 + 0.1 * at);
        assert!(small.iter().flatten().count() >= 29, "{small:?}");
    }

    #[test]
    fn a_load_that_keeps_changing_has_no_steady_state() {
        // A queue that grows until the end, and a server that becomes slower late.
        let growing = cuts(|at| 1.0 + 3.0 * at);
        assert!(growing.iter().flatten().count() <= 1, "{growing:?}");
        let late = cuts(|at| if at < 0.7 { 1.0 } else { 2.0 });
        assert_eq!(late.iter().flatten().count(), 0, "{late:?}");
    }

    #[test]
    fn the_rule_is_that_of_the_literature_on_a_small_example() {
        // By hand: Σ (x − average)² / n² is 39.9/64 = 0.62 for all, 6.86/49 = 0.140 without the first,
        // 6/36 = 0.167 without two, 4.8/25 = 0.192 without three.
        let means = [8.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 1.0];
        assert_eq!(mser(&means), 1);
        assert_eq!(mser(&[]), 0);
    }

    #[test]
    fn slices_join_without_losing_requests_and_the_window_has_whole_ones() {
        let prompt = Arc::new(Prompt::new("a", None, "b"));
        let phases = Phases { window: WindowRule::Found, ..Phases::default() };
        let mut tally = PhasedTally::new(phases, &Storage::default());
        let failed = Err(RequestError::new(crate::recording::ErrorKind::Broken, "cut"));
        for nth in 0..5_000_u64 {
            tally.add(Duration::from_millis(7 * nth), (&prompt, 1, &failed));
        }
        assert!((40..=MAX_SLICES).contains(&tally.slices.len()), "{}", tally.slices.len());
        assert_eq!(
            (tally.finished(), tally.measured(), tally.all().failed()),
            (5_000, 5_000, 5_000)
        );
        // Nothing but failures: only the last slice is cut, which is not whole.
        let measured = tally.measure(None).unwrap();
        let window = measured.window.unwrap();
        let starts = (0..5_000).map(|nth| Duration::from_millis(7 * nth));
        assert_eq!(measured.tally.failed(), starts.filter(|start| window.holds(*start)).count());
        assert!(measured.tally.failed() > 4_800);
    }

    #[test]
    fn phases_are_told_apart_by_the_start() {
        let prompt = Arc::new(Prompt::new("a", None, "b"));
        let seconds = Duration::from_secs;
        let failed = Err(RequestError::new(crate::recording::ErrorKind::Broken, "cut"));
        let measured = |phases: Phases, from: Option<u64>| {
            let mut tally = PhasedTally::new(phases, &Storage::default());
            from.into_iter().for_each(|from| tally.begin_at(seconds(from)));
            (0..100).for_each(|at| tally.add(seconds(at), (&prompt, 1, &failed)));
            tally.measure(None).map(|of| (of.tally.failed(), of.window.map(|at| (at.from, at.to))))
        };
        let of = |warm_up, window| Phases { ramp: seconds(10), warm_up, window };
        let window = |from, to| Some((seconds(from), seconds(to)));
        let rest = WindowRule::Rest;
        assert_eq!(measured(Phases::default(), None), Ok((100, None)));
        assert_eq!(measured(of(WarmUp::None, rest), None), Ok((90, window(10, 99))));
        assert_eq!(measured(of(WarmUp::Time(seconds(5)), rest), None), Ok((85, window(15, 99))));
        assert_eq!(measured(of(WarmUp::Requests(20), rest), Some(30)), Ok((70, window(30, 99))));
        assert_eq!(measured(of(WarmUp::Requests(90), rest), None), Err(NoWindow::Empty));
        let between = WindowRule::Between(seconds(20), Some(seconds(60)));
        assert_eq!(measured(of(WarmUp::None, between), None), Ok((41, window(20, 60))));
        let late = WindowRule::Between(seconds(100), None);
        assert_eq!(measured(of(WarmUp::None, late), None), Err(NoWindow::Empty));
    }
}
