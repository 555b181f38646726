//! A histogram as metrics. Its values were counted elsewhere, so it is filled
//! bucket by bucket.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};
use vip_lease::histogram::Histogram;

use super::Labels;

#[derive(Debug)]
struct Counted {
    name: &'static str,
    help: &'static str,
    labels: Labels,
    histogram: Histogram,
}

/// Adds it to the metrics.
pub(super) fn register(
    registry: &mut Registry,
    (name, help): (&'static str, &'static str),
    labels: Labels,
    histogram: Histogram,
) {
    registry.register_collector(Box::new(Counted { name, help, labels, histogram }));
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Histogram { bounds, buckets, sum } = self.histogram;
        let count = buckets.count();
        let buckets: Vec<_> = bounds.into_iter().chain([f64::INFINITY]).zip(buckets.0).collect();
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        metric.encode_family(&self.labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
