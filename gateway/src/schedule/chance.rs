//! Chance that a seed repeats, and a hash that every gateway computes alike.

/// Draws numbers: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Nothing secret
/// depends on it.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..count`; 0 where `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let wide = u128::from(mix(self.0)) * count as u128;
        usize::try_from(wide >> 64).expect("below `count`")
    }
}

/// Spreads every bit of `number` over all of the result (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), its bits spread. Not for tables that an attacker fills:
/// whoever makes two affinity keys meet has them sent in one order, and no more.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(hash)
}

/// How much a key wants to be at a place: rendezvous hashing sends it to the place with the highest weight. One that comes
/// or goes moves no key but its own.
pub(super) fn rendezvous_weight(key: u64, place: u64) -> u64 {
    mix(key ^ place.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        // FNV-1a of "a" is af63dc4c8601ec8c; `mix` is a bijection, so it is told by undoing nothing: the values are pinned.
        assert_eq!(stable_hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(stable_hash(b""), mix(0xcbf2_9ce4_8422_2325));
    }

    #[test]
    fn keys_spread_evenly_and_move_only_with_their_machine() {
        let machines = ["hsm-a", "hsm-b", "hsm-c"].map(|name| stable_hash(name.as_bytes()));
        let home = |key: u32, machines: &[u64]| {
            let key = stable_hash(key.to_string().as_bytes());
            *machines.iter().max_by_key(|machine| rendezvous_weight(key, **machine)).expect("some")
        };
        let mut counts = [0; 3];
        for key in 0..3000 {
            let at = home(key, &machines);
            counts[machines.iter().position(|machine| *machine == at).expect("one of them")] += 1;
            if at != machines[2] {
                assert_eq!(home(key, &machines[..2]), at, "its machine is still there");
            }
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn chance_is_the_same_from_the_same_seed_and_covers_its_range() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| chance.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert!((0..7).all(|number| draw(5).contains(&number)));
        assert_eq!(Chance::new(1).below(0), 0);
    }
}
