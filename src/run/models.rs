//! The connected models of a run: the active model, and the models that wait for their turn.

use std::{sync::Arc, time::Instant};

use llm_stream_client::{Client, MetricsFetcher, Options};
use llm_stream_core::{
    prompt::Prompt,
    protocol::Protocol,
    punctuality::Punctuality,
    recording::{ErrorKind, RequestError},
    text::error_chain,
};
use llm_stream_sim::{AnswerLog, Simulator};

use super::server_metrics::ServerMetricsProbe;
use crate::{
    load::PromptSizer,
    plan::{Access, Endpoint, Target},
};

/// A model with its connection, and its server when that is the simulator.
pub(super) struct ConnectedModel {
    pub(super) target: Arc<Target>,
    pub(super) client: Client,
    /// The lengths of its synthetic prompts.
    pub(super) sizer: PromptSizer,
    /// The prompts for which there is no text of the right length, and why.
    pub(super) unsizable: Vec<(Arc<Prompt>, RequestError)>,
    pub(super) metrics: ServerMetricsProbe,
    /// What reads the power of its GPUs.
    pub(super) power: Option<Arc<MetricsFetcher>>,
    simulator: Option<Simulator>,
}

impl ConnectedModel {
    pub(super) fn connect(target: &Arc<Target>, access: &Access) -> Result<Self, RequestError> {
        let (url, simulator) = match &target.endpoint {
            Endpoint::Url(_) | Endpoint::Socket { .. } => (access.url.clone(), None),
            Endpoint::Simulated(script) => {
                let simulator = Simulator::start(script.clone(), target.protocol)
                    .map_err(|error| {
                        let message = format!("failed to start the simulated endpoint: {error}");
                        RequestError::new(ErrorKind::Connect, message)
                    })?
                    .briefly_logged();
                (simulated_url(&simulator, target.protocol), Some(simulator))
            }
        };
        let replicas = &access.replicas;
        let client = Client::new(&Options { replicas, ..target.client_options(access, &url) })?;
        Ok(Self {
            target: target.clone(),
            client,
            metrics: ServerMetricsProbe::of(target, access)?,
            power: power(target, access)?,
            sizer: PromptSizer::new(target),
            unsizable: Vec::new(),
            simulator,
        })
    }

    /// How the simulator kept its script since the last call, if the model is simulated; the
    /// requests were `handed_over` then.
    pub(super) fn punctuality(&self, handed_over: Vec<Instant>) -> Option<Punctuality> {
        let log = self.simulator.as_ref()?.take_log();
        let timings = log.iter().map(AnswerLog::timing).collect();
        Some(Punctuality::of(timings, handed_over))
    }
}

/// Returns what reads the power of the GPUs of `target`, if it is to be read.
fn power(target: &Target, access: &Access) -> Result<Option<Arc<MetricsFetcher>>, RequestError> {
    let Some(url) = &target.power_url else { return Ok(None) };
    let fetcher = MetricsFetcher::new(url, access).map_err(|error| {
        let message = format!("failed to prepare for the GPUs' power: {}", error_chain(&error));
        RequestError::new(ErrorKind::Connect, message)
    })?;
    Ok(Some(Arc::new(fetcher)))
}

/// Returns the URL at which the simulator takes requests.
pub(crate) fn simulated_url(simulator: &Simulator, protocol: &dyn Protocol) -> String {
    format!("{}{}{}", simulator.url(), protocol.prefix(), protocol.path())
}

/// The connected models.
#[derive(Default)]
pub(super) struct Models {
    /// The model that is measured now.
    pub(super) active: Option<ConnectedModel>,
    /// The models that are measured in turns with it.
    idle: Vec<ConnectedModel>,
}

impl Models {
    /// Whether `target` is the active model.
    pub(super) fn is_active(&self, target: &Arc<Target>) -> bool {
        self.active.as_ref().is_some_and(|model| Arc::ptr_eq(&model.target, target))
    }

    /// Makes an idle model the active one; false if `target` is not connected. The active one
    /// becomes idle if `keeps_idle`: models measured one after another need no connection later.
    pub(super) fn switch_to(&mut self, target: &Arc<Target>, keeps_idle: bool) -> bool {
        let before = self.active.take();
        self.idle.extend(before.filter(|_| keeps_idle));
        let position = self.idle.iter().position(|model| Arc::ptr_eq(&model.target, target));
        self.active = position.map(|position| self.idle.swap_remove(position));
        self.active.is_some()
    }
}
