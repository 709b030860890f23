//! The spread of values within their prompts. Pure.
//!
//! A standard deviation over all requests would mix two things: the noise of a request, and the
//! difference between short and long prompts, which is not noise. The standard deviation here is pooled:
//! squared deviations from the mean of the same prompt, divided by the number of values less the number
//! of prompts (Snedecor and Cochran 1989, "Statistical Methods", section 6.4).

use std::collections::BTreeMap;

use crate::{interval::StratifiedSample, statistic::Absent};

/// Returns the deviations of the values from the mean of their stratum, scaled so that their sample
/// standard deviation (n − 1) is the pooled one. Strata with one value say nothing and are left out.
pub fn within_strata(sample: StratifiedSample<'_>) -> Result<Vec<f64>, Absent> {
    let mut strata: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (nth, value) in sample.values.iter().enumerate() {
        // Values without strata form one stratum.
        let stratum = sample.strata.get(nth).copied().unwrap_or_default();
        strata.entry(stratum).or_default().push(*value);
    }
    let all = strata.len();
    strata.retain(|_, values| values.len() > 1);
    let n: usize = strata.values().map(Vec::len).sum();
    if n == 0 {
        return Err(Absent::TooFew { needs: all.max(1) + 1, has: sample.values.len() });
    }
    let scale = ((n - 1) as f64 / (n - strata.len()) as f64).sqrt();
    let deviations = strata.values().flat_map(|values| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(move |value| (value - mean) * scale)
    });
    Ok(deviations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistic::Statistic;

    fn sd(values: &[f64], strata: &[u32]) -> Result<f64, Absent> {
        within_strata(StratifiedSample { values, strata })
            .and_then(|deviations| Statistic::Sd.of(&deviations))
    }

    #[test]
    fn the_difference_between_prompts_is_not_spread() {
        // Squares of 0.5, twice 0.5 and twice 2: (0.5 + 8) / (5 − 2).
        let values = [1.0, 2.0, 101.0, 103.0, 105.0];
        let pooled = sd(&values, &[0, 0, 1, 1, 1]).unwrap();
        assert!((pooled - (8.5_f64 / 3.0).sqrt()).abs() < 1e-12, "{pooled}");
        // One more prompt, asked once, changes nothing.
        let more = [&values[..], &[1e6]].concat();
        let same = sd(&more, &[0, 0, 1, 1, 1, 2]).unwrap();
        assert!((same - pooled).abs() < 1e-12, "{same}");
    }

    #[test]
    fn values_without_prompts_have_the_usual_standard_deviation() {
        let values = [10.0, 20.0, 40.0];
        assert!((sd(&values, &[]).unwrap() - Statistic::Sd.of(&values).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn prompts_asked_once_have_no_spread() {
        assert_eq!(sd(&[1.0, 2.0, 3.0], &[0, 1, 2]), Err(Absent::TooFew { needs: 4, has: 3 }));
        assert_eq!(sd(&[1.0], &[]), Err(Absent::TooFew { needs: 2, has: 1 }));
    }
}
