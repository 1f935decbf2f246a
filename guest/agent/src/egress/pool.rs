//! Synthetic addresses: what the guest's DNS answers, and the name behind an address that a program then connects to.
//!
//! A name has one IPv4 and one IPv6 address, which share an index. It keeps them for as long as it is known. A full pool forgets the name
//! that was answered longest ago, but never one with live flows or one that a program may still be about to use; then a new name gets
//! no address. Addresses are given in turn, so that one comes back late.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const IPV4_PREFIX: [u8; 2] = [198, 18];
/// The interface identifier is the index.
const IPV6_PREFIX: [u16; 4] = [0xfd69, 0x6e73, 0x7461, 0x766d];
const FIRST: u16 = 1;
const LAST: u16 = u16::MAX - 1;
/// Names known at once: some 3 MiB of the agent's memory when full.
pub const CAPACITY: usize = 16_384;
/// A program may use an address for this long after it was answered, whatever the answer's TTL; Java keeps one for 30 s.
pub const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// What an address means to the program that connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Not of this pool: the program used the address itself.
    Literal,
    /// Of this pool, and no name's: forgotten, or never answered.
    Nobody,
    Name(Arc<str>),
}

struct Entry {
    name: Arc<str>,
    flows: u32,
    answered: Instant,
    /// Key in `by_age`.
    age: u64,
}

pub struct Pool {
    capacity: usize,
    entries: HashMap<u16, Entry>,
    by_name: HashMap<Arc<str>, u16>,
    /// Oldest answer first.
    by_age: BTreeMap<u64, u16>,
    next_age: u64,
    next_index: u16,
}

impl Pool {
    pub fn new(capacity: usize) -> Self {
        let (entries, by_name) = (HashMap::new(), HashMap::new());
        Self { capacity, entries, by_name, by_age: BTreeMap::new(), next_age: 0, next_index: FIRST }
    }

    /// The addresses of a name that is being answered now; `None` when the pool is full of names in use.
    pub fn answer(&mut self, name: &str, now: Instant) -> Option<Addresses> {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => self.admit(name, now)?,
        };
        let entry = self.entries.get_mut(&index)?;
        self.by_age.remove(&entry.age);
        entry.age = self.next_age;
        entry.answered = now;
        self.by_age.insert(self.next_age, index);
        self.next_age += 1;
        Some(addresses(index))
    }

    fn admit(&mut self, name: &str, now: Instant) -> Option<u16> {
        if self.entries.len() >= self.capacity {
            self.forget_oldest(now)?;
        }
        while self.entries.contains_key(&self.next_index) {
            self.next_index = after(self.next_index);
        }
        let index = self.next_index;
        self.next_index = after(index);
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), index);
        self.entries.insert(index, Entry { name, flows: 0, answered: now, age: u64::MAX });
        Some(index)
    }

    /// Steps over names with live flows, of which there are never more than connections; `None` when nothing may be forgotten.
    fn forget_oldest(&mut self, now: Instant) -> Option<()> {
        let (age, index) = self
            .by_age
            .iter()
            .map(|(age, index)| (*age, *index))
            .take_while(|(_, index)| now.duration_since(self.entries[index].answered) >= GRACE)
            .find(|(_, index)| self.entries[index].flows == 0)?;
        self.by_age.remove(&age);
        let entry = self.entries.remove(&index)?;
        self.by_name.remove(&entry.name);
        Some(())
    }

    pub fn owner(&self, address: IpAddr) -> Owner {
        let index = match address {
            IpAddr::V4(address) => match address.octets() {
                [a, b, high, low] if [a, b] == IPV4_PREFIX => u16::from_be_bytes([high, low]),
                _ => return Owner::Literal,
            },
            IpAddr::V6(address) => match address.segments() {
                [a, b, c, d, 0, 0, 0, index] if [a, b, c, d] == IPV6_PREFIX => index,
                [a, b, c, d, ..] if [a, b, c, d] == IPV6_PREFIX => return Owner::Nobody,
                _ => return Owner::Literal,
            },
        };
        self.entries.get(&index).map_or(Owner::Nobody, |entry| Owner::Name(entry.name.clone()))
    }

    /// Counts a flow to the name; [`flow_ended`](Self::flow_ended) takes it back.
    pub fn flow_began(&mut self, name: &str) {
        if let Some(entry) = self.by_name.get(name).and_then(|index| self.entries.get_mut(index)) {
            entry.flows += 1;
        }
    }

    pub fn flow_ended(&mut self, name: &str) {
        // A name with flows is never forgotten, so this is the entry that counted it.
        if let Some(entry) = self.by_name.get(name).and_then(|index| self.entries.get_mut(index)) {
            entry.flows = entry.flows.saturating_sub(1);
        }
    }
}

fn after(index: u16) -> u16 {
    if index == LAST { FIRST } else { index + 1 }
}

fn addresses(index: u16) -> Addresses {
    let ([a, b], [high, low], [p, q, r, s]) = (IPV4_PREFIX, index.to_be_bytes(), IPV6_PREFIX);
    Addresses { ipv4: Ipv4Addr::new(a, b, high, low), ipv6: Ipv6Addr::new(p, q, r, s, 0, 0, 0, index) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Answer(u8),
        Begin(u8),
        End(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..12).prop_map(Step::Answer),
            1 => (0u8..12).prop_map(Step::Begin),
            1 => (0u8..12).prop_map(Step::End),
            2 => (1u64..40).prop_map(Step::Wait),
        ]
    }

    /// What a program was told, and when; kept for ever.
    #[derive(Default)]
    struct Told {
        answers: HashMap<IpAddr, (String, Instant)>,
        flows: HashMap<String, u32>,
    }

    proptest! {
        #[test]
        fn an_address_means_the_name_it_was_answered_for_while_it_is_fresh_or_in_use(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut pool = Pool::new(5);
            let mut told = Told::default();
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Answer(number) => {
                        let name = format!("n{number}.test");
                        let known = pool.by_name.contains_key(name.as_str());
                        match pool.answer(&name, now) {
                            Some(given) => {
                                // What it had before it was forgotten is of no use any more.
                                told.answers.retain(|_, (owner, _)| *owner != name);
                                for address in [IpAddr::from(given.ipv4), given.ipv6.into()] {
                                    told.answers.insert(address, (name.clone(), now));
                                }
                            }
                            None => {
                                prop_assert!(!known, "a known name always keeps its address");
                                let busy = |entry: &Entry| entry.flows > 0 || now - entry.answered < GRACE;
                                prop_assert!(pool.entries.values().all(busy), "something could have been forgotten");
                            }
                        }
                    }
                    Step::Begin(number) => {
                        let name = format!("n{number}.test");
                        if pool.by_name.contains_key(name.as_str()) {
                            pool.flow_began(&name);
                            *told.flows.entry(name).or_default() += 1;
                        }
                    }
                    Step::End(number) => {
                        let name = format!("n{number}.test");
                        if let Some(count) = told.flows.get_mut(&name).filter(|count| **count > 0) {
                            *count -= 1;
                            pool.flow_ended(&name);
                        }
                    }
                }
                prop_assert!(pool.entries.len() <= 5);
                prop_assert_eq!((pool.by_name.len(), pool.by_age.len()), (pool.entries.len(), pool.entries.len()));
                for (address, (name, at)) in &told.answers {
                    let in_use = told.flows.get(name).is_some_and(|count| *count > 0);
                    let owner = pool.owner(*address);
                    if in_use || now.duration_since(*at) < GRACE {
                        prop_assert_eq!(owner, Owner::Name(name.as_str().into()));
                    } else {
                        prop_assert_ne!(owner, Owner::Literal);
                    }
                }
            }
        }
    }

    #[test]
    fn an_address_comes_back_only_after_all_others_were_given() {
        let mut pool = Pool::new(1);
        let mut now = Instant::now();
        let first = pool.answer("a", now).unwrap();
        for number in 0..u16::MAX - 3 {
            now += GRACE;
            assert_ne!(pool.answer(&format!("n{number}"), now).unwrap(), first);
        }
        now += GRACE;
        pool.answer("last", now).unwrap();
        now += GRACE;
        assert_eq!(pool.answer("again", now).unwrap(), first);
    }

    #[test]
    fn addresses_outside_the_pool_stand_for_themselves() {
        let pool = Pool::new(5);
        for literal in ["1.2.3.4", "198.19.0.1", "2001:db8::1", "fd69:6e73:7461:766e::1"] {
            assert_eq!(pool.owner(literal.parse().unwrap()), Owner::Literal, "{literal}");
        }
        for unbound in ["198.18.0.1", "198.18.255.255", "fd69:6e73:7461:766d::1", "fd69:6e73:7461:766d:1::1"] {
            assert_eq!(pool.owner(unbound.parse().unwrap()), Owner::Nobody, "{unbound}");
        }
    }
}
