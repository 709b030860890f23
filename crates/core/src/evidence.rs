//! Evidence that a part of the requests changed: one prompt, or a tail of slow requests. Pure.
//!
//! A mean hides both. One prompt of ten that takes three times as long adds 20 % to the mean and to
//! the noise of the mean; one request of ten that takes four times as long does the same. So each is
//! tested by itself, on logarithms, where a factor is a distance.
//!
//! - **Prompts**: a t test of each prompt with its moderated variance (see `moderation`), or with that of
//!   all prompts if it is larger. Few values can all be outliers, so almost every value of the prompt must be slower than before
//!   as well. The p value is multiplied by the number of prompts (Bonferroni).
//! - **Tails**: the requests that take more than twice the median of their prompt, before and now:
//!   the exact test of Fisher with the mid-p value of Lancaster (1961), or for pairs the sign test of
//!   McNemar (1947). Slow requests that follow each other count once.

use std::collections::BTreeMap;

use statrs::distribution::{Binomial, ContinuousCDF, Discrete, DiscreteCDF, Hypergeometric};

use crate::{
    interval::student,
    moderation::Moderation,
    statistic::{Statistic, mean},
};

/// A request is slow if it takes this many times the median of its prompt.
const SLOW: f64 = 2.0;

/// The fewest values of a prompt for a test of the prompt.
const MIN_OF_PROMPT: usize = 3;

/// How far almost every value of a prompt must be from the earlier ones, in robust standard
/// deviations.
const CLEAR: f64 = 3.0;

/// The ratio of a normal standard deviation to the median absolute deviation.
const MAD_RATIO: f64 = 1.482_602_2;

/// A prompt that changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptChange {
    /// The number of the prompt.
    pub stratum: u32,
    /// Its geometric mean before; `None` in pairs.
    pub before: Option<f64>,
    /// Its relative change.
    pub relative: f64,
    /// The one-sided p value, times the number of prompts.
    pub p: f64,
}

/// The logarithms of the values of one prompt. In pairs, `now` holds the differences of the two
/// logarithms and `before` is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct PromptLogs {
    pub(crate) now: Vec<f64>,
    pub(crate) before: Vec<f64>,
}

impl PromptLogs {
    fn mean_change(&self) -> f64 {
        mean(&self.now) - if self.before.is_empty() { 0.0 } else { mean(&self.before) }
    }

    fn is_testable(&self, is_paired: bool) -> bool {
        self.now.len() >= MIN_OF_PROMPT && (is_paired || !self.before.is_empty())
    }

    /// The sum of squared deviations from the means, and its degrees of freedom.
    fn squares(&self) -> (f64, f64) {
        let of = |values: &[f64]| {
            let center = if values.is_empty() { 0.0 } else { mean(values) };
            values.iter().map(|value| (value - center).powi(2)).sum::<f64>()
        };
        let freedom = self.now.len().saturating_sub(1) + self.before.len().saturating_sub(1);
        (of(&self.now) + of(&self.before), freedom as f64)
    }

    /// `1 / n + 1 / m`.
    fn reciprocal_sizes(&self) -> f64 {
        let before = if self.before.is_empty() { 0.0 } else { 1.0 / self.before.len() as f64 };
        1.0 / self.now.len() as f64 + before
    }

    /// The change of almost the least changed value, in the direction `sign`: all but one in
    /// sixteen outliers would have to be outliers together to move it.
    fn clear_change(&self, sign: f64) -> f64 {
        let mut now: Vec<_> = self.now.iter().map(|value| sign * value).collect();
        now.sort_by(f64::total_cmp);
        let center = if self.before.is_empty() { 0.0 } else { median(&self.before) };
        // Of three to five values the least; of more, the lower quartile.
        now[(now.len() - 2) / 4] - sign * center
    }
}

/// Returns the prompt whose change in the direction `sign` (1 or −1) is the most significant.
/// `between` is the variance of the difference of two runs, with its degrees of freedom.
pub(crate) fn of_prompts(
    prompts: &BTreeMap<u32, PromptLogs>,
    sign: f64,
    (between, of_between): (f64, f64),
) -> Option<PromptChange> {
    let is_paired = prompts.values().all(|of| of.before.is_empty());
    let testable = || prompts.iter().filter(|(_, of)| of.is_testable(is_paired));
    let moderation = Moderation::of(testable().map(|(_, of)| of.squares()));
    let scale = robust_scale(testable().map(|(_, of)| of));
    let test = |(stratum, of): (&u32, &PromptLogs)| {
        let (variance, freedom) = moderation.variance_or_more(of.squares());
        let within = variance * of.reciprocal_sizes();
        let error = (within + between).sqrt();
        let change = of.mean_change();
        let freedom = match within + between > 0.0 {
            true => {
                (within + between).powi(2)
                    / (within.powi(2) / freedom + between.powi(2) / of_between)
            }
            false => freedom,
        };
        let is_clear = of.clear_change(sign) > CLEAR * scale.hypot(between.sqrt());
        let p = match is_clear {
            true if error > 0.0 => student(freedom).sf(sign * change / error),
            true => 0.0,
            false => 1.0,
        };
        let before = (!of.before.is_empty()).then(|| mean(&of.before).exp());
        PromptChange { stratum: *stratum, before, relative: change.exp_m1(), p }
    };
    let all = testable().count() as f64;
    let worst = testable().map(test).min_by(|a, b| a.p.total_cmp(&b.p))?;
    Some(PromptChange { p: (worst.p * all).min(1.0), ..worst })
}

/// The standard deviation within prompts, by the median absolute deviation.
fn robust_scale<'a>(prompts: impl Iterator<Item = &'a PromptLogs>) -> f64 {
    let mut deviations = Vec::new();
    for values in prompts.flat_map(|of| [&of.now, &of.before]).filter(|of| of.len() > 1) {
        let (center, n) = (median(values), values.len() as f64);
        // The median of few values is near all of them.
        let shrunk = (n / (n - 1.0)).sqrt();
        deviations.extend(values.iter().map(|value| (value - center).abs() * shrunk));
    }
    if deviations.is_empty() { 0.0 } else { MAD_RATIO * median(&deviations) }
}

/// Counts the slow requests of a run, given the logarithms of their values divided by the typical
/// value of their prompt. A run that is slow as a whole has none. Slow requests that follow each
/// other count once, since one event may have slowed all of them.
pub(crate) fn slow_events(logs: &[f64], sign: f64) -> usize {
    let level = if logs.is_empty() { 0.0 } else { median(logs) };
    let is_slow = |log: &f64| sign * (log - level) > SLOW.ln();
    let mut was_slow = false;
    let starts =
        logs.iter().filter(|log| !std::mem::replace(&mut was_slow, is_slow(log)) && is_slow(log));
    starts.count()
}

/// Returns the p value of more slow requests in the second place of pairs than in the first, given
/// the logarithms of their ratios.
pub(crate) fn slow_pairs(logs: &[f64], sign: f64) -> f64 {
    sign_test(slow_events(logs, sign), slow_events(logs, -sign))
}

/// Returns the one-sided mid-p value of Fisher's exact test: are `now` of `of_now` requests more
/// than `before` of `of_before`?
pub(crate) fn fisher((now, of_now): (usize, usize), (before, of_before): (usize, usize)) -> f64 {
    if now == 0 {
        return 1.0;
    }
    let (all, slow, drawn) = (of_now + of_before, now + before, of_now);
    let Ok(counts) = Hypergeometric::new(all as u64, slow as u64, drawn as u64) else { return 1.0 };
    counts.sf(now as u64) + counts.pmf(now as u64) / 2.0
}

/// Returns the one-sided mid-p value of the sign test: is `more` of `more + less` pairs by chance?
pub(crate) fn sign_test(more: usize, less: usize) -> f64 {
    if more == 0 {
        return 1.0;
    }
    let Ok(counts) = Binomial::new(0.5, (more + less) as u64) else { return 1.0 };
    counts.sf(more as u64) + counts.pmf(more as u64) / 2.0
}

pub(crate) fn median(values: &[f64]) -> f64 {
    Statistic::Median.of(values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_agree_with_scipy() {
        // hypergeom(200, 7, 100).sf(6) + pmf(7) / 2 has only the pmf: C(100, 7) / C(200, 7).
        assert!((fisher((7, 100), (0, 100)) - 0.006_967 / 2.0).abs() < 1e-4);
        assert!(fisher((3, 100), (3, 100)) > 0.3);
        assert_eq!(fisher((0, 10), (0, 10)), 1.0);
        assert!((sign_test(7, 0) - 0.5_f64.powi(8)).abs() < 1e-12);
        assert_eq!(sign_test(0, 0), 1.0);
    }

    #[test]
    fn slow_requests_in_a_row_are_one_event() {
        let logs = |text: &str| -> Vec<f64> {
            text.chars().map(|c| if c == 'x' { 1.0 } else { 0.1 }).collect()
        };
        assert_eq!(slow_events(&logs("..x..xx.x"), 1.0), 3);
        assert_eq!(slow_events(&logs("..x..xx.x"), -1.0), 0);
        assert_eq!(slow_events(&logs("xxx"), 1.0), 0);
        assert_eq!(slow_events(&[], 1.0), 0);
    }

    #[test]
    fn the_prompt_that_changed_is_named_and_two_outliers_of_three_are_no_change() {
        let noise = |nth: u32| f64::from(nth * 7 % 11) * 0.02;
        let logs = |nth: u32| (0..3).map(|k| noise(3 * nth + k)).collect::<Vec<_>>();
        let mut prompts: BTreeMap<u32, PromptLogs> = (0..10)
            .map(|nth| (nth, PromptLogs { now: logs(nth), before: logs(nth + 20) }))
            .collect();
        let test = |prompts: &BTreeMap<_, _>| of_prompts(prompts, 1.0, (0.0, 1.0)).unwrap();
        assert!(test(&prompts).p > 0.1);
        prompts.get_mut(&4).unwrap().now = vec![1.6, 1.65, 0.1];
        assert_eq!(test(&prompts).p, 1.0);
        prompts.get_mut(&4).unwrap().now = vec![1.1, 1.2, 1.05];
        let found = test(&prompts);
        assert_eq!(found.stratum, 4);
        assert!(found.p < 1e-3 && found.relative > 1.5, "{found:?}");
    }
}
