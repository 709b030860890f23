//! The family-wise error of the thresholds of a run.

use super::Verdict;

/// Gives each verdict the level at which it may fail, so that over all thresholds of a run the
/// probability of a fail where every limit is met is at most `level` (Holm 1979).
///
/// The smallest of `m` p values is compared with `level / m`, the next one with `level / (m − 1)`,
/// and so on. The first p value above its level ends it: the others do not fail.
pub fn assign_levels<'a>(verdicts: impl Iterator<Item = &'a mut Verdict>, level: f64) {
    let mut tested: Vec<_> = verdicts.filter(|verdict| verdict.p_of_miss().is_some()).collect();
    let all = tested.len();
    tested.sort_by(|a, b| {
        a.p_of_miss().partial_cmp(&b.p_of_miss()).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut may_fail = true;
    for (nth, verdict) in tested.into_iter().enumerate() {
        let of_rank = level / (all - nth) as f64;
        may_fail &= verdict.p_of_miss().is_some_and(|p| p <= of_rank);
        verdict.level = if may_fail { of_rank } else { level / all as f64 };
        verdict.may_fail = may_fail;
    }
}
