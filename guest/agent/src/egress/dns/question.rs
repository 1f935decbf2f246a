//! What a program asks, and the beginning of every answer. Programs send any bytes they like.

use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::message_builder::{AnswerBuilder, PushError};
use domain::base::name::ToLabelIter;
use domain::base::{Message, MessageBuilder, ParsedName, Rtype, StaticCompressor};

pub type Target = StaticCompressor<Vec<u8>>;

/// Without EDNS (RFC 1035 §4.2.1), and what is sent over UDP at most with it (DNS flag day 2020; there is no path with a smaller MTU).
const PLAIN_UDP_BYTES: usize = 512;
const EDNS_UDP_BYTES: u16 = 1232;
const OPT_BYTES: usize = 11;
const MAX_NAME_BYTES: usize = 253;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A well-formed message with one question of class IN.
pub struct Question {
    message: Message<Vec<u8>>,
    pub rtype: Rtype,
    /// Lower case, without the last dot; `None` for a name that no host can have.
    pub host: Option<String>,
    edns: bool,
    limit: usize,
}

impl Question {
    /// The error is the answer, or nothing when there is nobody to answer.
    pub fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Option<Vec<u8>>> {
        let message = Message::from_octets(bytes.to_vec()).map_err(|_| None)?;
        if message.header().qr() {
            return Err(None);
        }
        let refused = |rcode| Err(Some(short_answer(&message, rcode)));
        if message.header().opcode() != Opcode::QUERY {
            return refused(Rcode::NOTIMP);
        }
        let (Ok(question), Ok(_)) = (message.sole_question(), message.additional()) else {
            return refused(Rcode::FORMERR);
        };
        let rtype = question.qtype();
        // ANY (RFC 8482) and transfers would bring addresses that mean nothing here.
        if question.qclass() != Class::IN || [Rtype::ANY, Rtype::AXFR, Rtype::IXFR].contains(&rtype) {
            return refused(Rcode::REFUSED);
        }
        let host = host_name(question.qname());
        let opt = message.opt();
        let room = opt.as_ref().map_or(PLAIN_UDP_BYTES, |opt| {
            usize::from(opt.udp_payload_size().min(EDNS_UDP_BYTES)).max(PLAIN_UDP_BYTES)
        });
        let limit = if transport == Transport::Tcp { usize::from(u16::MAX) } else { room };
        let edns = opt.is_some();
        Ok(Self { rtype, host, edns, limit, message })
    }

    /// The question alone, as the gateway gets it: nothing of the program's other choices goes on.
    pub fn query(&self) -> Option<Vec<u8>> {
        let question = self.message.sole_question().ok()?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((question.qname(), question.qtype())).ok()?;
        Some(builder.finish())
    }

    pub fn name(&self) -> Option<ParsedName<&[u8]>> {
        self.message.sole_question().ok().map(|question| question.into_qname())
    }

    /// An answer with the records that `fill` pushes; with none and the TC bit when they do not fit.
    pub fn answer<F>(&self, rcode: Rcode, fill: F) -> Vec<u8>
    where
        F: Fn(&mut AnswerBuilder<Target>) -> Result<(), PushError>,
    {
        self.build(rcode, fill)
            .unwrap_or_else(|_| self.build(rcode, |_| Ok(())).unwrap_or_else(|_| short_answer(&self.message, rcode)))
    }

    fn build<F>(&self, rcode: Rcode, fill: F) -> Result<Vec<u8>, PushError>
    where
        F: Fn(&mut AnswerBuilder<Target>) -> Result<(), PushError>,
    {
        let mut builder =
            MessageBuilder::from_target(StaticCompressor::new(Vec::new())).map_err(|_| PushError::ShortBuf)?;
        builder.set_push_limit(self.limit - if self.edns { OPT_BYTES } else { 0 });
        let mut builder = builder.start_answer(&self.message, rcode)?;
        builder.header_mut().set_ra(true);
        if fill(&mut builder).is_err() {
            builder.rewind();
            builder.header_mut().set_tc(true);
        }
        let mut builder = builder.additional();
        if self.edns {
            builder.clear_push_limit();
            builder.opt(|opt| {
                opt.set_udp_payload_size(EDNS_UDP_BYTES);
                Ok(())
            })?;
        }
        Ok(builder.finish().into_target())
    }
}

/// Header and, where it can be read, question.
fn short_answer(message: &Message<Vec<u8>>, rcode: Rcode) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(message.header().id());
    header.set_qr(true);
    header.set_opcode(message.header().opcode());
    header.set_rd(message.header().rd());
    header.set_rcode(rcode);
    let mut builder = builder.question();
    if let Ok(question) = message.sole_question() {
        // Without it the answer is shorter, no more.
        let _ = builder.push(question);
    }
    builder.finish()
}

/// Letters, digits, hyphens and underscores: what the gateway takes for a name.
pub fn host_name(name: &impl ToLabelIter) -> Option<String> {
    let mut host = String::new();
    for label in name.iter_labels().filter(|label| !label.is_root()) {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.as_slice().iter().all(is_plain) {
            return None;
        }
        if !host.is_empty() {
            host.push('.');
        }
        host.extend(label.as_slice().iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    (!host.is_empty() && host.len() <= MAX_NAME_BYTES).then_some(host)
}
