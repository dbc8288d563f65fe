//! Each behaviour of the task model has an id, and each id a test whose name begins with it.

use coreloop_tests::catalog;

/// Loops, tasks, time limits, futures, groups, blocking work and cores, primitives: how many of each.
const IDS: [(&str, u32); 7] =
    [("l", 9), ("t", 11), ("w", 4), ("f", 2), ("g", 8), ("b", 4), ("p", 3)];

#[test]
fn semantics_each_id_has_a_test() {
    let known = catalog::tests();
    let ids = IDS.iter().flat_map(|(kind, n)| (1..=*n).map(move |n| format!("{kind}{n}")));
    let (mut counts, mut without) = (Vec::new(), Vec::new());
    for id in ids {
        let start = format!("{id}_");
        match known.keys().filter(|name| name.starts_with(&start)).count() {
            0 => without.push(id),
            n => counts.push(format!("{id}: {n}")),
        }
    }
    println!("{}", counts.join(", "));
    assert!(without.is_empty(), "no test begins with {without:?}; those that do: {counts:?}");
}
