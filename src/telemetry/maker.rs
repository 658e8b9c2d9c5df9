//! Makes and registers metrics, and keeps which series each of them has. It must never register a name without its prefix.

use prometheus::core::Collector;
use prometheus::{Error, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::series::{Kind, Label, Series};

/// What every name begins with.
const PREFIX: &str = "rekeyd_";

/// Makes and registers metrics.
pub(super) struct Maker<'a> {
    pub registry: &'a Registry,
    pub series: Vec<Series>,
}

impl Maker<'_> {
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Result<Gauge, Error> {
        let gauge = Gauge::with_opts(opts(name, help))?;
        self.register(&gauge)?;
        Ok(gauge)
    }
    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &'static [Label]) -> Result<GaugeVec, Error> {
        let vec = GaugeVec::new(opts(name, help), &names(labels))?;
        self.series.push(Series { labels, of: Kind::Gauge(vec.clone()) });
        self.register(&vec)?;
        Ok(vec)
    }
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &'static [Label],
    ) -> Result<IntCounterVec, Error> {
        let vec = IntCounterVec::new(opts(name, help), &names(labels))?;
        self.series.push(Series { labels, of: Kind::Counter(vec.clone()) });
        self.register(&vec)?;
        Ok(vec)
    }
    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        labels: &'static [Label],
        buckets: &[f64],
    ) -> Result<HistogramVec, Error> {
        let opts = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec());
        let vec = HistogramVec::new(opts, &names(labels))?;
        self.series.push(Series { labels, of: Kind::Histogram(vec.clone()) });
        self.register(&vec)?;
        Ok(vec)
    }
    fn register(&self, collector: &(impl Collector + Clone + 'static)) -> Result<(), Error> {
        self.registry.register(Box::new(collector.clone()))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|Label(name, _)| *name).collect()
}
