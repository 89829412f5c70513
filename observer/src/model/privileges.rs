//! What a process may do, and whether it has come to more than it could have.
//!
//! Without executing a file, no process's permitted set grows in its user namespace (capset(2), setuid(2) and
//! prctl(2) only take away); by executing one it comes to no more than its bounding and inheritable sets, and these do not
//! grow either. So what a process was given on its way in is a ceiling for it and all its descendants, and
//! whoever is above it was helped by the kernel: by an exploit that has overwritten its credentials.

use super::CapSet;

/// What one event shows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenPrivileges {
    /// Kernel time, ns.
    pub time_ns: u64,
    /// The inode number of its user namespace.
    pub user_ns: u32,
    /// How many programs it has executed; see `Header::execs`.
    pub execs: u32,
    pub permitted: CapSet,
    /// `permitted`, and what it could come to by executing a file.
    pub attainable: CapSet,
    /// Of the process's first thread: others may have given up something of their own.
    pub is_leader: bool,
    /// It has just executed a program.
    pub is_exec: bool,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    user_ns: u32,
    execs: u32,
    /// What its present program began with: no thread of it has more.
    began_with: CapSet,
    /// What its first thread had when last seen.
    leader: CapSet,
    /// What it could come to when it was brought in, or seen first.
    ceiling: CapSet,
    seen_ns: u64,
}

/// More than it could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    pub before: CapSet,
    pub after: CapSet,
    pub against: Against,
}

/// What was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// What it had when last seen, and it has executed nothing since.
    Held,
    /// What it was brought into the container with.
    Granted,
}

impl Against {
    pub fn name(self) -> &'static str {
        match self {
            Against::Held => "held",
            Against::Granted => "granted",
        }
    }
}

impl Privileges {
    /// Of one that is brought in, or seen for the first time.
    pub fn begin(seen: &SeenPrivileges) -> Self {
        Privileges {
            user_ns: seen.user_ns,
            execs: seen.execs,
            began_with: seen.permitted,
            leader: seen.permitted,
            ceiling: seen.attainable,
            seen_ns: seen.time_ns,
        }
    }

    /// Of a child, which is as its parent in all but its thread, unless it was born into another user namespace.
    pub fn of_child(self, seen: &SeenPrivileges) -> Self {
        let own = Self::begin(seen);
        if self.user_ns == seen.user_ns { Privileges { ceiling: self.ceiling, ..own } } else { own }
    }

    /// What is seen now; tells what cannot be, each gain once.
    pub fn see(&mut self, seen: &SeenPrivileges) -> Option<Gain> {
        // Older news, by the other ring.
        if seen.time_ns < self.seen_ns {
            return None;
        }
        if seen.user_ns != self.user_ns {
            // Who has made or joined a user namespace has everything in it, and nothing outside: other rules tell of that.
            *self = Self::begin(seen);
            return None;
        }
        self.seen_ns = seen.time_ns;
        // By the event rather than by the number alone: a look may fall between the number's change and that of the credentials.
        let (before, against) = if seen.execs == self.execs && !seen.is_exec {
            (if seen.is_leader { self.leader } else { self.began_with }, Against::Held)
        } else {
            (self.ceiling, Against::Granted)
        };
        let gained = !seen.permitted.without(before).is_empty();
        if against == Against::Granted {
            self.execs = seen.execs;
            self.began_with = seen.permitted;
            self.leader = seen.permitted;
        } else {
            self.began_with = self.began_with | seen.permitted;
            if seen.is_leader {
                self.leader = seen.permitted;
            }
        }
        // Told; what it does with it, and its children, is no other gain.
        self.ceiling = self.ceiling | seen.permitted;
        gained.then_some(Gain { before, after: seen.permitted, against })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: CapSet = CapSet::DOCKER_DEFAULT;
    const NONE: CapSet = CapSet::EMPTY;
    const ALL: CapSet = CapSet::ALL;

    fn seen(time_ns: u64, execs: u32, permitted: CapSet) -> SeenPrivileges {
        SeenPrivileges {
            time_ns,
            user_ns: 1,
            execs,
            permitted,
            attainable: permitted | DOCKER,
            is_leader: true,
            is_exec: false,
        }
    }

    fn gain(before: CapSet, after: CapSet, against: Against) -> Option<Gain> {
        Some(Gain { before, after, against })
    }

    #[test]
    fn what_a_process_may_come_to_is_no_gain() {
        let mut process = Privileges::begin(&seen(1, 5, DOCKER));
        for (what, now) in [
            ("the same", seen(2, 5, DOCKER)),
            ("drops all (setuid)", seen(3, 5, NONE)),
            ("a set-user-ID program", seen(4, 6, DOCKER)),
            ("drops some (capset)", seen(5, 6, CapSet::of(&[0]))),
            ("a file with capabilities", seen(6, 7, CapSet::of(&[13]))),
            ("the number of a program that begins", seen(6, 8, CapSet::of(&[13]))),
            ("and the program", SeenPrivileges { is_exec: true, ..seen(6, 8, DOCKER) }),
            ("several programs, of which none was seen", seen(7, 11, DOCKER)),
            ("a new user namespace", SeenPrivileges { user_ns: 2, attainable: ALL, ..seen(8, 11, ALL) }),
            ("a program in it", SeenPrivileges { user_ns: 2, attainable: ALL, ..seen(9, 12, ALL) }),
            ("news that are late", SeenPrivileges { user_ns: 2, ..seen(3, 12, ALL) }),
        ] {
            assert_eq!(process.see(&now), None, "{what}");
        }
    }

    #[test]
    fn growth_without_a_program_is_a_gain_and_told_once() {
        let mut process = Privileges::begin(&seen(1, 5, NONE));
        assert_eq!(process.see(&seen(2, 5, DOCKER)), gain(NONE, DOCKER, Against::Held));
        assert_eq!(process.see(&seen(3, 5, DOCKER)), None);
        assert_eq!(process.see(&seen(4, 5, ALL)), gain(DOCKER, ALL, Against::Held));
        // What it executes then has it, too.
        assert_eq!(process.see(&seen(5, 6, ALL)), None);
        // Given up and taken back.
        assert_eq!(process.see(&seen(6, 6, NONE)), None);
        assert_eq!(process.see(&seen(7, 6, CapSet::of(&[21]))), gain(NONE, CapSet::of(&[21]), Against::Held));
    }

    #[test]
    fn more_than_was_granted_is_a_gain_by_whatever_program() {
        let mut process = Privileges::begin(&seen(1, 5, NONE));
        assert_eq!(process.see(&seen(2, 6, ALL)), gain(DOCKER, ALL, Against::Granted));
        assert_eq!(process.see(&seen(3, 7, ALL)), None);
        let mut child = Privileges::begin(&seen(1, 5, DOCKER)).of_child(&seen(2, 5, DOCKER));
        assert_eq!(child.see(&seen(3, 6, ALL)), gain(DOCKER, ALL, Against::Granted));
    }

    #[test]
    fn a_thread_is_held_against_what_the_program_began_with() {
        let mut process = Privileges::begin(&seen(1, 5, DOCKER));
        let thread = |time_ns, permitted| SeenPrivileges { is_leader: false, ..seen(time_ns, 5, permitted) };
        // The leader has dropped all, the others have not.
        assert_eq!(process.see(&seen(2, 5, NONE)), None);
        assert_eq!(process.see(&thread(3, DOCKER)), None);
        assert_eq!(process.see(&thread(4, NONE)), None);
        assert_eq!(process.see(&thread(5, ALL)), gain(DOCKER, ALL, Against::Held));
        // That was not the leader.
        assert_eq!(process.see(&seen(6, 5, DOCKER)), gain(NONE, DOCKER, Against::Held));
    }

    #[test]
    fn a_child_in_a_user_namespace_of_its_own_has_everything_there() {
        let parent = Privileges::begin(&seen(1, 5, NONE));
        let born = SeenPrivileges { user_ns: 2, attainable: ALL, ..seen(2, 5, ALL) };
        let mut child = parent.of_child(&born);
        assert_eq!(child.see(&SeenPrivileges { time_ns: 3, execs: 6, ..born }), None);
    }
}
