//! Answers without a figure: the reasons, and whether enough other answers have it. Pure.

use std::{collections::BTreeMap, fmt};

use crate::{
    energy::{EnergyGap, NoEnergy},
    load_stats::LoadStats,
    metric::Metric,
    sample::{Note, Sample},
};

/// Default of `min_share`: the part of the answers that must have a figure for it to be judged.
pub const MIN_SHARE: f64 = 0.9;

/// Why an answer or a run lacks a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingReason {
    /// The request allowed one token, so there is no time between tokens. No server can give the
    /// figure, so such answers do not count as missing.
    OneTokenAsked,
    /// The answer was not streamed, so its tokens have no times.
    NotStreamed,
    /// The answer has one token event.
    OneEvent,
    /// The note says why the figure would be wrong.
    Refused(Note),
    /// The samples of the power do not yield an energy.
    NoEnergy(EnergyGap),
    /// The config does not have the key that the figure requires.
    NotSet(&'static str),
    /// A part of a mix shares its machine with the other parts.
    PartOfLoad,
    /// The answer does not contain the figure, or has no such event.
    NotAvailable,
}

impl MissingReason {
    /// Returns why `sample` lacks `metric`.
    pub fn of(metric: &Metric, sample: &Sample) -> Self {
        if let Some(note) = metric.refused(sample) {
            return Self::Refused(note);
        }
        if !sample.is_streamed && metric.needs_stream() {
            return Self::NotStreamed;
        }
        match sample.token_events.len() {
            _ if !metric.is_of_generation() => Self::NotAvailable,
            1 if sample.asked_for_one => Self::OneTokenAsked,
            1 => Self::OneEvent,
            _ if sample.is_burst() && sample.is_client_delayed() => {
                Self::Refused(Note::ClientDelayed)
            }
            _ if sample.is_burst() => Self::Refused(Note::Burst),
            _ => Self::NotAvailable,
        }
    }

    /// Returns why a run of a load, or of a part of one, lacks `metric`.
    pub fn of_load(metric: &Metric, stats: &LoadStats, is_part: bool) -> Self {
        let of_machine = [
            Metric::OUTPUT_THROUGHPUT_PER_GPU,
            Metric::COST_PER_MILLION_OUTPUT_TOKENS,
            Metric::ENERGY,
            Metric::ENERGY_PER_OUTPUT_TOKEN,
        ];
        if is_part && metric.is_one_of(&of_machine) {
            return Self::PartOfLoad;
        }
        let is_of_energy = metric.is_one_of(&[Metric::ENERGY, Metric::ENERGY_PER_OUTPUT_TOKEN]);
        let (is_set, setting) = match metric {
            _ if metric == Metric::OUTPUT_THROUGHPUT_PER_GPU => {
                (stats.machine.gpus.is_some(), "gpus")
            }
            _ if metric == Metric::COST_PER_MILLION_OUTPUT_TOKENS => {
                (stats.machine.cost_per_hour.is_some(), "cost_per_hour")
            }
            _ if is_of_energy => (stats.energy.is_some(), "power_url"),
            _ => (true, ""),
        };
        match (is_set, stats.refused, &stats.energy) {
            (false, ..) => Self::NotSet(setting),
            (_, _, Some(Err(NoEnergy { gap, .. }))) if is_of_energy => Self::NoEnergy(*gap),
            (_, Some(note), _) => Self::Refused(note),
            _ => Self::NotAvailable,
        }
    }

    /// Returns whether it needs no line in reports: the answers do not contain the figure, or the
    /// config does not ask for it.
    const fn is_expected(self) -> bool {
        matches!(self, Self::NotAvailable | Self::NotSet(_) | Self::PartOfLoad)
    }

    /// Returns the name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEnergy(gap) => gap.name(),
            Self::NotSet(_) => "not_configured",
            Self::PartOfLoad => "part_of_load",
            Self::OneTokenAsked => "one_token_asked",
            Self::NotStreamed => "not_streamed",
            Self::OneEvent => "one_event",
            Self::Refused(note) => note.name(),
            Self::NotAvailable => "not_available",
        }
    }
}

impl fmt::Display for MissingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEnergy(gap) => gap.name(),
            Self::NotSet(setting) => return write!(f, "without `{setting}`"),
            Self::PartOfLoad => "of a part of a load, which shares its machine",
            Self::OneTokenAsked => "asked for one token",
            Self::NotStreamed => "not streamed",
            Self::OneEvent => "with one token event",
            Self::Refused(note) => note.name(),
            Self::NotAvailable => "not available",
        })
    }
}

/// The number of answers, or runs of a load, that lack a figure, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MissingFigures {
    /// The figure's name.
    pub metric: &'static str,
    /// Whether runs of a load are counted instead of answers.
    pub is_of_runs: bool,
    /// The number of all answers or runs.
    pub all: usize,
    /// Those without the figure, by reason.
    pub reasons: BTreeMap<MissingReason, usize>,
}

impl MissingFigures {
    /// Returns the number of answers without the figure.
    pub fn lack(&self) -> usize {
        self.reasons.values().sum()
    }

    /// Returns the number of answers that could have it.
    pub fn could(&self) -> usize {
        self.all - self.reasons.get(&MissingReason::OneTokenAsked).copied().unwrap_or_default()
    }

    /// Returns whether at least `share` of the answers that could have it do.
    pub fn leaves(&self, share: f64) -> bool {
        is_enough(self.all - self.lack(), self.could(), share)
    }

    /// Returns whether some lack it for another reason than that the answers do not contain it.
    pub fn has_reason(&self) -> bool {
        self.reasons.keys().any(|lack| !lack.is_expected())
    }

    /// Formats the reasons: `2 burst, 1 silent_tail`.
    pub fn why(&self) -> String {
        let why = self.reasons.iter().map(|(lack, count)| format!("{count} {lack}"));
        why.collect::<Vec<_>>().join(", ")
    }

    /// Returns `answers` or `runs`.
    pub const fn unit(&self) -> &'static str {
        if self.is_of_runs { "runs" } else { "answers" }
    }
}

impl fmt::Display for MissingFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, all, .. } = self;
        let (lack, unit, why) = (self.lack(), self.unit(), self.why());
        let have = if lack == 1 { "has" } else { "have" };
        write!(f, "{lack} of {all} {unit} {have} no {metric}: {why}")
    }
}

/// Returns whether `have` is at least `share` of `could`.
pub(crate) fn is_enough(have: usize, could: usize, share: f64) -> bool {
    // Decimal fractions are not exact in binary.
    have > 0 && have as f64 + 1e-9 >= share * could as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(all: usize, reasons: &[(MissingReason, usize)]) -> MissingFigures {
        let reasons = reasons.iter().copied().collect();
        MissingFigures { metric: "tpot", all, reasons, ..MissingFigures::default() }
    }

    #[test]
    fn nine_of_ten_are_enough_and_what_was_not_asked_for_is_not_missing() {
        let burst = MissingReason::Refused(Note::Burst);
        for (all, reasons, enough) in [
            (30, vec![], true),
            (30, vec![(burst, 3)], true),
            (30, vec![(burst, 4)], false),
            (30, vec![(MissingReason::OneTokenAsked, 15), (burst, 1)], true),
            (30, vec![(MissingReason::OneTokenAsked, 15), (burst, 2)], false),
            (30, vec![(MissingReason::OneTokenAsked, 30)], false),
            (1, vec![(burst, 1)], false),
            (0, vec![], false),
        ] {
            assert_eq!(lacking(all, &reasons).leaves(MIN_SHARE), enough, "{reasons:?}");
        }
        let some = lacking(30, &[(burst, 2), (MissingReason::Refused(Note::SilentTail), 10)]);
        assert_eq!(some.to_string(), "12 of 30 answers have no tpot: 2 burst, 10 silent_tail");
        assert!(some.leaves(0.6) && !some.leaves(0.61) && !lacking(3, &[(burst, 3)]).leaves(0.0));
    }
}
