//! The command `policy-set`.

use serde_json::Value;

use super::{Fields, Refused, invalid};
use crate::packet::{TCP, UDP};
use crate::policy::{MAX_PORTS, MAX_PREFIXES, MAX_RULES, PolicySet, Rule};
use crate::prefix::Prefix;

impl Fields<'_> {
    pub(super) fn policy_set(&self) -> Result<PolicySet, Refused> {
        let rules = self.array("rules")?;
        if rules.len() > MAX_RULES {
            return Err(invalid("rules", &format!("must be {MAX_RULES} or fewer")));
        }
        let mut room = MAX_PREFIXES;
        let rules = rules.iter().map(|rule| parse_rule(rule, &mut room)).collect::<Result<_, _>>()?;
        Ok(PolicySet { version: self.number("version", u64::MAX)?, default_allow: self.allow("default")?, rules })
    }

    fn allow(&self, name: &str) -> Result<bool, Refused> {
        match self.text(name)? {
            "allow" => Ok(true),
            "deny" => Ok(false),
            _ => Err(invalid(name, "must be \"allow\" or \"deny\"")),
        }
    }

    /// At least one, and no more than there is `room`.
    fn prefixes(&self, name: &str, room: &mut usize) -> Result<Vec<Prefix>, Refused> {
        let list = self.array(name)?;
        *room = room
            .checked_sub(list.len())
            .ok_or_else(|| invalid(name, &format!("must be {MAX_PREFIXES} or fewer in all rules")))?;
        if list.is_empty() {
            return Err(invalid(name, "must not be empty"));
        }
        let parse = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        list.iter().map(|value| parse(value).ok_or_else(|| invalid(name, "must be prefixes"))).collect()
    }

    fn port_ranges(&self, protocol: Option<u8>) -> Result<Vec<(u16, u16)>, Refused> {
        let list = self.array("ports")?;
        if list.len() > MAX_PORTS || !(list.is_empty() || matches!(protocol, Some(TCP | UDP | SCTP))) {
            return Err(invalid("ports", &format!("must be {MAX_PORTS} or fewer, and of TCP, UDP or SCTP")));
        }
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
        let range = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([first, last]) => port(first).zip(port(last)).filter(|(first, last)| first <= last),
            _ => None,
        };
        list.iter().map(|value| range(value).ok_or_else(|| invalid("ports", "must be pairs of ports"))).collect()
    }
}

fn parse_rule(value: &Value, room: &mut usize) -> Result<Rule, Refused> {
    let fields = Fields(value.as_object().ok_or_else(|| invalid("rules", "must be objects"))?);
    let protocol = match fields.optional("protocol") {
        None => None,
        Some(_) => Some(fields.number("protocol", 255)? as u8),
    };
    Ok(Rule {
        allow: fields.allow("action")?,
        source: fields.prefixes("source", room)?,
        destination: fields.prefixes("destination", room)?,
        protocol,
        ports: fields.port_ranges(protocol)?,
    })
}

const SCTP: u8 = 132;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::messages::{Command, parse_request};
    use crate::policy::{MAX_PREFIXES, MAX_RULES, PolicySet, Rule};

    fn parse(rules: Value) -> Result<PolicySet, String> {
        let message = json!({ "id": 1, "type": "policy-set", "version": 3, "default": "deny", "rules": rules });
        match parse_request(message.to_string().as_bytes()).1 {
            Ok(Command::PolicySet(set)) => Ok(*set),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.message),
        }
    }

    fn rule() -> Value {
        json!({ "action": "allow", "source": ["10.0.0.0/8"], "destination": ["fd77::5/128"], "protocol": null, "ports": [] })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut rule = rule();
        rule[field] = value;
        json!([rule])
    }

    #[test]
    fn a_rule_is_read() {
        let mut expected = Rule {
            allow: true,
            source: vec!["10.0.0.0/8".parse().unwrap()],
            destination: vec!["fd77::5/128".parse().unwrap()],
            protocol: None,
            ports: vec![],
        };
        assert_eq!(parse(json!([rule()])).unwrap().rules, [expected.clone()]);
        let mut tcp = rule();
        (tcp["protocol"], tcp["ports"]) = (json!(6), json!([[80, 80], [8000, 8999]]));
        (expected.protocol, expected.ports) = (Some(6), vec![(80, 80), (8000, 8999)]);
        let set = PolicySet { version: 3, default_allow: false, rules: vec![expected] };
        assert_eq!(parse(json!([tcp])), Ok(set));
    }

    #[test]
    fn what_is_wrong_or_too_large_is_refused() {
        for (field, value) in [
            ("action", json!("maybe")),
            ("source", json!([])),
            ("destination", json!(["10.0.0.1/8"])),
            ("protocol", json!(256)),
            ("ports", json!([[80, 80]])),
        ] {
            assert!(parse(with(field, value)).unwrap_err().contains(field));
        }
        for ports in [json!([[2, 1]]), json!([[1]]), json!([[1, 65536]]), json!(vec![[1, 1]; 65])] {
            let mut tcp = rule();
            (tcp["protocol"], tcp["ports"]) = (json!(6), ports);
            assert!(parse(json!([tcp])).unwrap_err().contains("ports"));
        }
        assert!(parse(json!(vec![rule(); MAX_RULES])).is_ok());
        assert!(parse(json!(vec![rule(); MAX_RULES + 1])).unwrap_err().contains("rules"));
        let all = vec!["10.0.0.0/8"; MAX_PREFIXES - 1];
        assert!(parse(with("source", json!(all))).is_ok());
        let mut two = vec![rule()];
        two[0]["source"] = json!(all);
        two.push(rule());
        assert!(parse(json!(two)).unwrap_err().contains("in all rules"));
    }
}
