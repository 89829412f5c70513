//! What begins and ends: a condition that is told at its onset and at its end.

/// One condition of one container.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Since when it has been bad without a break, firing or not yet.
    bad_since_ns: Option<u64>,
    firing: Option<Firing>,
}

#[derive(Clone, Copy, Debug)]
struct Firing {
    since_ns: u64,
    /// Since when it has been good again.
    good_since_ns: Option<u64>,
}

/// What one look at it made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Began,
    /// How long it lasted, ns.
    Ended(u64),
}

impl Condition {
    /// It is bad, or not, at this time. It begins when it has been bad for `onset_ns`, and ends when it has been good for
    /// `resolve_ns`: what comes and goes faster than that is one.
    pub fn step(&mut self, bad: bool, now_ns: u64, onset_ns: u64, resolve_ns: u64) -> Step {
        if bad {
            let since_ns = *self.bad_since_ns.get_or_insert(now_ns);
            match &mut self.firing {
                Some(firing) => firing.good_since_ns = None,
                None if now_ns.saturating_sub(since_ns) >= onset_ns => {
                    self.firing = Some(Firing { since_ns, good_since_ns: None });
                    return Step::Began;
                }
                None => {}
            }
            return Step::Nothing;
        }
        self.bad_since_ns = None;
        let Some(firing) = &mut self.firing else { return Step::Nothing };
        let good_since_ns = *firing.good_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(good_since_ns) < resolve_ns {
            return Step::Nothing;
        }
        let lasted = good_since_ns.saturating_sub(firing.since_ns);
        self.firing = None;
        Step::Ended(lasted)
    }

    /// It can no longer be looked at.
    pub fn end(&mut self, now_ns: u64) -> Step {
        self.bad_since_ns = None;
        match self.firing.take() {
            Some(firing) => {
                Step::Ended(firing.good_since_ns.unwrap_or(now_ns).saturating_sub(firing.since_ns))
            }
            None => Step::Nothing,
        }
    }

    pub fn is_firing(&self) -> bool {
        self.firing.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bad or good at each second.
    fn steps(looks: &str, onset: u64, resolve: u64) -> Vec<(u64, Step)> {
        let mut condition = Condition::default();
        (0..)
            .zip(looks.chars())
            .map(|(now, look)| (now, condition.step(look == 'x', now, onset, resolve)))
            .filter(|(_, step)| *step != Step::Nothing)
            .collect()
    }

    #[test]
    fn begins_and_ends_once() {
        assert_eq!(steps(".xxx...", 0, 0), [(1, Step::Began), (4, Step::Ended(3))]);
        assert_eq!(steps(".......", 0, 0), []);
        assert_eq!(steps("xxxxxxx", 0, 0), [(0, Step::Began)]);
    }

    #[test]
    fn what_does_not_last_does_not_begin() {
        assert_eq!(steps("xx.xx.xx.", 2, 0), []);
        assert_eq!(steps("xxx......", 2, 0), [(2, Step::Began), (3, Step::Ended(3))]);
    }

    #[test]
    fn what_comes_back_has_not_ended() {
        assert_eq!(steps("x..x..x..", 0, 3), [(0, Step::Began)]);
        // It ended when it was last seen to be good for the first time.
        assert_eq!(steps("x..x....", 0, 3), [(0, Step::Began), (7, Step::Ended(4))]);
    }

    #[test]
    fn can_be_cut_off() {
        let mut condition = Condition::default();
        assert_eq!(condition.end(5), Step::Nothing);
        condition.step(true, 5, 0, 0);
        assert!(condition.is_firing());
        assert_eq!((condition.end(9), condition.end(10)), (Step::Ended(4), Step::Nothing));
    }
}
