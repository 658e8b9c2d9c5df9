//! Baidu AI Cloud BCC, API v2: one file each for the signature, the error codes, the bodies and the client.
//! It must never decide anything: it says what the cloud says and does what it is told.

mod client;
pub mod error;
pub mod sign;
pub mod wire;

pub use client::{ACTIONS, Bcc, LIMITS};

use crate::model::Region;

/// The region's endpoint: what the config file says, where `{region}` stands for the region, else the SDK's rule.
pub fn endpoint(region: &Region, configured: Option<&str>) -> String {
    configured.unwrap_or("https://bcc.{region}.baidubce.com").replace("{region}", region.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_follows_the_rule_or_the_config_file() {
        let check = |configured: Option<&str>, expect: &str| assert_eq!(endpoint(&"gz".into(), configured), expect);
        check(None, "https://bcc.gz.baidubce.com");
        check(Some("https://bcc-vpc.{region}.example.com"), "https://bcc-vpc.gz.example.com");
        check(Some("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    }
}
