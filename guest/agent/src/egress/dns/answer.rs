//! The answers: local names, synthetic addresses for names that exist, their names for synthetic addresses, and what the gateway says of all else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use domain::base::iana::Rcode;
use domain::base::message_builder::{AnswerBuilder, PushError};
use domain::base::{Message, Name, ParsedName, Rtype, Ttl};
use domain::rdata::{A, Aaaa, AllRecordData, Ptr};

use super::question::{Question, Target};
use crate::egress::gateway::Lookup;
use crate::egress::pool::{Addresses, Owner, Pool};

/// So that a change of policy shows at once.
const TTL: Ttl = Ttl::from_secs(5);
/// Debian's address for a host's own name, as in /etc/hosts.
const OWN_NAME: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const MAX_RECORDS: usize = 256;

/// What can be said without the gateway.
pub fn local(question: &Question, own_name: &str, pool: &Mutex<Pool>) -> Option<Vec<u8>> {
    let host = question.host.as_deref();
    // Their address hints and keys would lead past the name (RFC 9460); programs go on with A and AAAA.
    if [Rtype::HTTPS, Rtype::SVCB].contains(&question.rtype) {
        return Some(nothing(question));
    }
    let is_address = [Rtype::A, Rtype::AAAA].contains(&question.rtype);
    match host {
        Some(host) if host == "localhost" || host.ends_with(".localhost") => {
            Some(addresses(question, Some(Ipv4Addr::LOCALHOST), Some(Ipv6Addr::LOCALHOST)))
        }
        Some(host) if host.eq_ignore_ascii_case(own_name) => Some(addresses(question, Some(OWN_NAME), None)),
        None if is_address => Some(question.answer(Rcode::NXDOMAIN, |_| Ok(()))),
        Some(host) if question.rtype == Rtype::PTR => {
            let address = reversed(host)?;
            let name = match pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).owner(address) {
                Owner::Name(name) => name.to_string(),
                Owner::Nobody => return Some(question.answer(Rcode::NXDOMAIN, |_| Ok(()))),
                Owner::Literal if address == OWN_NAME => own_name.to_owned(),
                Owner::Literal if address.is_loopback() => "localhost".to_owned(),
                Owner::Literal => return None,
            };
            let name: Name<Vec<u8>> = name.parse().ok()?;
            Some(question.answer(Rcode::NOERROR, |builder| push(builder, question, Ptr::new(&name))))
        }
        _ => None,
    }
}

/// The answer that follows from the gateway's; a refusal of service when there is none, or no room for another name.
pub fn from_gateway(question: &Question, lookup: Option<Lookup>, pool: &Mutex<Pool>, now: Instant) -> Vec<u8> {
    let failed = || question.answer(Rcode::SERVFAIL, |_| Ok(()));
    let Some((message, denied)) =
        lookup.and_then(|lookup| Some((Message::from_octets(lookup.message).ok()?, lookup.denied)))
    else {
        return failed();
    };
    let (Some(host), Rtype::A | Rtype::AAAA) = (question.host.as_deref(), question.rtype) else {
        return relayed(question, &message);
    };
    // A denied name gets addresses too: the connection is then refused with its port, and logged with its rule.
    if !denied {
        match message.header().rcode() {
            Rcode::NOERROR if has_answer(&message, question.rtype) => {}
            Rcode::NOERROR => return nothing(question),
            rcode => return question.answer(rcode, |_| Ok(())),
        }
    }
    let given = pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).answer(host, now);
    given.map_or_else(failed, |Addresses { ipv4, ipv6 }| addresses(question, Some(ipv4), Some(ipv6)))
}

pub fn failure(question: &Question) -> Vec<u8> {
    question.answer(Rcode::SERVFAIL, |_| Ok(()))
}

/// NODATA: the name exists, the record does not.
fn nothing(question: &Question) -> Vec<u8> {
    question.answer(Rcode::NOERROR, |_| Ok(()))
}

fn addresses(question: &Question, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Vec<u8> {
    question.answer(Rcode::NOERROR, |builder| match (question.rtype, ipv4, ipv6) {
        (Rtype::A, Some(address), _) => push(builder, question, A::new(address)),
        (Rtype::AAAA, _, Some(address)) => push(builder, question, Aaaa::new(address)),
        _ => Ok(()),
    })
}

fn push(
    builder: &mut AnswerBuilder<Target>,
    question: &Question,
    data: impl domain::base::rdata::ComposeRecordData,
) -> Result<(), PushError> {
    question.name().map_or(Ok(()), |name| builder.push((name, TTL, data)))
}

fn has_answer(message: &Message<Bytes>, rtype: Rtype) -> bool {
    message.answer().is_ok_and(|answers| answers.take(MAX_RECORDS).flatten().any(|record| record.rtype() == rtype))
}

/// The gateway's answer section without addresses, which only names may have here. Its other sections speak of servers that cannot be asked.
fn relayed(question: &Question, message: &Message<Bytes>) -> Vec<u8> {
    type Data<'a> = AllRecordData<Bytes, ParsedName<Bytes>>;
    let Ok(answers) = message.answer() else { return failure(question) };
    let records: Vec<_> = answers
        .limit_to::<Data>()
        .take(MAX_RECORDS)
        .flatten()
        .filter(|record| !matches!(record.data(), AllRecordData::A(_) | AllRecordData::Aaaa(_)))
        .collect();
    question.answer(message.header().rcode(), |builder| {
        records
            .iter()
            .try_for_each(|record| builder.push((record.owner(), record.class(), record.ttl().min(TTL), record.data())))
    })
}

/// The address that a name below in-addr.arpa or ip6.arpa stands for (RFC 1035 §3.5, RFC 3596 §2.5).
fn reversed(host: &str) -> Option<IpAddr> {
    if let Some(digits) = host.strip_suffix(".in-addr.arpa") {
        let address: Ipv4Addr = digits.parse().ok()?;
        let [a, b, c, d] = address.octets();
        return Some(Ipv4Addr::new(d, c, b, a).into());
    }
    let digits = host.strip_suffix(".ip6.arpa")?;
    let nibbles: Vec<&str> = digits.split('.').collect();
    if nibbles.len() != 32 || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    let hex: String = nibbles.into_iter().rev().collect();
    Some(Ipv6Addr::from(u128::from_str_radix(&hex, 16).ok()?).into())
}
