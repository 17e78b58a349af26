//! The command `plain-set`.

use serde_json::Value;

use super::{Fields, Refused, invalid};
use crate::plain::{MAX_SITE_PREFIXES, MAX_SITES, PlainRules, PlainSite};
use crate::prefix::Prefix;

impl Fields<'_> {
    pub(super) fn plain_set(&self) -> Result<PlainRules, Refused> {
        let sites = self.array("sites")?;
        if sites.len() > MAX_SITES {
            return Err(invalid("sites", &format!("must be {MAX_SITES} or fewer")));
        }
        let mut room = MAX_SITE_PREFIXES;
        let sites = sites.iter().map(|site| parse_site(site, &mut room)).collect::<Result<_, _>>()?;
        let gateway = self.optional("gateway").and_then(Value::as_bool);
        let gateway = gateway.ok_or_else(|| invalid("gateway", "must be true or false"))?;
        Ok(PlainRules { instance: self.number("instance", 0xff_ffff)? as u32, gateway, sites })
    }
}

fn parse_site(value: &Value, room: &mut usize) -> Result<PlainSite, Refused> {
    let fields = Fields(value.as_object().ok_or_else(|| invalid("sites", "must be objects"))?);
    let mut prefixes = |name: &str| -> Result<Vec<Prefix>, Refused> {
        let list = fields.array(name)?;
        *room = room
            .checked_sub(list.len())
            .ok_or_else(|| invalid(name, &format!("must be {MAX_SITE_PREFIXES} or fewer in all sites")))?;
        let parse = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        list.iter().map(|value| parse(value).ok_or_else(|| invalid(name, "must be prefixes"))).collect()
    };
    let site = PlainSite { rlocs: prefixes("rlocs")?, eids: prefixes("eids")? };
    // They are routed into the TUN: never everything.
    if site.eids.iter().any(|prefix| prefix.length < SHORTEST_EIDS) {
        return Err(invalid("eids", &format!("must be of length {SHORTEST_EIDS} or more")));
    }
    Ok(site)
}

const SHORTEST_EIDS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::super::{Command, parse_request};

    #[test]
    fn what_would_take_all_of_the_host_is_refused() {
        for (sites, field) in [
            (r#"[{"rlocs":["192.0.2.0/24"],"eids":["0.0.0.0/0"]}]"#, Some("eids")),
            (r#"[{"rlocs":["192.0.2.1/24"],"eids":[]}]"#, Some("rlocs")),
            (r#"[{"rlocs":["192.0.2.0/24"]}]"#, Some("eids")),
            ("[7]", Some("sites")),
            (r#"[{"rlocs":["0.0.0.0/0"],"eids":["2000::/4"]}]"#, None),
        ] {
            let request = format!(r#"{{"id":1,"type":"plain-set","instance":7,"gateway":false,"sites":{sites}}}"#);
            match (parse_request(request.as_bytes()).1, field) {
                (Ok(Command::PlainSet(rules)), None) => assert!(rules.is_enabled() && rules.instance == 7),
                (Err(refused), Some(field)) => assert!(refused.message.contains(&format!("\"{field}\""))),
                (other, _) => panic!("{sites}: {other:?}"),
            }
        }
    }
}
