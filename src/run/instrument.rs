//! The instrument's own error, measured after the trials and before they are judged.
//!
//! Each setting that a group used, with the most streams that it had at a time, is measured against
//! the simulator's log: less than half a second each.

use std::sync::Arc;

use llm_stream_client::{self as client, connect_options::Stamps};
use llm_stream_core::summary::{Group, Summary};

use super::{Event, Runner};
use crate::{
    calibrate::{self, Calibration, Carrier, Load},
    plan::{Endpoint, Target, Transport},
};

/// Most streams at which the instrument is measured, so that it takes a second or two. A load of
/// more is judged by these, which observers can say.
const MOST_STREAMS: usize = 4096;

/// What the instrument's error depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstrumentSetting {
    /// The transport.
    pub transport: Transport,
    /// Which kernel timestamps arrivals have.
    pub stamps: Stamps,
    /// What carries the streams.
    pub(crate) carrier: Carrier,
    /// How many streams there are at a time.
    pub streams: usize,
}

/// The error of each transport in use, by the number of concurrent streams, where it was measured.
#[derive(Debug, Default)]
pub(super) struct Instruments {
    targets: Vec<Arc<Target>>,
    pub(super) known: Vec<(InstrumentSetting, Calibration)>,
}

impl Instruments {
    /// The calibration by which `group` is judged: that of its number of streams. Further runs of an
    /// open loop may reach another number: then that of the next higher one, else of the highest.
    pub(super) fn of(&self, group: &Group) -> Option<&Calibration> {
        let InstrumentSetting { transport, stamps, carrier, streams } =
            setting(group, &self.targets)?;
        let is_alike = |of: &InstrumentSetting| {
            (of.transport, of.stamps, of.carrier) == (transport, stamps, carrier)
        };
        let known = self.known.iter().filter(|(of, _)| is_alike(of));
        let higher = known.clone().filter(|(of, _)| of.streams >= streams);
        let nearest = higher.min_by_key(|(of, _)| of.streams);
        nearest.or_else(|| known.max_by_key(|(of, _)| of.streams)).map(|(_, known)| known)
    }
}

impl Runner<'_> {
    /// Measures the instrument. If that fails the figures are judged as if they were exact, and
    /// observers say so: the figures are not lost for it.
    pub(super) fn measure_instrument(&mut self) -> Instruments {
        let targets = self.plan.selected_targets();
        for target in &targets {
            if target.stamps == Stamps::Packets && has_unseen_packets(target) {
                self.tell(Event::PacketsUnseen { target });
            }
        }
        let mut instruments = Instruments { targets, known: Vec::new() };
        if !self.options.checks_instrument {
            return instruments;
        }
        match calibrations(&self.summary, &instruments.targets) {
            Ok(known) => {
                self.tell(Event::InstrumentMeasured { calibrations: &known });
                instruments.known = known;
            }
            Err(error) => self.tell(Event::InstrumentUnknown { error: error.as_ref() }),
        }
        instruments
    }
}

fn has_unseen_packets(target: &Target) -> bool {
    matches!(&target.endpoint, Endpoint::Url(url) if client::has_unseen_packets(url))
}

/// The setting that `group` was measured with.
fn setting(group: &Group, targets: &[Arc<Target>]) -> Option<InstrumentSetting> {
    let streams = group.loads.iter().map(|load| load.peak).max().unwrap_or(1);
    let target = targets.iter().find(|target| target.index == group.spec.id.model)?;
    let carrier = match target {
        target if target.is_by_socket() => Carrier::Unix,
        target if target.is_over_tls() => Carrier::Tls,
        _ => Carrier::Tcp,
    };
    // Packets can be seen on the loopback that cannot be seen on the way to the server.
    let stamps = if has_unseen_packets(target) { Stamps::Socket } else { target.stamps };
    Some(InstrumentSetting { transport: target.transport, stamps, carrier, streams })
}

fn calibrations(
    summary: &Summary,
    targets: &[Arc<Target>],
) -> anyhow::Result<Vec<(InstrumentSetting, Calibration)>> {
    let mut calibrations: Vec<(InstrumentSetting, Calibration)> = Vec::new();
    for setting in summary.groups.iter().filter_map(|group| setting(group, targets)) {
        if !calibrations.iter().any(|(known, _)| *known == setting) {
            let InstrumentSetting { transport, stamps, carrier, streams } = setting;
            // The simulator has the other end of each connection.
            let most = client::most_connections(2).min(MOST_STREAMS);
            let load = Load::short(streams.min(most));
            let known = calibrate::measure(load, (transport, stamps), carrier)?;
            calibrations.push((setting, known));
        }
    }
    Ok(calibrations)
}
