//! Who hears the calls to the clouds for the metrics: how many, how they ended, how long they took. It must never make a
//! label of what a cloud says.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use crate::model::error::Kind;
use crate::provider::{self, Heard, Witness};

use super::table::{BY_CLOUD, BY_OURSELVES, OK, count, observe, set};

/// Hears the calls to one account in one region.
pub(super) struct Ear {
    pub requests: IntCounterVec,
    pub durations: HistogramVec,
    pub throttled: IntCounterVec,
    pub clock_difference: GaugeVec,
    /// Account and region.
    pub place: [String; 2],
}

impl Witness for Ear {
    fn heard(&self, heard: &Heard<'_>) {
        let (provider, outcome) = (heard.provider.as_str(), heard.outcome.map_or_else(Kind::name, |()| OK));
        // The client's own words only: a label without bound would be a leak.
        let action = provider::actions(heard.provider).iter().find(|action| **action == heard.action);
        let action = action.copied().unwrap_or("other");
        if heard.sent {
            count(&self.requests, &[provider, action, outcome]);
            observe(&self.durations, &[provider, action], heard.took.as_secs_f64());
        }
        if heard.outcome == Err(Kind::Throttled) {
            count(&self.throttled, &[provider, action, if heard.sent { BY_CLOUD } else { BY_OURSELVES }]);
        }
        if let Some(difference) = heard.clock_difference {
            set(&self.clock_difference, &self.place.each_ref().map(String::as_str), difference.as_secs_f64());
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // Fails if it is gone already.
        let _ = self.clock_difference.remove_label_values(&self.place.each_ref().map(String::as_str));
    }
}
