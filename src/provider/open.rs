//! The way into the clouds: settings in, a provider out. Nothing outside this room names a client.
//! It must never open a door that would show a credential to the network (plain http beyond this machine).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::http::{Door, Transport};
use super::tencent::{self, Tencent};
use super::{Deaf, Keyring, Limits, Provider, Witness, alibaba, baidu};
use crate::clock::Clock;
use crate::model::{ProviderKind, Region};
use crate::net::{Origin, OriginError};

/// By which of its APIs a cloud is spoken to. All lead to the same machines and key pairs; only CVM has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// The current one.
    #[default]
    V3,
    /// CVM's legacy endpoint, `/v2/index.php`, signed by HmacSHA256.
    Legacy,
    /// The same, signed by HmacSHA1, for one that knows no other.
    LegacySha1,
}

impl Api {
    /// Each, with the word for it in a config file.
    pub const WORDS: [(&str, Self); 3] =
        [("v3", Self::V3), ("legacy", Self::Legacy), ("legacy-sha1", Self::LegacySha1)];

    /// The word for it in a config file.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, api)| *api == self).map_or("", |(word, _)| word)
    }

    /// Where it answers in every region, if that is another place than the cloud's own address.
    pub fn endpoint(self) -> Option<&'static str> {
        (self != Self::V3).then_some(tencent::LEGACY_ENDPOINT)
    }
}

/// One account in one region.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which cloud.
    pub provider: ProviderKind,
    /// By which of its APIs.
    pub api: Api,
    /// Where it answers; may hold `{region}`. `None`: the cloud's own address.
    pub endpoint: Option<String>,
    /// Which region.
    pub region: Region,
    /// As whom, asked at each signing.
    pub credentials: Keyring,
    /// Requests a second by action, in place of the documented ones ([`Limits::requests_per_second`]).
    pub rates: BTreeMap<String, u32>,
}

impl Settings {
    /// Whether a provider that was opened with the others would do the same as one opened with these.
    pub fn is_same(&self, others: &Self) -> bool {
        let words = |one: &Self| (one.provider, one.api, one.endpoint.clone(), one.region.clone(), one.rates.clone());
        words(self) == words(others) && self.credentials.is_same(&others.credentials)
    }
}

/// Why a provider cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An API that this cloud does not have.
    #[error("api: {0} has one API only; the legacy one is tencent-cvm's")]
    Api(ProviderKind),
    /// The endpoint is none.
    #[error("endpoint: {0}")]
    Endpoint(#[from] OriginError),
    /// The region is no word that can stand in a host name or header.
    #[error("region: {0:?} is no region: letters, digits and hyphens")]
    Region(String),
    /// Blanks or control characters in an access key id, secret or token break the signature.
    #[error("credentials: {0}")]
    Credentials(String),
    /// A rate that could do nothing.
    #[error("rates: {action}: {problem}")]
    Rate {
        /// The action as written.
        action: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What is fixed for a cloud.
struct Cloud {
    limits: &'static Limits,
    /// Where it answers in a region if the config names no endpoint.
    endpoint: fn(&Region) -> String,
    /// Every action that its client calls.
    actions: &'static [&'static str],
    open: fn(Parts, Api) -> Arc<dyn Provider>,
}

/// What a client is made of.
pub(super) struct Parts {
    pub origin: Origin,
    pub region: Region,
    pub door: Door,
}

/// The clouds' table.
fn cloud(kind: ProviderKind) -> Cloud {
    match kind {
        ProviderKind::TencentLighthouse => Cloud {
            limits: tencent::LIGHTHOUSE.limits,
            endpoint: |_| "https://lighthouse.tencentcloudapi.com".to_string(),
            actions: tencent::LIGHTHOUSE_ACTIONS,
            open: |parts, _| Arc::new(Tencent::new(tencent::LIGHTHOUSE, parts)),
        },
        ProviderKind::TencentCvm => Cloud {
            limits: tencent::cvm(Api::V3).limits,
            endpoint: |_| "https://cvm.tencentcloudapi.com".to_string(),
            actions: tencent::ACTIONS,
            open: |parts, api| Arc::new(Tencent::new(tencent::cvm(api), parts)),
        },
        ProviderKind::AlibabaEcs => Cloud {
            limits: &alibaba::LIMITS,
            endpoint: alibaba::endpoint,
            actions: alibaba::ACTIONS,
            open: |parts, _| Arc::new(alibaba::Ecs::new(parts)),
        },
        ProviderKind::BaiduBcc => Cloud {
            limits: &baidu::LIMITS,
            endpoint: baidu::endpoint,
            actions: baidu::ACTIONS,
            open: |parts, _| Arc::new(baidu::Bcc::new(parts)),
        },
    }
}

/// What a cloud allows and does: for `check`, which opens nothing.
pub fn limits(kind: ProviderKind) -> &'static Limits {
    cloud(kind).limits
}

/// Every action that the client of a cloud calls: those whose rates can be set.
pub fn actions(kind: ProviderKind) -> &'static [&'static str] {
    cloud(kind).actions
}

impl Settings {
    /// Whether a provider can be opened with these settings, and where it would answer. Sends nothing.
    pub fn check(&self) -> Result<Origin, OpenError> {
        let cloud = cloud(self.provider);
        if self.api != Api::V3 && self.provider != ProviderKind::TencentCvm {
            return Err(OpenError::Api(self.provider));
        }
        let region = self.region.as_str();
        if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(OpenError::Region(region.to_string()));
        }
        if let Some(credentials) = self.credentials.at_hand() {
            credentials.check().map_err(OpenError::Credentials)?;
        }
        for (action, rate) in &self.rates {
            let bad = |problem: String| OpenError::Rate { action: action.clone(), problem };
            if !cloud.actions.contains(&action.as_str()) {
                let known = cloud.actions.join(", ");
                return Err(bad(format!("{} never calls it; it calls {known}", self.provider)));
            }
            if *rate == 0 {
                return Err(bad("0 requests a second would stop everything; leave it out".to_string()));
            }
        }
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.replace("{region}", region),
            None => self.api.endpoint().map_or_else(|| (cloud.endpoint)(&self.region), str::to_string),
        };
        Ok(Origin::parse(&endpoint)?)
    }
}

/// Opens a provider that nobody listens to; see [`open_heard`].
pub fn open(
    settings: &Settings,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    seed: u64,
) -> Result<Arc<dyn Provider>, OpenError> {
    open_heard(settings, transport, clock, seed, Arc::new(Deaf))
}

/// Opens a provider whose calls `witness` hears. Sends nothing. `seed` feeds its nonces and jitter: of chance in a daemon,
/// fixed in a simulation.
pub fn open_heard(
    settings: &Settings,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    seed: u64,
    witness: Arc<dyn Witness>,
) -> Result<Arc<dyn Provider>, OpenError> {
    let origin = settings.check()?;
    let cloud = cloud(settings.provider);
    let documented = cloud.limits.requests_per_second.iter().map(|(action, rate)| (action.to_string(), *rate));
    let mut rates: BTreeMap<String, u32> = documented.collect();
    rates.extend(settings.rates.clone());
    let door =
        Door::new(transport, clock, &rates, settings.credentials.clone(), seed).heard_by(settings.provider, witness);
    Ok((cloud.open)(Parts { origin, region: settings.region.clone(), door }, settings.api))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Credentials;
    use crate::provider::http::door::tests::{ManualClock, Script};

    fn credentials(id: &str, secret: &str, token: Option<&str>) -> Keyring {
        let session_token = token.map(Into::into);
        Credentials { access_key_id: id.to_string(), access_key_secret: secret.into(), session_token }.into()
    }

    fn settings(endpoint: Option<&str>) -> Settings {
        Settings {
            provider: ProviderKind::TencentLighthouse,
            api: Api::V3,
            endpoint: endpoint.map(str::to_string),
            region: Region::new("ap-singapore"),
            credentials: credentials("AKIDfake", "fake", None),
            rates: BTreeMap::new(),
        }
    }

    #[test]
    fn endpoints_are_filled_in_and_checked() {
        let check = |endpoint: Option<&str>, expect: Option<&str>| {
            let origin = settings(endpoint).check().ok().map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), expect, "{endpoint:?}");
        };
        check(None, Some("https://lighthouse.tencentcloudapi.com"));
        check(
            Some("https://lighthouse.{region}.tencentcloudapi.com"),
            Some("https://lighthouse.ap-singapore.tencentcloudapi.com"),
        );
        check(Some("http://127.0.0.1:8080"), Some("http://127.0.0.1:8080"));
        check(Some("http://lighthouse.tencentcloudapi.com"), None);
        check(Some("https://lighthouse.{zone}.tencentcloudapi.com"), None);
        check(Some("https://u:p@lighthouse.tencentcloudapi.com"), None);
        check(Some("https://lighthouse.tencentcloudapi.com/api"), None);
        check(Some("https://lighthouse.tencentcloudapi.com?a=b"), None);
    }

    #[test]
    fn every_cloud_has_its_own_address_in_every_region_and_can_be_opened() {
        let check = |provider: ProviderKind, region: &str, expect: &str| {
            let settings = Settings { provider, region: Region::new(region), ..settings(None) };
            assert_eq!(settings.check().map(|origin| origin.to_string()), Ok(expect.to_string()));
            let opened = open(&settings, Script::of([]), ManualClock::at("2026-11-22T00:00:00Z"), 1).unwrap();
            assert_eq!(opened.limits().provider, provider);
            assert_eq!(limits(provider).provider, provider);
        };
        check(ProviderKind::TencentLighthouse, "ap-singapore", "https://lighthouse.tencentcloudapi.com");
        check(ProviderKind::TencentCvm, "ap-guangzhou", "https://cvm.tencentcloudapi.com");
        check(ProviderKind::AlibabaEcs, "cn-hangzhou", "https://ecs-cn-hangzhou.aliyuncs.com");
        check(ProviderKind::AlibabaEcs, "eu-central-1", "https://ecs.eu-central-1.aliyuncs.com");
        check(ProviderKind::BaiduBcc, "bj", "https://bcc.bj.baidubce.com");
    }

    #[test]
    fn the_legacy_api_has_an_address_of_its_own_and_only_at_cvm() {
        let check = |provider: ProviderKind, api: Api, endpoint: Option<&str>, expect: Result<&str, OpenError>| {
            let settings = Settings { provider, api, region: Region::new("ap-guangzhou"), ..settings(endpoint) };
            assert_eq!(settings.check().map(|origin| origin.to_string()), expect.map(str::to_string));
        };
        for api in [Api::Legacy, Api::LegacySha1] {
            check(ProviderKind::TencentCvm, api, None, Ok("https://cvm.api.qcloud.com"));
            check(ProviderKind::TencentCvm, api, Some("http://127.0.0.1:80"), Ok("http://127.0.0.1"));
            for other in ProviderKind::ALL.into_iter().filter(|kind| *kind != ProviderKind::TencentCvm) {
                check(other, api, None, Err(OpenError::Api(other)));
            }
        }
        let by = |api| Settings { api, ..settings(None) };
        assert!(by(Api::V3).is_same(&by(Api::V3)) && !by(Api::V3).is_same(&by(Api::Legacy)));
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let check = |change: &dyn Fn(&mut Settings), expect: &str| {
            let mut bad = settings(None);
            change(&mut bad);
            let Err(error) = open(&bad, Script::of([]), ManualClock::at("2026-11-22T00:00:00Z"), 1) else {
                panic!("opened: {expect}");
            };
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(&|bad| bad.region = Region::new("a.b/c"), "region");
        check(&|bad| bad.region = Region::new(""), "region");
        check(&|bad| bad.credentials = credentials(" AKID", "fake", None), "access_key_id");
        check(&|bad| bad.credentials = credentials("AKID", "", None), "access_key_secret");
        check(&|bad| bad.credentials = credentials("AKID", "fake", Some("a\nb")), "session_token");
        check(&|bad| bad.rates.extend([("AttachKeyPair".to_string(), 1)]), "never calls it");
        check(&|bad| bad.rates.extend([("ImportKeyPair".to_string(), 0)]), "0 requests");
        assert!(open(&settings(None), Script::of([]), ManualClock::at("2026-11-22T00:00:00Z"), 1).is_ok());
    }

    #[test]
    fn every_documented_rate_is_of_an_action_that_is_called() {
        for kind in ProviderKind::ALL {
            let cloud = cloud(kind);
            assert_eq!(cloud.limits.provider, kind);
            for (action, rate) in cloud.limits.requests_per_second {
                assert!(cloud.actions.contains(action) && *rate > 0, "{kind} {action}");
            }
        }
    }
}
