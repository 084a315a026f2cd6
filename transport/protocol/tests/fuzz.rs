//! Any bytes whatever, for every family of decoders: see `support/families.rs` for what must hold.
//!
//! Short here; `RINGMASTER_FUZZ_ITERATIONS` makes it longer, and `examples/fuzz_families.rs` runs
//! ten million packets of a family in minutes. The same targets run under `cargo bolero` with
//! coverage.

#[path = "support/mod.rs"]
mod support;

use ringmaster_protocol::Reader;
use support::counting::{CountingAllocator, measure};
use support::driver::{Family, Random, mutate, run};
use support::families::{assert_bounded, families};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn family(name: &str) -> Family {
    families().into_iter().find(|family| family.name == name).expect("a family of this name")
}

fn iterations() -> u64 {
    let wanted = std::env::var("RINGMASTER_FUZZ_ITERATIONS");
    wanted.map_or(20_000, |text| text.parse().expect("RINGMASTER_FUZZ_ITERATIONS is a number"))
}

/// Raw bytes and mutated packets, both from the fuzzer's input.
fn fuzz(name: &str) {
    let family = family(name);
    let outcome = run(&family, iterations(), 1).expect("no finding");
    assert!(outcome.decoded > outcome.inputs / 100, "{outcome:?} tests the door only");
    bolero::check!().with_iterations(500).for_each(|input: &[u8]| {
        (family.check)(input);
        let seed = input.iter().fold(0_u64, |seed, byte| seed << 7 ^ seed >> 57 ^ u64::from(*byte));
        let mut mutated = Vec::new();
        mutate(&family, &mut Random::new(seed), &mut mutated);
        (family.check)(&mutated);
    });
}

#[test]
fn framing_withstands_any_stream() {
    fuzz("framing");
}

#[test]
fn call_packets_withstand_any_bytes() {
    fuzz("calls");
}

#[test]
fn messages_keepalives_and_tunnels_withstand_any_bytes() {
    fuzz("messages");
}

#[test]
fn controls_and_their_payloads_withstand_any_bytes() {
    fuzz("controls");
}

#[test]
fn record_containers_withstand_any_bytes() {
    fuzz("records");
}

#[test]
fn structures_withstand_any_bytes() {
    fuzz("structures");
}

#[test]
fn event_daemon_packets_withstand_any_bytes() {
    fuzz("eventd");
}

/// A decoder as careless as CVE-2026-58224's: it believes the key length of a call.
fn careless_key(input: &[u8]) -> bool {
    let Some(length) = input.get(48..52) else { return false };
    let key_len = Reader::new(length).u32("keylen").expect("four bytes") as usize;
    let key = &input[56..56 + key_len];
    key.len() == key_len
}

/// And one that reserves room for as many records as a buffer claims to have.
fn careless_count(input: &[u8]) -> bool {
    let Some(count) = input.get(4..8) else { return false };
    let count = Reader::new(count).u32("count").expect("four bytes") as usize;
    // What stands for memory here is bounded, so that the test itself survives its bug.
    let (records, usage) = measure(|| Vec::<[u8; 16]>::with_capacity(count.min(1 << 20)));
    assert_bounded("careless buffer", usage, input);
    records.is_empty()
}

#[test]
fn the_driver_finds_a_planted_read_behind_the_end() {
    let planted = Family { check: careless_key, ..family("calls") };
    let finding = run(&planted, 20_000, 1).expect_err("the planted bug is found");
    assert!(finding.message.contains("range"), "{finding:?}");
    let replayed = run(&planted, finding.iteration + 1, finding.seed).expect_err("and again");
    assert_eq!((replayed.iteration, replayed.input), (finding.iteration, finding.input));
}

#[test]
fn the_driver_finds_a_planted_allocation_by_a_lying_count() {
    let planted = Family { check: careless_count, ..family("records") };
    let finding = run(&planted, 20_000, 1).expect_err("the planted bug is found");
    assert!(finding.message.contains("careless buffer"), "{finding:?}");
}
