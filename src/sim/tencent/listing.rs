//! Lists as both Tencent products page and filter them (FACTS §2.2): at most ten filters, AND between them, OR among
//! a filter's values. The limits and the codes differ by product and come from it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refused, broken};
use crate::sim::cloud::{Cloud, Rule};
use crate::sim::machine::{Machine, Operation, Power, Progress};

/// One filter of a request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Filter {
    name: String,
    values: Vec<String>,
}

/// How a product lists.
pub(super) struct Rules {
    /// Values a filter.
    pub(super) values_max: usize,
    /// The code for a bad or superfluous filter.
    pub(super) bad_filter: &'static str,
    /// The code for too many values.
    pub(super) too_many_values: &'static str,
    /// The code for a limit outside 1 to 100.
    pub(super) bad_limit: &'static str,
    /// The code for a negative offset.
    pub(super) bad_offset: &'static str,
    /// The code for ids together with filters.
    pub(super) conflict: &'static str,
    /// The code for more than 100 ids.
    pub(super) too_many_ids: &'static str,
}

/// The most filters in a request.
const FILTERS_MAX: usize = 10;
/// The most ids in a request, and rows in a page.
pub(super) const IDS_MAX: usize = 100;
/// Rows in a page if none are asked for.
const LIMIT: i64 = 20;

/// What was asked for, checked.
pub(super) struct Query {
    pub(super) ids: Vec<String>,
    pub(super) filters: Vec<Filter>,
    offset: usize,
    limit: usize,
}

impl Rules {
    /// Checks ids, filters and page against the rules. `known` are the filters' names, the tag filters apart.
    pub(super) fn query(
        &self,
        ids: Option<Vec<String>>,
        filters: Option<Vec<Filter>>,
        (offset, limit): (Option<i64>, Option<i64>),
        known: &[&str],
    ) -> Result<Query, Refused> {
        let (ids, filters) = (ids.unwrap_or_default(), filters.unwrap_or_default());
        if !ids.is_empty() && !filters.is_empty() {
            return Err(broken(Rule::Malformed, self.conflict, "ids and filters exclude each other"));
        }
        if ids.len() > IDS_MAX {
            return Err(broken(Rule::Limit, self.too_many_ids, format!("{} ids", ids.len())));
        }
        if filters.len() > FILTERS_MAX {
            return Err(broken(Rule::Limit, self.bad_filter, format!("{} filters", filters.len())));
        }
        for filter in &filters {
            let tag = matches!(filter.name.as_str(), "tag-key" | "tag-value") || filter.name.starts_with("tag:");
            if !tag && !known.contains(&filter.name.as_str()) || filter.values.is_empty() {
                return Err(broken(Rule::Malformed, self.bad_filter, format!("filter {}", filter.name)));
            }
            if filter.values.len() > self.values_max {
                let message = format!("{} values in filter {}", filter.values.len(), filter.name);
                return Err(broken(Rule::Limit, self.too_many_values, message));
            }
        }
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=IDS_MAX as i64).contains(&limit) {
            return Err(broken(Rule::Limit, self.bad_limit, format!("limit {limit}")));
        }
        let offset = usize::try_from(offset.unwrap_or(0))
            .map_err(|_| broken(Rule::Malformed, self.bad_offset, "negative offset"))?;
        Ok(Query { ids, filters, offset, limit: limit as usize })
    }
}

impl Query {
    /// The rows of this page, and the number of all.
    pub(super) fn page<T>(&self, rows: impl Iterator<Item = T>) -> (usize, Vec<T>) {
        let (mut total, mut page) = (0, Vec::with_capacity(self.limit));
        for row in rows {
            if total >= self.offset && page.len() < self.limit {
                page.push(row);
            }
            total += 1;
        }
        (total, page)
    }

    /// The machines asked for, in the product's order: those to be recycled first, then the newest first. Ids that
    /// nobody has are left out (what the clouds do with them is not said).
    pub(super) fn machines<'a>(
        &'a self,
        cloud: &'a Cloud,
        now: jiff::Timestamp,
    ) -> Box<dyn Iterator<Item = &'a Machine> + 'a> {
        if !self.ids.is_empty() {
            let mut places: Vec<usize> = self.ids.iter().filter_map(|id| cloud.position(id)).collect();
            places.sort_by_key(|at| (cloud.machines()[*at].power != Power::Isolated, usize::MAX - at));
            places.dedup();
            return Box::new(places.into_iter().map(|at| &cloud.machines()[at]));
        }
        let order = |isolated: bool| {
            let here = move |machine: &&Machine| (machine.power == Power::Isolated) == isolated;
            cloud.machines().iter().rev().filter(|machine| machine.power != Power::Gone).filter(here)
        };
        let asked = move |machine: &&Machine| self.filters.iter().all(|filter| filter.takes(machine, now));
        Box::new(order(true).chain(order(false)).filter(asked))
    }
}

impl Filter {
    /// The tag key that this filter asks for, if it asks for one.
    pub(super) fn tag_keys(&self) -> Vec<&str> {
        match self.name.strip_prefix("tag:") {
            Some(key) => vec![key],
            None if self.name == "tag-key" => self.values.iter().map(String::as_str).collect(),
            None => Vec::new(),
        }
    }

    /// Whether one of its values is `value`.
    pub(super) fn has(&self, value: &str) -> bool {
        self.values.iter().any(|wanted| wanted == value)
    }

    /// Whether one of its values occurs in `value`: Lighthouse's key names are matched like that.
    pub(super) fn has_part_of(&self, value: &str) -> bool {
        self.values.iter().any(|wanted| value.contains(wanted.as_str()))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it lets these tags through; `None` if it is not about tags.
    pub(super) fn takes_tags(&self, tags: &[(String, String)]) -> Option<bool> {
        match self.name.as_str() {
            "tag-key" => Some(tags.iter().any(|(key, _)| self.has(key))),
            "tag-value" => Some(tags.iter().any(|(_, value)| self.has(value))),
            name => {
                let key = name.strip_prefix("tag:")?;
                Some(tags.iter().any(|(of, value)| of == key && self.has(value)))
            }
        }
    }

    fn takes(&self, machine: &Machine, now: jiff::Timestamp) -> bool {
        if let Some(takes) = self.takes_tags(&machine.tags) {
            return takes;
        }
        match self.name.as_str() {
            "instance-id" => self.has(&machine.id),
            "uuid" => self.has(&uuid(machine)),
            "instance-name" => self.has(&machine.name),
            "zone" => self.has(&machine.zone),
            "private-ip-address" => self.has(&machine.private_address),
            "public-ip-address" => self.has(&machine.public_address),
            "instance-state" => self.has(state(machine.view(now).power)),
            "instance-charge-type" => self.has(if machine.spot { "SPOTPAID" } else { CHARGE_TYPE }),
            "bundle-id" => self.has(BUNDLE),
            "project-id" => self.has("0"),
            "vpc-id" => self.has(VPC),
            "subnet-id" => self.has(SUBNET),
            _ => false,
        }
    }
}

/// What every machine of the simulator costs, and what it is made of.
pub(super) const CHARGE_TYPE: &str = "PREPAID";
pub(super) const BUNDLE: &str = "bundle_sim_01";
pub(super) const VPC: &str = "vpc-sim00001";
pub(super) const SUBNET: &str = "subnet-sim00001";

/// A machine's UUID, made from its id.
pub(super) fn uuid(machine: &Machine) -> String {
    let digits: String = hex::encode(&machine.id).chars().cycle().take(32).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// The state's name in both products.
pub(super) fn state(power: Power) -> &'static str {
    match power {
        Power::Running => "RUNNING",
        Power::Stopped => "STOPPED",
        Power::Starting => "STARTING",
        Power::Stopping => "STOPPING",
        Power::Rebooting => "REBOOTING",
        Power::Pending => "PENDING",
        Power::Isolated => "SHUTDOWN",
        Power::Gone => "TERMINATING",
    }
}

/// A list of addresses as an instance's row shows it: null where it has none ("may be null", FACTS §2.2).
pub(super) fn addresses(address: &str) -> Value {
    if address.is_empty() { Value::Null } else { json!([address]) }
}

/// A moment, as both products write it.
pub(super) fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The `LatestOperation*` fields that both products have; all null for a machine that was never operated on.
pub(super) fn latest_operation(operation: Option<&Operation>) -> [(&'static str, Value); 3] {
    let state = operation.map(|operation| match operation.progress {
        Progress::Operating => "OPERATING",
        Progress::Success => "SUCCESS",
        Progress::Failed => "FAILED",
    });
    [
        ("LatestOperation", json!(operation.map(|operation| &operation.action))),
        ("LatestOperationState", json!(state)),
        ("LatestOperationRequestId", json!(operation.map(|operation| &operation.request_id))),
    ]
}
