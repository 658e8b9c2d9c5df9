//! A careful client for the tests of both products: signs as the vendor's SDK does. The signer is the checker's own
//! arithmetic, which the golden vectors prove.

use std::time::Duration;

use serde_json::{Value, json};

use super::sign;
use crate::model::ProviderKind;
use crate::net::{Request, Response};
use crate::sim::world::later;
use crate::sim::{InstanceSpec, Outcome, Power, World, handle};

/// A world with one Tencent cloud, and its client.
pub(super) struct Bench {
    pub(super) world: World,
    pub(super) kind: ProviderKind,
    pub(super) now: jiff::Timestamp,
}

impl Bench {
    pub(super) fn new(kind: ProviderKind) -> Self {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut world = World::new(1, now);
        world.open_cloud(kind);
        Self { world, kind, now }
    }

    pub(super) fn instance(&mut self, power: Power, keys: &[&str]) -> String {
        let keys = keys.iter().map(|key| key.to_string()).collect();
        self.world.add_instance(0, InstanceSpec { power, keys, ..InstanceSpec::default() })
    }

    pub(super) fn request(&self, action: &str, params: &Value) -> Request {
        let (service, version) = match self.kind {
            ProviderKind::TencentLighthouse => ("lighthouse", "2020-03-24"),
            _ => ("cvm", "2017-03-12"),
        };
        let headers = [
            ("host", "127.0.0.1:1".to_string()),
            ("content-type", "application/json".to_string()),
            ("x-tc-action", action.to_string()),
            ("x-tc-version", version.to_string()),
            ("x-tc-timestamp", self.now.as_second().to_string()),
            ("x-tc-region", self.world.cloud(0).region.clone()),
        ];
        let mut request = Request {
            method: "POST",
            origin: "http://127.0.0.1:1".into(),
            path: "/".into(),
            query: String::new(),
            headers: headers.map(|(name, value)| (name.to_string(), value)).to_vec(),
            body: params.to_string().into_bytes(),
        };
        self.sign(&mut request, service);
        request
    }

    /// Signs anew, for a request that was changed on purpose.
    pub(super) fn sign(&self, request: &mut Request, service: &str) {
        request.headers.retain(|(name, _)| name != "authorization");
        let cloud = self.world.cloud(0);
        let header = |wanted| request.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let timestamp: i64 = header("x-tc-timestamp").and_then(|at| at.parse().ok()).unwrap_or_default();
        let date = sign::date(timestamp).unwrap();
        let credential = format!("{}/{date}/{service}/tc3_request", cloud.access_key_id);
        let unsigned = format!(
            "TC3-HMAC-SHA256 Credential={credential}, SignedHeaders=content-type;host, Signature={}",
            "0".repeat(64)
        );
        let who = sign::authorization(&unsigned).unwrap();
        let parts = sign::Parts {
            method: request.method,
            query: &request.query,
            headers: &request.headers,
            body: &request.body,
        };
        let signature = sign::signature(&parts, &who, &cloud.access_key_secret, timestamp).unwrap_or_default();
        let authorization = unsigned.replace(&"0".repeat(64), &signature);
        request.headers.push(("authorization".into(), authorization));
    }

    pub(super) fn send(&mut self, request: &Request) -> Outcome {
        handle(&mut self.world, 0, self.now, request)
    }

    /// The `Response` object of a call.
    pub(super) fn call(&mut self, action: &str, params: Value) -> Value {
        let request = self.request(action, &params);
        response(&self.send(&request).reply.expect("an answer"))
    }

    /// The error code of a call; empty for success.
    pub(super) fn code(&mut self, action: &str, params: Value) -> String {
        code(&self.call(action, params))
    }

    pub(super) fn wait(&mut self, milliseconds: u64) {
        self.now = later(self.now, Duration::from_millis(milliseconds));
        self.world.advance(self.now);
    }

    /// The row of an instance.
    pub(super) fn look(&mut self, id: &str) -> Value {
        self.call("DescribeInstances", json!({ "InstanceIds": [id] }))["InstanceSet"][0].clone()
    }

    /// `STATE/OPERATION` of an instance.
    pub(super) fn state(&mut self, id: &str) -> String {
        let row = self.look(id);
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_string();
        format!("{}/{}", text("InstanceState"), text("LatestOperationState"))
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.world.violations().map(|violation| format!("{violation:?}")).collect()
    }
}

pub(super) fn response(reply: &Response) -> Value {
    assert_eq!(reply.status, 200);
    let whole: Value = serde_json::from_slice(&reply.body).unwrap();
    assert!(whole["Response"]["RequestId"].is_string(), "{whole}");
    whole["Response"].clone()
}

pub(super) fn code(response: &Value) -> String {
    response["Error"]["Code"].as_str().unwrap_or_default().to_string()
}
