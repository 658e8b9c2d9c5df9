//! Alibaba Cloud ECS, API 2014-05-26: one file each for the signature, the error codes, the bodies and the client.
//! It must never decide anything: it says what the cloud says and does what it is told.

mod client;
mod error;
mod parameters;
mod sign;
mod wire;

pub(super) use client::{ACTIONS, Ecs, LIMITS};

use crate::model::Region;

/// Regions whose host does not follow the rule `ecs.<region>.aliyuncs.com`. Source: the endpoint map of
/// alibabacloud_ecs20140526 7.11.8 and its PHP sister, read 2026-11-22.
const HOSTS: [(&str, &[&str]); 5] = [
    (
        "ecs-cn-hangzhou.aliyuncs.com",
        &[
            "cn-hangzhou",
            "cn-shanghai-finance-1",
            "cn-shenzhen-finance-1",
            "cn-beijing-nu16-b01",
            "cn-fujian",
            "cn-haidian-cm12-c01",
            "cn-hangzhou-bj-b01",
            "cn-hangzhou-internal-prod-1",
            "cn-hangzhou-internal-test-1",
            "cn-hangzhou-internal-test-2",
            "cn-hangzhou-internal-test-3",
            "cn-hangzhou-test-306",
            "cn-shanghai-et15-b01",
            "cn-shanghai-et2-b01",
            "cn-shanghai-internal-test-1",
            "cn-shenzhen-st4-d01",
            "cn-shenzhen-su18-b01",
            "cn-zhangbei-na61-b01",
        ],
    ),
    (
        "ecs.aliyuncs.com",
        &[
            "cn-north-2-gov-1",
            "cn-beijing-gov-1",
            "cn-beijing-finance-pop",
            "cn-hangzhou-finance",
            "cn-hongkong-finance-pop",
            "ap-northeast-2-pop",
            "rus-west-1-pop",
            "cn-shanghai-inner",
            "cn-shenzhen-inner",
            "cn-wuhan",
            "cn-yushanfang",
            "cn-zhangbei",
        ],
    ),
    ("ecs.cn-qingdao-nebula.aliyuncs.com", &["cn-edge-1", "cn-huhehaote-nebula-1", "cn-zhengzhou-nebula-1"]),
    ("ecs.cn-zhangjiakou.aliyuncs.com", &["cn-zhangjiakou-na62-a01"]),
    ("ecs.cn-shenzhen-cloudstone.aliyuncs.com", &["eu-west-1-oxs"]),
];

/// Where it answers in a region if the config file names no endpoint: the SDK's rule.
pub(super) fn endpoint(region: &Region) -> String {
    match HOSTS.iter().find(|(_, regions)| regions.contains(&region.as_str())) {
        Some((host, _)) => format!("https://{host}"),
        None => format!("https://ecs.{region}.aliyuncs.com"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_follows_the_rule_or_the_exceptions() {
        let check = |region: &str, expect: &str| assert_eq!(endpoint(&region.into()), format!("https://{expect}"));
        check("ap-southeast-1", "ecs.ap-southeast-1.aliyuncs.com");
        check("us-east-1", "ecs.us-east-1.aliyuncs.com");
        check("cn-hangzhou", "ecs-cn-hangzhou.aliyuncs.com");
        check("cn-beijing-gov-1", "ecs.aliyuncs.com");
        check("cn-shenzhen-finance-1", "ecs-cn-hangzhou.aliyuncs.com");
        check("eu-west-1-oxs", "ecs.cn-shenzhen-cloudstone.aliyuncs.com");
    }
}
