//! The way up from a cgroup's limit, over those above it, to the one that has the least left.

/// The counter that has the least left, of a cgroup's own and those above it. It lies in the scratch frame, and is written and
/// read there at each step, so that the verifier has nothing to remember of it and looks at each step once.
#[repr(C)]
pub struct Tightest {
    /// `u64::MAX` if none could be read.
    place: u64,
    left: i64,
    used: i64,
    limit: i64,
    /// Where the walk is: 0 once it is above the top.
    at: u64,
}

/// A way up to a [`Tightest`].
#[derive(Clone, Copy)]
pub struct Climb(*mut Tightest);

macro_rules! word {
    ($of:ident, $get:ident, $set:ident, $kind:ty) => {
        #[inline(always)]
        pub fn $get(self) -> $kind {
            // SAFETY: this CPU's scratch, by the word of who called `of`.
            unsafe { (&raw const (*self.0).$of).read_volatile() }
        }
        #[inline(always)]
        pub fn $set(self, value: $kind) {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.0).$of).write_volatile(value) }
        }
    };
}

impl Climb {
    /// # Safety
    /// The place is in this CPU's scratch.
    #[inline(always)]
    pub unsafe fn of(place: *mut Tightest) -> Self {
        Climb(place)
    }

    word!(place, place, set_place, u64);
    word!(left, left, set_left, i64);
    word!(used, used, set_used, i64);
    word!(limit, limit, set_limit, i64);
    word!(at, at, set_at, u64);

    #[inline(always)]
    pub fn start(self, at: u64) {
        self.set_place(u64::MAX);
        self.set_left(i64::MAX);
        self.set_used(0);
        self.set_limit(0);
        self.set_at(at);
    }

    /// Of two with as little left, the lower one: the kernel charges upwards, and stops there.
    #[inline(always)]
    pub fn look(self, place: u64, used: i64, limit: i64) {
        let left = limit.wrapping_sub(used);
        if left < self.left() {
            self.set_place(place);
            self.set_left(left);
            self.set_used(used);
            self.set_limit(limit);
        }
    }
}
