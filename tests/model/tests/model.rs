//! The model check in small: that it explores, reaches what it must, and can
//! fail. All of it, and the mutants, is `cargo xtask model`.

use std::time::Duration;

use vip_model::{self as model, Scope};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_smallest_scope_is_clean_and_not_empty() {
    let outcome = model::explore(model::smallest(), LIMIT);
    assert!(outcome.is_good(), "{outcome}");
    assert!(outcome.states > 100 && !outcome.reached.is_empty(), "{outcome}");
}

#[test]
fn every_standard_scope_has_a_name_and_something_to_reach() {
    let scopes = model::standard();
    let mut names: Vec<_> = scopes.iter().map(|scope: &Scope| scope.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), scopes.len());
    assert!(scopes.iter().all(|scope| !scope.reaches.is_empty()));
}

#[test]
fn a_membership_that_changes_by_two_voters_comes_to_two_holders() {
    for model::Leap { name, broken, whole } in model::LEAPS {
        let outcome = model::explore(broken, LIMIT);
        let Some(violation) = outcome.two_holders() else { panic!("{name}: {outcome}") };
        let clean = model::explore_to(whole, LIMIT, Some(violation.depth));
        assert!(clean.violated.is_none() && clean.states > 100, "{name}: {clean}");
    }
}
