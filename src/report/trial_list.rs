//! The trials of a run. A long list goes to the storage of the figures, in blocks.

use std::{borrow::Cow, collections::HashMap, iter, sync::Arc};

use jiff::Timestamp;
use llm_stream_core::{
    column::Storage,
    group::GroupId,
    metric::{METRICS, Metric},
    recording::ErrorKind,
};
use serde::{Deserialize, Serialize};

use super::finished::{Failure, LOAD, TrialResult, TurnResult};
use crate::plan::Case;

/// The number of trials of a group in a block. Shorter lists stay in memory.
const BLOCK: usize = 64;

/// The trials that finished, in the order in which they ran. Those of each group can be read alone.
#[derive(Debug, Clone, Default)]
pub struct TrialList {
    storage: Storage,
    groups: Vec<GroupTrials>,
    /// The position of each group in `groups`.
    positions: HashMap<GroupId, usize>,
    /// The group of each trial.
    order: Vec<u32>,
    /// Whether storing failed: the trials then stay in memory.
    is_in_memory: bool,
}

/// The trials of a group.
#[derive(Debug, Clone, Default)]
struct GroupTrials {
    blocks: Vec<Block>,
    /// The trials after the stored ones.
    tail: Vec<TrialResult>,
}

/// A stored block: its bytes, and the trials that they are of.
#[derive(Debug, Clone)]
struct Block {
    position: u64,
    length: usize,
    cases: Box<[Arc<Case>]>,
}

/// A trial in a block, without its case. Numbers are stored by their bits.
#[derive(Serialize, Deserialize)]
struct StoredTrial {
    started: Timestamp,
    seconds: u64,
    request: StoredTurn,
    turns: Vec<StoredTurn>,
}

#[derive(Serialize, Deserialize)]
struct StoredTurn {
    failure: Option<(String, String)>,
    figures: Vec<(usize, u64)>,
    notes: Vec<String>,
    arrival_uncertainty: Option<u64>,
}

impl TrialList {
    /// Creates an empty list.
    pub fn new(storage: &Storage) -> Self {
        Self { storage: storage.clone(), ..Self::default() }
    }

    /// Returns whether there are no trials.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a trial.
    pub fn push(&mut self, trial: TrialResult) {
        let Self { groups, positions, .. } = self;
        let position = *positions.entry(trial.case.group.id).or_insert_with(|| {
            groups.push(GroupTrials::default());
            groups.len() - 1
        });
        self.order.push(u32::try_from(position).unwrap_or(u32::MAX));
        let group = &mut groups[position];
        group.tail.push(trial);
        if group.tail.len() >= BLOCK && !self.is_in_memory {
            self.is_in_memory = group.store(&self.storage).is_none();
        }
    }

    /// Returns the trials in the order in which they ran. A block that cannot be read is missing, and
    /// the run fails for it.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, TrialResult>> {
        let mut groups: Vec<_> = self.groups.iter().map(|of| of.iter(&self.storage)).collect();
        self.order.iter().filter_map(move |group| groups.get_mut(*group as usize)?.next())
    }

    /// Returns the trials of a group in the order in which they ran.
    pub fn of(&self, group: GroupId) -> impl Iterator<Item = Cow<'_, TrialResult>> {
        let group = self.positions.get(&group).and_then(|position| self.groups.get(*position));
        group.into_iter().flat_map(|group| group.iter(&self.storage))
    }
}

impl GroupTrials {
    /// Stores the trials in memory as a block; `None` if they must stay there.
    fn store(&mut self, storage: &Storage) -> Option<()> {
        let stored: Vec<_> = self.tail.iter().map(StoredTrial::of).collect();
        let bytes = serde_json::to_vec(&stored).ok()?;
        let (position, length) = (storage.append(&bytes)?, bytes.len());
        let cases = self.tail.drain(..).map(|trial| trial.case).collect();
        self.blocks.push(Block { position, length, cases });
        Some(())
    }

    /// Returns the trials, one stored block at a time.
    fn iter<'a>(&'a self, storage: &'a Storage) -> impl Iterator<Item = Cow<'a, TrialResult>> {
        let stored = self.blocks.iter().flat_map(|block| block.read(storage));
        stored.map(Cow::Owned).chain(self.tail.iter().map(Cow::Borrowed))
    }
}

impl Block {
    fn read(&self, storage: &Storage) -> Vec<TrialResult> {
        let stored: Option<Vec<StoredTrial>> = storage
            .read(self.position, self.length)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let trials = stored.unwrap_or_default().into_iter().zip(&self.cases);
        trials.map(|(stored, case)| stored.into_trial(case)).collect()
    }
}

impl Extend<TrialResult> for TrialList {
    fn extend<I: IntoIterator<Item = TrialResult>>(&mut self, trials: I) {
        trials.into_iter().for_each(|trial| self.push(trial));
    }
}

impl FromIterator<TrialResult> for TrialList {
    fn from_iter<I: IntoIterator<Item = TrialResult>>(trials: I) -> Self {
        let mut list = Self { is_in_memory: true, ..Self::default() };
        list.extend(trials);
        list
    }
}

impl StoredTrial {
    fn of(trial: &TrialResult) -> Self {
        let TrialResult { started, seconds, turns, .. } = trial;
        let failure = trial.failure.as_ref();
        Self {
            started: *started,
            seconds: seconds.to_bits(),
            request: StoredTurn::of(
                (failure, &trial.notes),
                &trial.figures,
                trial.arrival_uncertainty,
            ),
            turns: turns
                .iter()
                .map(|turn| {
                    let failure = turn.failure.as_ref();
                    let notes = &turn.notes;
                    StoredTurn::of((failure, notes), &turn.figures, turn.arrival_uncertainty)
                })
                .collect(),
        }
    }

    fn into_trial(self, case: &Arc<Case>) -> TrialResult {
        let TurnResult { failure, figures, notes, arrival_uncertainty } = self.request.into_turn();
        TrialResult {
            case: case.clone(),
            started: self.started,
            seconds: f64::from_bits(self.seconds),
            failure,
            figures,
            notes,
            arrival_uncertainty,
            turns: self.turns.into_iter().map(StoredTurn::into_turn).collect(),
        }
    }
}

impl StoredTurn {
    fn of(
        (failure, notes): (Option<&Failure>, &[String]),
        figures: &[(&Metric, f64)],
        arrival_uncertainty: Option<f64>,
    ) -> Self {
        let bits = |(metric, value): &(&Metric, f64)| (metric.index, value.to_bits());
        Self {
            failure: failure.map(|failure| (failure.kind.to_owned(), failure.message.clone())),
            figures: figures.iter().map(bits).collect(),
            notes: notes.to_vec(),
            arrival_uncertainty: arrival_uncertainty.map(f64::to_bits),
        }
    }

    fn into_turn(self) -> TurnResult {
        let figure =
            |(index, bits): (usize, u64)| Some((METRICS.get(index)?, f64::from_bits(bits)));
        TurnResult {
            failure: self.failure.map(|(name, message)| Failure { kind: kind(&name), message }),
            figures: self.figures.into_iter().filter_map(figure).collect(),
            notes: self.notes,
            arrival_uncertainty: self.arrival_uncertainty.map(f64::from_bits),
        }
    }
}

/// Returns the kind of failure with this name.
fn kind(name: &str) -> &'static str {
    let kinds = ErrorKind::ALL.iter().map(|kind| kind.name());
    kinds.chain(iter::once(LOAD)).find(|kind| *kind == name).unwrap_or(LOAD)
}
