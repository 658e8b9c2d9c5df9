//! The parameters of an ECS call: in the query of a POST, or in a form body, or both (FACTS 4.1, 4.2).
//! It must never guess: a list, a number or a flag in a form that the page does not show is refused.

use std::collections::BTreeMap;

use super::error::{Refused, refused};
use super::sign::header;
use crate::net::Request;
use crate::sim::canon;

/// The most tags that a call may name.
const TAGS_MAX: usize = 20;

/// A call: its action and its parameters, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    /// From the header `x-acs-action`.
    pub(crate) action: String,
    map: BTreeMap<String, String>,
}

impl Params {
    /// Reads the action and the parameters. An action is a POST to `/`.
    pub(crate) fn read(request: &Request) -> Result<Self, Refused> {
        if request.method != "POST" || request.path != "/" {
            return Err(refused("UnsupportedOperation", "An action of this style is a POST to the path /."));
        }
        let action = header(request, "x-acs-action").filter(|action| !action.is_empty());
        let action = action.ok_or_else(|| missing("Action"))?;
        let broken = || refused("InvalidParameter", "The parameters are not percent-encoded UTF-8.");
        let mut pairs = canon::pairs(&request.query).ok_or_else(broken)?;
        if header(request, "content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            let body = std::str::from_utf8(&request.body).map_err(|_| broken())?;
            pairs.extend(canon::pairs(body).ok_or_else(broken)?);
        }
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            if map.insert(name.clone(), value).is_some() {
                return Err(refused("InvalidParameter", format!("The parameter {name} is given twice.")));
            }
        }
        Ok(Self { action, map })
    }

    /// A parameter that is not empty: an empty one counts as not given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.map.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter that the action cannot do without.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name).ok_or_else(|| missing(name))
    }

    /// A flag: `true` or `false`; the vendor's Python SDK writes `True` and `False`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.text(name) {
            None | Some("false" | "False") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(invalid(name)),
        }
    }

    /// A whole number, if given.
    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, Refused> {
        self.text(name).map(|text| text.parse().map_err(|_| invalid(name))).transpose()
    }

    /// One of a few words, if given.
    pub(crate) fn word<'a>(&'a self, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, Refused> {
        match self.text(name) {
            Some(word) if !allowed.contains(&word) => Err(invalid(name)),
            word => Ok(word),
        }
    }

    /// `Name.1`, `Name.2`, … in the order of their numbers.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Refused> {
        let entries = self.numbered(name)?;
        if entries.values().any(|fields| fields.len() != 1 || !fields.contains_key("")) {
            return Err(invalid(name));
        }
        Ok(entries.into_values().flat_map(BTreeMap::into_values).collect())
    }

    /// `Tag.N.Key` and `Tag.N.Value`, at most 20. No value (or an empty one): any value.
    pub(crate) fn tags(&self) -> Result<Vec<(String, Option<String>)>, Refused> {
        let entries = self.numbered("Tag")?;
        if entries.len() > TAGS_MAX {
            return Err(refused("QuotaExceed.Tags", "At most 20 tags."));
        }
        let mut tags = Vec::new();
        for mut fields in entries.into_values() {
            let key = fields.remove("Key").filter(|key| !key.is_empty());
            let key = key.ok_or_else(|| refused("InvalidTagKey.Malformed", "A tag key cannot be empty."))?;
            let value = fields.remove("Value").filter(|value| !value.is_empty());
            if !fields.is_empty() {
                return Err(invalid("Tag"));
            }
            if tags.iter().any(|(other, _)| *other == key) {
                return Err(refused("Duplicate.TagKey", format!("The tag key {key} is given twice.")));
            }
            tags.push((key, value));
        }
        Ok(tags)
    }

    /// A list that is one JSON-array string: `["i-1","i-2"]`. None if not given, an error if it is something else.
    pub(crate) fn json_list(&self, name: &str, code: &str) -> Result<Option<Vec<String>>, Refused> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let list = serde_json::from_str(text);
        list.map(Some).map_err(|_| refused(code, format!("{name} must be a JSON array of strings.")))
    }

    /// All parameters but these, as one text: what a paging token is bound to.
    pub(crate) fn without(&self, names: &[&str]) -> String {
        let kept = self.map.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        kept.map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// The fields of `Name.N` and `Name.N.Field`, by N (from 1) and field.
    fn numbered(&self, name: &str) -> Result<BTreeMap<usize, BTreeMap<String, String>>, Refused> {
        let mut entries: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
        for (key, value) in &self.map {
            let Some(rest) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let (number, field) = rest.split_once('.').unwrap_or((rest, ""));
            let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(|| invalid(name))?;
            entries.entry(number).or_default().insert(field.to_string(), value.clone());
        }
        Ok(entries)
    }
}

fn missing(name: &str) -> Refused {
    refused(
        "MissingParameter",
        format!("The input parameter \"{name}\" that is mandatory for processing this request is not supplied."),
    )
}

fn invalid(name: &str) -> Refused {
    refused("InvalidParameter", format!("The specified parameter \"{name}\" is not valid."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str, body: &str) -> Request {
        let mut headers = vec![("x-acs-action".to_string(), "StopInstances".to_string())];
        if !body.is_empty() {
            headers.push(("content-type".into(), "application/x-www-form-urlencoded; charset=utf-8".into()));
        }
        let (origin, path) = ("http://127.0.0.1".to_string(), "/".to_string());
        Request { method: "POST", origin, path, query: query.into(), headers, body: body.into() }
    }

    fn params(query: &str) -> Params {
        Params::read(&request(query, "")).unwrap()
    }

    #[test]
    fn parameters_come_from_the_query_and_from_a_form_body() {
        let read = Params::read(&request("RegionId=cn-a&Empty=", "InstanceId.1=i-1&ForceStop=True")).unwrap();
        assert_eq!(read.required("RegionId").unwrap(), "cn-a");
        assert_eq!(read.list("InstanceId").unwrap(), ["i-1"]);
        assert!(read.flag("ForceStop").unwrap());
        assert_eq!(read.required("Empty").unwrap_err().code, "MissingParameter");
        assert_eq!(Params::read(&request("A=1", "A=2")).unwrap_err().code, "InvalidParameter");
        let mut get = request("", "");
        get.method = "GET";
        assert_eq!(Params::read(&get).unwrap_err().code, "UnsupportedOperation");
    }

    #[test]
    fn lists_keep_the_order_of_their_numbers() {
        for (query, expect) in [
            ("", Ok(vec![])),
            ("InstanceId.2=b&InstanceId.1=a&InstanceId.10=c", Ok(vec!["a", "b", "c"])),
            ("InstanceId.0=a", Err("InvalidParameter")),
            ("InstanceId.x=a", Err("InvalidParameter")),
            ("InstanceId.1.Key=a", Err("InvalidParameter")),
        ] {
            let got = params(query).list("InstanceId").map_err(|refused| refused.code);
            assert_eq!(
                got,
                expect.map(|list| list.iter().map(ToString::to_string).collect()).map_err(str::to_string),
                "{query}"
            );
        }
    }

    #[test]
    fn tags_are_read_with_or_without_a_value() {
        let many: Vec<String> = (1..=21).map(|n| format!("Tag.{n}.Key=k{n}")).collect();
        let tag = |key: &str, value: Option<&str>| (key.to_string(), value.map(String::from));
        for (query, expect) in [
            ("Tag.1.Key=role&Tag.1.Value=web", Ok(vec![tag("role", Some("web"))])),
            ("Tag.2.Key=env&Tag.1.Key=role&Tag.1.Value=", Ok(vec![tag("role", None), tag("env", None)])),
            ("Tag.1.Value=web", Err("InvalidTagKey.Malformed")),
            ("Tag.1.Key=", Err("InvalidTagKey.Malformed")),
            ("Tag.1.Key=a&Tag.2.Key=a", Err("Duplicate.TagKey")),
            (many.join("&").as_str(), Err("QuotaExceed.Tags")),
        ] {
            assert_eq!(params(query).tags().map_err(|refused| refused.code), expect.map_err(str::to_string), "{query}");
        }
    }

    #[test]
    fn json_lists_flags_numbers_and_words_are_read_strictly() {
        let read = params("Ids=%5B%22i-1%22%5D&Bad=i-1&Nested=%5B1%5D&Flag=yes&Size=-1&Mode=KeepCharging");
        assert_eq!(read.json_list("Ids", "InvalidParameter").unwrap(), Some(vec!["i-1".to_string()]));
        assert_eq!(read.json_list("None", "InvalidParameter").unwrap(), None);
        for name in ["Bad", "Nested"] {
            assert!(read.json_list(name, "InvalidParameter").is_err(), "{name}");
        }
        assert!(read.flag("Flag").is_err() && read.number("Size").is_err());
        assert!(read.word("Mode", &["StopCharging"]).is_err());
        assert_eq!(read.word("Mode", &["KeepCharging"]).unwrap(), Some("KeepCharging"));
    }
}
