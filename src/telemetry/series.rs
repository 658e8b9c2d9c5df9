//! Which series a metric has: its labels, the values that each of them takes, and whose they are. It must never make a
//! series for a value that is in no list.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use crate::model::ProviderKind;
use crate::provider;

/// A label, and which values it takes.
#[derive(Clone, Copy)]
pub(super) struct Label(pub &'static str, pub Values);

/// Which values a label takes.
#[derive(Clone, Copy)]
pub(super) enum Values {
    /// The known fleets.
    Fleets,
    /// The providers that known fleets live at.
    Providers,
    /// What such a provider's client calls.
    Actions,
    /// These.
    Closed(&'static [&'static str]),
    /// Known only to who makes the series.
    Open,
}

/// Whose series.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// Nobody's: all their labels are closed.
    Nothing,
    Fleet(&'a str),
    Provider(ProviderKind),
}

/// The series of one metric.
pub(super) struct Series {
    pub labels: &'static [Label],
    pub of: Kind,
}

/// What it counts with.
pub(super) enum Kind {
    Gauge(GaugeVec),
    Counter(IntCounterVec),
    Histogram(HistogramVec),
}

impl Series {
    /// Makes this subject's series, at 0.
    pub fn create(&self, subject: Subject<'_>) {
        for values in self.combinations(subject) {
            // Fails only on a wrong number of labels, and these are counted by the same table.
            let _ = match &self.of {
                Kind::Gauge(vec) => vec.get_metric_with_label_values(&values).map(drop),
                Kind::Counter(vec) => vec.get_metric_with_label_values(&values).map(drop),
                Kind::Histogram(vec) => vec.get_metric_with_label_values(&values).map(drop),
            };
        }
    }

    /// Removes this subject's series.
    pub fn remove(&self, subject: Subject<'_>) {
        for values in self.combinations(subject) {
            // Fails if there is no such series: then there is nothing to remove.
            let _ = match &self.of {
                Kind::Gauge(vec) => vec.remove_label_values(&values),
                Kind::Counter(vec) => vec.remove_label_values(&values),
                Kind::Histogram(vec) => vec.remove_label_values(&values),
            };
        }
    }

    /// The label values of this subject's series; none if the metric has no series of such a subject.
    fn combinations<'a>(&self, subject: Subject<'a>) -> Vec<Vec<&'a str>> {
        let has = |wanted: fn(&Values) -> bool| self.labels.iter().any(|Label(_, values)| wanted(values));
        let fits = match subject {
            Subject::Nothing => self.labels.iter().all(|Label(_, values)| matches!(values, Values::Closed(_))),
            Subject::Fleet(_) => has(|values| matches!(values, Values::Fleets)),
            Subject::Provider(_) => has(|values| matches!(values, Values::Providers)),
        };
        let mut all = if fits { vec![Vec::new()] } else { Vec::new() };
        for Label(_, values) in self.labels {
            let values: Vec<&str> = match (values, subject) {
                (Values::Closed(values), _) => values.to_vec(),
                (Values::Fleets, Subject::Fleet(fleet)) => vec![fleet],
                (Values::Providers, Subject::Provider(provider)) => vec![provider.as_str()],
                (Values::Actions, Subject::Provider(provider)) => provider::actions(provider).to_vec(),
                _ => Vec::new(),
            };
            all = all.iter().flat_map(|one| values.iter().map(|value| [&one[..], &[*value]].concat())).collect();
        }
        all
    }
}
