//! The handles that one legacy connection is given for worlds, kept apart from those that a hardserver gives it.
//!
//! Used by [`LegacyPort`](super::LegacyPort). Where commands are passed on to a hardserver, the caller has handles from two
//! givers that know nothing of each other, and a SEEJob names one of them by a number alone. What is certain is this: **a
//! SEEJob reaches a world of Seeway's only where its handle can mean nothing else.** It rests on three rules:
//!
//! 1. The caller learns a hardserver's handle from a reply, as one of its words, and every reply that could bring one comes
//!    by here before the caller gets it.
//! 2. A number that has come by is never given afterwards.
//! 3. A number that was given before it came by means nothing any more from that moment on: jobs that name it are refused,
//!    which runs nothing, and the world gets another handle when it is asked for again.
//!
//! So a job whose handle was given, and has not come by, was sent by somebody who can't have the handle from the hardserver.
//! A reply may also have the number among its data by chance. That costs no more than the third rule says; the numbers are
//! drawn for each connection from where small numbers and text do not lie, so that it is rare.

use seeway_proto::wiped::WipedBuffer;

use crate::handover::Carried;
use crate::schedule::WorldId;

/// The first handle of a connection that has no hardserver behind it. Any number would do; this one is easy to recognise in
/// a trace.
const FIRST_HANDLE: u32 = 0x5ee0_0001;

/// How many numbers a connection may lose to the hardserver, beyond one for each world, before a world has none.
const SPARE: u32 = 64;

/// One connection's handles.
#[derive(Debug)]
pub(super) struct Handles {
    first: u32,
    /// How many numbers from `first` on may be given.
    room: u32,
    /// What became of the numbers from `first` on, as far as anything did.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nobody has given it.
    Free,
    /// Seeway has given it, and only Seeway.
    Given(WorldId),
    /// A reply of the hardserver had it before Seeway gave it.
    Theirs,
    /// Seeway has given it, and then a reply of the hardserver had it.
    Ambiguous,
}

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A world: Seeway gave the handle to this connection.
    World(WorldId),
    /// Seeway has not given it to this connection.
    NotGiven,
    /// Seeway has given it to this connection, and the hardserver may have, too.
    Ambiguous,
}

impl Handles {
    /// Those of a connection that has no hardserver behind it: they begin with the same number each time.
    pub(super) fn alone() -> Self {
        Self { first: FIRST_HANDLE, room: u32::MAX - FIRST_HANDLE, places: Vec::new() }
    }

    /// Those of a connection with a hardserver behind it, for so many worlds. `drawn` is a random number.
    pub(super) fn beside_hardserver(worlds: usize, drawn: u64) -> Self {
        let room = room_for(worlds);
        // The upper half has no lengths, counts and statuses, and no ASCII text; its end has the small negative numbers.
        let choices = u64::from((0xff00_0000 - 0x8000_0000_u32).saturating_sub(room).max(1));
        let first = 0x8000_0000 + u32::try_from(drawn % choices).expect("below a 32-bit number");
        Self { first, room, places: Vec::new() }
    }

    /// Those that another gateway gave. Where a world is none here, its number means nothing any more: a job that names it is refused, and
    /// goes neither to another world nor to a hardserver. With a hardserver behind it here (`beside_worlds`) there are only so many further
    /// numbers as there would be for so many worlds: a place is kept for each that comes by.
    pub(super) fn brought(
        carried: &Carried,
        beside_worlds: Option<usize>,
        find: impl Fn(&str) -> Option<WorldId>,
    ) -> Self {
        let place = |world: &Option<String>| world.as_deref().and_then(&find).map_or(Place::Ambiguous, Place::Given);
        let enough = beside_worlds.map_or(u32::MAX, |worlds| room_for(carried.worlds.len().saturating_add(worlds)));
        let room = carried.room.min(enough).min(u32::MAX - carried.first_handle);
        let places = carried.worlds.iter().take(room as usize).map(place).collect();
        Self { first: carried.first_handle, room, places }
    }

    /// The same for another gateway. What is not a world's for certain is nobody's there.
    pub(super) fn to_carry(&self, name: impl Fn(WorldId) -> String) -> Carried {
        let world = |place: &Place| match place {
            Place::Given(world) => Some(name(*world)),
            Place::Free | Place::Theirs | Place::Ambiguous => None,
        };
        let worlds = self.places.iter().map(world).collect();
        Carried { first_handle: self.first, room: self.room, worlds, unread: WipedBuffer::new() }
    }

    /// What a handle stands for on this connection.
    pub(super) fn meaning(&self, handle: u32) -> Meaning {
        let place = self.place(handle).and_then(|place| self.places.get(place));
        match place {
            Some(Place::Given(world)) => Meaning::World(*world),
            Some(Place::Ambiguous) => Meaning::Ambiguous,
            Some(Place::Free | Place::Theirs) | None => Meaning::NotGiven,
        }
    }

    /// The handle of a world; the same one each time it is asked for, unless that has become ambiguous. `None` where no
    /// number is left.
    pub(super) fn give(&mut self, world: WorldId) -> Option<u32> {
        let wanted = Place::Given(world);
        let place = match self.places.iter().position(|place| *place == wanted) {
            Some(place) => place,
            None => self.take_free()?,
        };
        self.places[place] = wanted;
        Some(self.first + u32::try_from(place).expect("places are fewer than `room`"))
    }

    /// Notes that a reply of the hardserver has these words, before the caller gets it. Returns how many handles have become
    /// ambiguous by it.
    pub(super) fn came_by(&mut self, words: impl Iterator<Item = u32>) -> usize {
        let (first, room) = (self.first, self.room);
        let mut lost = 0;
        for word in words.filter(|word| word.wrapping_sub(first) < room) {
            let place = (word - first) as usize;
            if self.places.len() <= place {
                self.places.resize(place + 1, Place::Free);
            }
            let place = &mut self.places[place];
            match place {
                Place::Free => *place = Place::Theirs,
                Place::Given(_) => {
                    *place = Place::Ambiguous;
                    lost += 1;
                }
                Place::Theirs | Place::Ambiguous => {}
            }
        }
        lost
    }

    fn place(&self, handle: u32) -> Option<usize> {
        usize::try_from(handle.checked_sub(self.first)?).ok()
    }

    fn take_free(&mut self) -> Option<usize> {
        if let Some(place) = self.places.iter().position(|place| *place == Place::Free) {
            return Some(place);
        }
        if self.places.len() >= self.room as usize {
            return None;
        }
        self.places.push(Place::Free);
        Some(self.places.len() - 1)
    }
}

/// How many numbers there are for so many worlds, where a hardserver may use some up.
fn room_for(worlds: usize) -> u32 {
    u32::try_from(worlds).unwrap_or(u32::MAX / 4).min(u32::MAX / 4) + SPARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(drawn: u64) -> Handles {
        Handles::beside_hardserver(2, drawn)
    }

    #[test]
    fn without_a_hardserver_each_world_has_one_handle_for_good() {
        let mut handles = Handles::alone();
        assert_eq!(handles.give(WorldId(7)), Some(0x5ee0_0001));
        assert_eq!(handles.give(WorldId(3)), Some(0x5ee0_0002));
        assert_eq!(handles.give(WorldId(7)), Some(0x5ee0_0001));
        assert_eq!(handles.meaning(0x5ee0_0002), Meaning::World(WorldId(3)));
        for never_given in [0, 0x5ee0_0000, 0x5ee0_0003, u32::MAX] {
            assert_eq!(handles.meaning(never_given), Meaning::NotGiven);
        }
    }

    #[test]
    fn handles_mean_the_same_at_the_next_gateway_or_nothing() {
        let mut handles = beside(5);
        let given: Vec<_> = (0..3).map(|world| handles.give(WorldId(world)).expect("there is room")).collect();
        handles.came_by([given[2], given[2] + 1].into_iter());
        let carried = handles.to_carry(|world| ["signer", "gone", "lost"][world.0].to_owned());
        assert_eq!(carried.worlds, [Some("signer".to_owned()), Some("gone".to_owned()), None, None]);
        let mut brought = Handles::brought(&carried, Some(2), |name| (name == "signer").then_some(WorldId(4)));
        let meanings: Vec<_> = given.iter().map(|handle| brought.meaning(*handle)).collect();
        assert_eq!(meanings, [Meaning::World(WorldId(4)), Meaning::Ambiguous, Meaning::Ambiguous]);
        assert_eq!(brought.give(WorldId(4)), Some(given[0]), "the same one");
        assert_eq!(brought.give(WorldId(0)), Some(given[2] + 2), "one that nobody has");
        // Somebody else's numbers are not believed to be small.
        let wild =
            Carried { first_handle: u32::MAX - 1, room: u32::MAX, worlds: vec![None; 9], unread: WipedBuffer::new() };
        assert_eq!(Handles::brought(&wild, Some(2), |_| None).give(WorldId(0)), None);
    }

    /// Without a hardserver there is a number for everything; with one, each word of its replies may be one.
    #[test]
    fn memory_is_bounded_where_a_hardserver_is_behind_the_next_gateway_only() {
        let mut handles = Handles::alone();
        let given = handles.give(WorldId(0)).expect("there is room");
        let carried = handles.to_carry(|_| "signer".to_owned());
        let mut brought = Handles::brought(&carried, Some(3), |_| Some(WorldId(0)));
        brought.came_by([u32::MAX - 1, given + 1 + 3 + SPARE - 1, given + 1 + 3 + SPARE].into_iter());
        assert_eq!(brought.places.len(), (1 + 3 + SPARE) as usize);
        assert_eq!(brought.meaning(given), Meaning::World(WorldId(0)));
        let alone = Handles::brought(&carried, None, |_| Some(WorldId(0)));
        assert_eq!(alone.room, handles.room);
    }

    #[test]
    fn handles_lie_where_other_numbers_seldom_do() {
        for (worlds, drawn) in [(1, 0), (1, u64::MAX), (4096, 0x7eff_ffff), (4096, 1 << 40), (usize::MAX, u64::MAX)] {
            let mut handles = Handles::beside_hardserver(worlds, drawn);
            let first = handles.give(WorldId(0)).expect("there is room");
            assert!((0x8000_0000..0xff00_0000).contains(&first), "{first:#x} for {worlds} worlds, {drawn:#x} drawn");
            assert!(first.checked_add(handles.room).is_some());
        }
    }

    #[test]
    fn what_came_by_is_not_given() {
        let mut handles = beside(5);
        let first = handles.first;
        assert_eq!(handles.came_by([first, 1, first + 2, first.wrapping_sub(1), u32::MAX].into_iter()), 0);
        assert_eq!(handles.meaning(first), Meaning::NotGiven);
        assert_eq!(handles.give(WorldId(0)), Some(first + 1));
        assert_eq!(handles.give(WorldId(1)), Some(first + 3));
        assert_eq!(handles.meaning(first + 2), Meaning::NotGiven);
    }

    #[test]
    fn what_was_given_and_comes_by_means_nothing_any_more() {
        let mut handles = beside(5);
        let given = handles.give(WorldId(0)).expect("there is room");
        let other = handles.give(WorldId(1)).expect("there is room");
        assert_eq!(handles.came_by([0, given, given].into_iter()), 1, "it happens once");
        assert_eq!(handles.meaning(given), Meaning::Ambiguous);
        assert_eq!(handles.meaning(other), Meaning::World(WorldId(1)), "others are not touched");
        let again = handles.give(WorldId(0)).expect("there is room");
        assert!(![given, other].contains(&again));
        assert_eq!(handles.meaning(again), Meaning::World(WorldId(0)));
        assert_eq!(handles.meaning(given), Meaning::Ambiguous, "for good");
    }

    #[test]
    fn at_the_last_number_and_one_past_it() {
        let mut handles = beside(5);
        let (first, room) = (handles.first, handles.room);
        assert_eq!(room, 2 + SPARE);
        handles.came_by(first..first + room - 1);
        assert_eq!(handles.give(WorldId(0)), Some(first + room - 1));
        assert_eq!(handles.give(WorldId(1)), None);
        handles.came_by([first + room].into_iter());
        assert_eq!(handles.places.len(), room as usize, "memory is bounded");
    }
}
