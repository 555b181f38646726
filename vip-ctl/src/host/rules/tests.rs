//! The rules of a host, as the kernel keeps them, through every order and every
//! interruption.

use proptest::prelude::*;

use super::*;

/// The kernel's list (net/core/fib_rules.c): sorted by priority; a new rule comes
/// behind those of its priority, and a deletion takes the first that is like it.
#[derive(Clone, Debug, Default)]
struct Kernel(Vec<Rule>);

/// What the kernel compares: all of it but the priority and the protocol.
fn selects(rule: &Rule) -> (u32, Vec<RuleAttribute>) {
    let compared = |attribute: &&RuleAttribute| {
        !matches!(
            attribute,
            RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::Table(_)
                | RuleAttribute::SuppressPrefixLen(ANY_PREFIX)
        )
    };
    let mut selected: Vec<_> = rule.message.attributes.iter().filter(compared).cloned().collect();
    selected.sort_by_key(|attribute| format!("{attribute:?}"));
    (rule.table, selected)
}

impl Kernel {
    fn add(&mut self, rule: Rule) {
        if self.0.iter().any(|there| there.pref == rule.pref && selects(there) == selects(&rule)) {
            return;
        }
        let at = self.0.iter().position(|there| there.pref > rule.pref).unwrap_or(self.0.len());
        self.0.insert(at, rule);
    }

    fn delete(&mut self, like: &Rule) {
        let ((table, wanted), proto) = (selects(like), like.spared);
        let is_like = |there: &Rule| {
            let (its_table, has) = selects(there);
            there.pref == like.pref
                && its_table == table
                && wanted.iter().all(|attribute| has.contains(attribute))
                && (!proto || there.spared)
        };
        if let Some(at) = self.0.iter().position(is_like) {
            self.0.remove(at);
        }
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Add(message) => self.add(Rule::read(message.clone())),
            Change::Delete(message) => self.delete(&Rule::read(message.clone())),
        }
    }

    /// The priority that the kernel gives to a rule that comes without one.
    fn default_pref(&self) -> u32 {
        self.0.get(1).map_or(0, |second| second.pref.saturating_sub(1))
    }

    fn place(&self, whose: Whose) -> Option<usize> {
        self.0.iter().position(|rule| rule.is(whose, 0))
    }

    fn foreign(&self) -> Vec<u32> {
        self.0.iter().filter(|rule| rule.whose == Whose::Foreign).map(|rule| rule.table).collect()
    }

    /// Foreign rules before the local table's.
    fn before_local(&self) -> Vec<u32> {
        let is_local = |rule: &Rule| matches!(rule.whose, Whose::Local | Whose::StandIn);
        let before = self.0.iter().take_while(|rule| !is_local(rule));
        before.filter(|rule| rule.whose == Whose::Foreign).map(|rule| rule.table).collect()
    }
}

fn at(pref: u32, table: u32, attribute: Option<RuleAttribute>) -> Rule {
    Rule::read(own(pref, table, attribute))
}

/// The requests that an order makes, one after the other.
fn requests(order: &Order) -> Vec<Change> {
    let adds = order.moves.iter().filter(|by| !by.is_there).map(|by| Change::Add(by.to.clone()));
    let deletes = order.moves.iter().map(|by| Change::Delete(by.from.clone()));
    adds.chain(deletes).chain(order.changes.iter().cloned()).collect()
}

fn from_boot() -> Kernel {
    let mut kernel = Kernel::default();
    for (pref, table) in [(0, TABLE_LOCAL), (PREF_MAIN, 254), (32767, 253)] {
        kernel.add(at(pref, table, None));
    }
    kernel
}

/// As an earlier version left a host: the local table's rule moved, ours before it.
fn from_an_earlier_version() -> Kernel {
    let mut kernel = from_boot();
    kernel.0.remove(0);
    kernel.add(at(PREF_EARLIER, TABLE, Some(RuleAttribute::Iifname("lo".into()))));
    kernel.add(at(PREF_LOCAL_EARLIER, TABLE_LOCAL, None));
    kernel
}

/// Follows the changes as far as `steps`, checking that the host hears at every
/// one.
fn follow(kernel: &mut Kernel, order: &Order, steps: usize) {
    let (heard, foreign) = (!kernel.before_local_is_all(), kernel.foreign());
    let first = kernel.before_local();
    for change in requests(order).iter().take(steps) {
        kernel.make(change);
        assert!(!heard || !kernel.before_local_is_all(), "no rule for the local table: {kernel:?}");
        let missing: Vec<_> = foreign.iter().filter(|table| !kernel.foreign().contains(table)).collect();
        assert!(missing.is_empty(), "lost {missing:?}: {kernel:?}");
        let came: Vec<_> = kernel.before_local().into_iter().filter(|table| !first.contains(table)).collect();
        assert!(came.is_empty(), "{came:?} come before the local table: {kernel:?}");
    }
}

impl Kernel {
    /// Is there no rule for the local table at all?
    fn before_local_is_all(&self) -> bool {
        !self.0.iter().any(|rule| matches!(rule.whose, Whose::Local | Whose::StandIn))
    }
}

fn settle(kernel: &mut Kernel, is_moved: bool) {
    settle_as(kernel, &Reach::Processes, is_moved);
}

fn settle_as(kernel: &mut Kernel, reach: &Reach, is_moved: bool) {
    for _ in 0..3 {
        let order = ordered(&kernel.0, reach, is_moved).unwrap();
        follow(kernel, &order, usize::MAX);
    }
    let left = ordered(&kernel.0, reach, false).unwrap();
    assert!(requests(&left).is_empty(), "it never ends: {left:?} {kernel:?}");
}

fn prefs(kernel: &Kernel) -> Vec<(u32, u32)> {
    kernel.0.iter().map(|rule| (rule.pref, rule.table)).collect()
}

#[test]
fn ours_comes_before_the_local_tables_and_both_before_all_others() {
    let mut kernel = from_boot();
    kernel.add(at(5, 5000, None));
    settle(&mut kernel, false);
    assert_eq!(prefs(&kernel), [(0, TABLE), (0, TABLE_LOCAL), (5, 5000), (PREF_MAIN, 254), (32767, 253)]);
    let order = removed(&kernel.0, false).unwrap();
    follow(&mut kernel, &order, usize::MAX);
    assert_eq!(prefs(&kernel), [(0, TABLE_LOCAL), (5, 5000), (PREF_MAIN, 254), (32767, 253)]);
}

#[test]
fn a_rule_without_a_priority_gets_the_one_that_it_would_have_without_ours() {
    // As wg-quick(8) adds them: the second has to come before the first.
    let (mut with, mut without) = (from_boot(), from_boot());
    settle(&mut with, false);
    for table in [51820, 254] {
        let marked = |pref| at(pref, table, Some(RuleAttribute::FwMark(51820)));
        with.add(marked(with.default_pref()));
        without.add(marked(without.default_pref()));
        settle(&mut with, false);
    }
    assert_eq!(prefs(&with)[1..], prefs(&without));
    // Both at once, before anybody looked.
    let mut with = from_boot();
    settle(&mut with, false);
    for table in [51820, 254] {
        with.add(at(with.default_pref(), table, Some(RuleAttribute::FwMark(51820))));
    }
    settle(&mut with, false);
    assert_eq!(prefs(&with)[1..], prefs(&without));
}

#[test]
fn a_rule_at_0_that_can_not_be_moved_is_refused_only_where_it_stands_in_the_way() {
    let no_room = |kernel: &mut Kernel| {
        kernel.add(at(1, 5000, None));
        kernel.add(at(0, 5001, None));
    };
    // It would lead to a rule before itself.
    let leads_back = |kernel: &mut Kernel| kernel.add(at(0, 5001, Some(RuleAttribute::Goto(100))));
    let hidden = |kernel: &mut Kernel| {
        let input = RuleAttribute::Iifname("eth0".into());
        kernel.0.insert(0, at(0, 5001, Some(input)));
        kernel.add(at(0, 5001, None));
    };
    for add in [&no_room as &dyn Fn(&mut Kernel), &leads_back, &hidden] {
        let mut kernel = from_boot();
        add(&mut kernel);
        let error = ordered(&kernel.0, &Reach::Processes, false).unwrap_err();
        assert_eq!(error, InTheWay { table: 5001, pref: 0 });
        let before = prefs(&kernel);
        let order = removed(&kernel.0, false).unwrap();
        follow(&mut kernel, &order, usize::MAX);
        assert_eq!(prefs(&kernel), before, "nothing is loaded");
        // One that came later stays behind the local table's.
        let mut kernel = from_boot();
        settle(&mut kernel, false);
        add(&mut kernel);
        let order = ordered(&kernel.0, &Reach::Processes, false).unwrap();
        assert!(!order.needs_moves && order.changes.is_empty(), "{order:?}");
        let before = prefs(&kernel);
        let order = removed(&kernel.0, false).unwrap();
        follow(&mut kernel, &order, usize::MAX);
        assert_eq!(prefs(&kernel).len(), before.len() - 1);
    }
}

#[test]
fn a_rule_that_a_delete_would_take_instead_stays() {
    // The kernel deletes what fits, and this one fits what is for any interface.
    let mut kernel = from_boot();
    settle(&mut kernel, false);
    kernel.add(at(0, 100, Some(RuleAttribute::Iifname("eth0".into()))));
    kernel.add(at(0, 100, None));
    settle(&mut kernel, false);
    assert_eq!(kernel.foreign(), [100, 100, 254, 253]);
    // Both are an administrator's.
    let by_hand = |input: Option<RuleAttribute>| {
        let mut local = own(0, TABLE_LOCAL, input);
        local.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        Rule::read(local)
    };
    let mut kernel = from_boot();
    let both = [by_hand(Some(RuleAttribute::Iifname("eth0".into()))), by_hand(None)];
    kernel.0.splice(..1, both);
    assert_eq!(
        ordered(&kernel.0, &Reach::Processes, false).unwrap_err(),
        InTheWay { table: TABLE_LOCAL, pref: 0 }
    );
}

#[test]
fn a_move_that_was_cut_off_is_not_made_twice() {
    for steps in 0..8 {
        let mut kernel = from_boot();
        settle(&mut kernel, false);
        for mark in [7, 8] {
            kernel.add(at(0, 100, Some(RuleAttribute::FwMark(mark))));
        }
        let order = ordered(&kernel.0, &Reach::Processes, false).unwrap();
        follow(&mut kernel, &order, steps);
        settle(&mut kernel, false);
        assert_eq!(kernel.foreign(), [100, 100, 254, 253], "after {steps} steps: {kernel:?}");
    }
}

#[test]
fn the_rules_of_vrfs_stay_in_their_order() {
    // The local table's behind that of the VRFs, as the kernel's guide has it.
    let mut kernel = Kernel::default();
    for (pref, table) in [(1000, 10), (32765, TABLE_LOCAL), (PREF_MAIN, 254)] {
        kernel.add(at(pref, table, None));
    }
    let before = prefs(&kernel);
    settle(&mut kernel, false);
    assert_eq!(prefs(&kernel), [(1000, 10), (32764, TABLE), (32765, TABLE_LOCAL), (PREF_MAIN, 254)]);
    let order = removed(&kernel.0, false).unwrap();
    follow(&mut kernel, &order, usize::MAX);
    assert_eq!(prefs(&kernel), before);
    // Before there is a VRF, the kernel numbers what has no priority by another rule than
    // without ours.
    let (mut with, mut without) = (Kernel::default(), Kernel::default());
    for kernel in [&mut with, &mut without] {
        kernel.add(at(32765, TABLE_LOCAL, None));
        kernel.add(at(PREF_MAIN, 254, None));
    }
    settle(&mut with, false);
    for kernel in [&mut with, &mut without] {
        kernel.add(at(kernel.default_pref(), 51820, Some(RuleAttribute::FwMark(51820))));
    }
    settle(&mut with, false);
    assert_eq!(prefs(&with)[1..], prefs(&without));
    // An administrator moves the local table's rule while ours is there.
    let mut kernel = from_boot();
    settle(&mut kernel, false);
    kernel.add(at(1000, 10, None));
    kernel.add(at(32765, TABLE_LOCAL, None));
    kernel.0.retain(|rule| !rule.is(Whose::Local, 0));
    settle(&mut kernel, false);
    assert_eq!(prefs(&kernel)[..3], [(1000, 10), (32764, TABLE), (32765, TABLE_LOCAL)]);
}

#[test]
fn ours_is_for_those_whom_it_shall_reach_and_is_changed_wherever_that_is_cut_off() {
    let all_but = |names: &[&str]| Reach::AllBut(names.iter().map(|name| (*name).to_owned()).collect());
    let reaches = [
        Reach::Processes,
        all_but(&["eth0"]),
        all_but(&["eth1", "eth0"]),
        all_but(&["eth1"]),
        all_but(&["eth0", "eth1", "eth2"]),
        all_but(&["eth0", "eth2"]),
        Reach::Processes,
    ];
    for steps in 0..12 {
        let mut kernel = from_boot();
        kernel.add(at(5, 5000, None));
        for reach in &reaches {
            let order = ordered(&kernel.0, reach, false).unwrap();
            follow(&mut kernel, &order, steps);
            settle_as(&mut kernel, reach, false);
            let ours: Vec<_> = kernel.0.iter().filter(|rule| rule.is_own()).collect();
            let shapes: Vec<_> = ours.iter().map(|rule| rule.shape()).collect();
            assert_eq!(shapes, reach.shapes(), "{steps} {reach:?}: {kernel:?}");
            let left = &prefs(&kernel)[ours.len() - 1..];
            assert_eq!(left[..3], [(0, TABLE), (0, TABLE_LOCAL), (5, 5000)]);
        }
        let order = removed(&kernel.0, false).unwrap();
        follow(&mut kernel, &order, usize::MAX);
        assert_eq!(prefs(&kernel)[..2], [(0, TABLE_LOCAL), (5, 5000)]);
    }
}

#[test]
fn what_an_earlier_version_left_is_brought_over() {
    let oldest = at(PREF_EARLIER, TABLE_EARLIER, Some(RuleAttribute::Destination([10, 0, 1, 12].into())));
    for earlier in [None, Some(oldest)] {
        let mut kernel = from_an_earlier_version();
        kernel.0.splice(0..usize::from(earlier.is_some()), earlier);
        assert!(are_earlier(&kernel.0), "{kernel:?}");
        // Their rules without a priority were numbered below the local table's.
        kernel.add(at(99, 51820, None));
        let mut gone = kernel.clone();
        settle(&mut kernel, true);
        let wanted = [(0, TABLE), (0, TABLE_LOCAL), (99, 51820), (PREF_MAIN, 254), (32767, 253)];
        assert_eq!(prefs(&kernel), wanted);
        let order = removed(&gone.0, true).unwrap();
        follow(&mut gone, &order, usize::MAX);
        assert_eq!(prefs(&gone), wanted[1..]);
    }
}

#[test]
fn a_host_whose_local_rule_is_gone_gets_it_back() {
    let mut kernel = from_boot();
    kernel.0.remove(0);
    settle(&mut kernel, false);
    assert_eq!(prefs(&kernel)[..2], [(0, TABLE), (0, TABLE_LOCAL)]);
}

/// What others do to a host's rules.
#[derive(Clone, Debug)]
enum Meddling {
    Add {
        pref: Option<u32>,
        table: u32,
        input: bool,
    },
    DeleteFirst,
    DeleteOurs,
    /// `ip rule flush`: it spares those at 0.
    Flush,
    /// We start, and are cut off after so many steps.
    Order(usize),
    /// As above, with `unload`.
    Remove(usize),
}

fn meddling() -> impl Strategy<Value = Meddling> {
    let pref = prop_oneof![Just(None), Just(Some(0)), (200_u32..40_000).prop_map(Some)];
    prop_oneof![
        4 => (pref, 5000_u32..5003, any::<bool>())
            .prop_map(|(pref, table, input)| Meddling::Add { pref, table, input }),
        1 => Just(Meddling::DeleteFirst),
        2 => Just(Meddling::DeleteOurs),
        1 => Just(Meddling::Flush),
        3 => (0_usize..9).prop_map(Meddling::Order),
        2 => (0_usize..9).prop_map(Meddling::Remove),
    ]
}

fn meddle(kernel: &mut Kernel, meddling: &Meddling, reach: &Reach, is_moved: bool) {
    match meddling {
        Meddling::Add { pref, table, input } => {
            let input = input.then(|| RuleAttribute::Iifname("eth0".into()));
            kernel.add(at(pref.unwrap_or(kernel.default_pref()), *table, input));
        }
        Meddling::DeleteFirst if kernel.0.len() > 1 => {
            kernel.0.remove(0);
        }
        Meddling::DeleteFirst => {}
        Meddling::DeleteOurs => kernel.0.retain(|rule| !rule.is_own()),
        Meddling::Flush => kernel.0.retain(|rule| rule.pref == 0),
        Meddling::Order(steps) => {
            if let Ok(order) = ordered(&kernel.0, reach, is_moved) {
                follow(kernel, &order, *steps);
            }
        }
        Meddling::Remove(steps) => {
            let order = removed(&kernel.0, is_moved).unwrap();
            follow(kernel, &order, *steps);
        }
    }
}

proptest! {
    #[test]
    fn whatever_others_do_and_wherever_it_is_cut_off_the_next_call_mends_it(
        earlier in any::<bool>(),
        all in proptest::collection::vec(meddling(), 0..12),
        but in 0_u8..4,
    ) {
        let names: Vec<_> = (0..but).map(|number| format!("eth{number}")).collect();
        let reach = if names.is_empty() { Reach::Processes } else { Reach::AllBut(names) };
        let mut kernel = if earlier { from_an_earlier_version() } else { from_boot() };
        all.iter().for_each(|meddling| meddle(&mut kernel, meddling, &reach, earlier));
        let before = kernel.foreign();
        // A rule that can't be moved may be in the way; then nothing is touched.
        let is_refused = ordered(&kernel.0, &reach, earlier).is_err();
        prop_assume!(!is_refused);
        settle_as(&mut kernel, &reach, earlier);
        let (ours, local) = (kernel.place(Whose::Ours), kernel.place(Whose::Local));
        prop_assert!(ours.is_some() && ours < local, "{kernel:?}");

        prop_assert!(kernel.place(Whose::StandIn).is_none() && !are_earlier(&kernel.0), "{kernel:?}");
        let order = removed(&kernel.0, false).unwrap();
        follow(&mut kernel, &order, usize::MAX);
        prop_assert!(kernel.0.iter().all(|rule| matches!(rule.whose, Whose::Foreign | Whose::Local)));
        let mut after = kernel.foreign();
        after.sort_unstable();
        let mut before = before;
        before.sort_unstable();
        // What was cut off may have left a copy.
        before.dedup();
        after.dedup();
        prop_assert_eq!(after, before);
    }
}
