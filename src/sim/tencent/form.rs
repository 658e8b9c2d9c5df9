//! The parameters of a form or query as CVM's legacy endpoint takes them (FACTS §3), made into the JSON that the same
//! action of API 3.0 would have been sent. It must never guess: a list, a number or a flag in a form that no page of the
//! endpoint shows is refused.

use serde_json::{Map, Value};

use super::{Refused, broken};
use crate::sim::cloud::Rule::Malformed;

/// No action has parameters that are deeper: `TagSpecification.1.Tags.1.Key`.
const DEPTH_MAX: usize = 5;
/// The parameters that are whole numbers.
const NUMBERS: [&str; 3] = ["Offset", "Limit", "ProjectId"];
/// The parameters that are flags.
const FLAGS: [&str; 2] = ["ForceStop", "ForceReboot"];

/// The parameters as an object. Lists are `Name.1`, `Name.2` and so on without a gap, lists of objects `Name.1.Field`.
/// The endpoint's pages count from 1, the vendor's SDK for it from 0 (qcloudapi-sdk-python 2.0.15): both are taken.
pub(super) fn object(params: &[(String, String)]) -> Result<Value, Refused> {
    let mut fields = Map::new();
    for (name, value) in params {
        let path: Vec<&str> = name.split('.').collect();
        let put = path.len() <= DEPTH_MAX && put(&mut fields, &path, leaf(name, value)?).is_some();
        if !put {
            return Err(malformed(format!("the parameter {name} contradicts another one, or is none")));
        }
    }
    lists(fields)
        .map(Value::Object)
        .ok_or_else(|| malformed("a list that is not counted from 1 or from 0 on".to_string()))
}

fn malformed(message: String) -> Refused {
    broken(Malformed, "InvalidParameterValue", message)
}

/// A value of the parameter's type.
fn leaf(name: &str, value: &str) -> Result<Value, Refused> {
    let bad = || malformed(format!("{name} is {value:?}"));
    if NUMBERS.contains(&name) {
        return value.parse::<i64>().ok().filter(|number| number.to_string() == value).map(Value::from).ok_or_else(bad);
    }
    if FLAGS.contains(&name) {
        // The page's words, and those of the vendor's Python SDK.
        return match value {
            "TRUE" | "True" => Ok(true.into()),
            "FALSE" | "False" => Ok(false.into()),
            _ => Err(bad()),
        };
    }
    Ok(value.into())
}

/// Puts a value at its place; `None` where something else is there or on the way.
fn put(fields: &mut Map<String, Value>, path: &[&str], value: Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        return fields.insert(first.to_string(), value).is_none().then_some(());
    }
    let inner = fields.entry(first.to_string()).or_insert_with(|| Value::Object(Map::new()));
    put(inner.as_object_mut()?, rest, value)
}

/// The same with each object whose names are numbers made into the list that it means. `None` where a number is missing.
fn lists(fields: Map<String, Value>) -> Option<Map<String, Value>> {
    let made = fields.into_iter().map(|(name, value)| Some((name, list(value)?)));
    made.collect()
}

fn list(value: Value) -> Option<Value> {
    let Value::Object(fields) = value else { return Some(value) };
    let numbered = fields.keys().any(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    let mut fields = lists(fields)?;
    if !numbered {
        return Some(Value::Object(fields));
    }
    let from = usize::from(!fields.contains_key("0"));
    let places = from..from + fields.len();
    places.map(|number| fields.remove(&number.to_string())).collect::<Option<Vec<_>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::canon;

    #[test]
    fn a_form_says_what_the_json_would() {
        let check = |query: &str, expect: &str| {
            let said = object(&canon::pairs(query).unwrap()).map_err(|refused| refused.code);
            let expect = if expect.is_empty() { Err("InvalidParameterValue".to_string()) } else { Ok(expect) };
            assert_eq!(said, expect.map(|json| serde_json::from_str(json).unwrap()), "{query}");
        };
        check("", "{}");
        check(
            "InstanceIds.1=ins-1&InstanceIds.2=ins-2&KeyIds.1=skey-1&ForceStop=FALSE",
            r#"{"InstanceIds":["ins-1","ins-2"],"KeyIds":["skey-1"],"ForceStop":false}"#,
        );
        let many: Vec<String> = (1..=12).map(|number| format!("KeyIds.{number}=k{number}")).collect();
        let keys: Vec<String> = (1..=12).map(|number| format!("\"k{number}\"")).collect();
        check(&many.join("&"), &format!("{{\"KeyIds\":[{}]}}", keys.join(",")));
        check(
            "Filters.1.Name=tag%3Aa.b_c&Filters.1.Values.1=x+y&Filters.1.Values.2=&Filters.2.Name=zone",
            r#"{"Filters":[{"Name":"tag:a.b_c","Values":["x y",""]},{"Name":"zone"}]}"#,
        );
        check(
            "TagSpecification.1.ResourceType=keypair&TagSpecification.1.Tags.1.Key=a&TagSpecification.1.Tags.1.Value=b",
            r#"{"TagSpecification":[{"ResourceType":"keypair","Tags":[{"Key":"a","Value":"b"}]}]}"#,
        );
        check(
            "Filters.0.Name=zone&Filters.0.Values.0=a&Filters.0.Values.1=b",
            r#"{"Filters":[{"Name":"zone","Values":["a","b"]}]}"#,
        );
        check("Limit=100&Offset=0&ProjectId=-1", r#"{"Limit":100,"Offset":0,"ProjectId":-1}"#);
        check("ForceStop=True&ForceReboot=False", r#"{"ForceStop":true,"ForceReboot":false}"#);
        check("Filters_1_Name=zone", r#"{"Filters_1_Name":"zone"}"#);
        for bad in [
            "InstanceIds.2=ins-1",
            "InstanceIds.0=ins-1&InstanceIds.2=ins-2",
            "InstanceIds.1=ins-1&InstanceIds.3=ins-2",
            "InstanceIds.01=ins-1",
            "InstanceIds.1=ins-1&InstanceIds.1=ins-1",
            "InstanceIds.1=ins-1&InstanceIds.x=ins-2",
            "InstanceIds.1=ins-1&InstanceIds=ins-2",
            "InstanceIds=ins-1&InstanceIds.1=ins-2",
            "Limit=",
            "Limit=+1",
            "Limit=ten",
            "Limit=010",
            "ForceStop=1",
            "ForceStop=true",
            "ForceStop=",
            "a.b.c.d.e.f=1",
        ] {
            check(bad, "");
        }
    }
}
