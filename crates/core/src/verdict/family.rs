//! The family-wise error of several tests.

use super::Verdict;

/// Returns the level at which each p value is significant if it is, so that the probability of any
/// false finding is at most `level` (Holm 1979).
///
/// The smallest of `m` p values is compared with `level / m`, the next one with `level / (m − 1)`,
/// and so on. The first p value above its level ends it: the others are not significant.
pub fn significant_levels(p_values: &[f64], level: f64) -> Vec<Option<f64>> {
    let mut order: Vec<_> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut levels = vec![None; p_values.len()];
    for (rank, (nth, p)) in order.iter().enumerate() {
        let of_rank = level / (order.len() - rank) as f64;
        if *p > of_rank {
            break;
        }
        levels[*nth] = Some(of_rank);
    }
    levels
}

/// Gives each verdict the level at which it may fail, so that over all thresholds of a run the
/// probability of a fail where every limit is met is at most `level`.
pub fn assign_levels<'a>(verdicts: impl Iterator<Item = &'a mut Verdict>, level: f64) {
    let tested = verdicts.filter_map(|verdict| Some((verdict.p_of_miss()?, verdict)));
    let (p_values, tested): (Vec<_>, Vec<_>) = tested.unzip();
    let all = tested.len() as f64;
    for (verdict, significant) in tested.into_iter().zip(significant_levels(&p_values, level)) {
        verdict.may_fail = significant.is_some();
        verdict.level = significant.unwrap_or(level / all);
    }
}
