use super::*;

struct Test;

impl World for Test {
    type State = u32;
    type Ask = &'static str;
    type Outcome = i32;
    type Tell = String;
}

type Actions = Vec<Action<&'static str, String>>;

fn plane() -> (Plane<Test>, Actions) {
    (Plane::new(0, Millis(0), 7), Vec::new())
}

#[test]
fn a_sequence_asks_waits_and_goes_on() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                let first = cx.ask("first").await;
                let second = cx.ask("second").await;
                cx.tell(format!("{first} then {second}"));
            });
        },
        &mut out,
    );
    assert_eq!(std::mem::take(&mut out), [Action::Ask(Token(1), "first")]);
    plane.outcome(Millis(1), Token(1), 10, &mut out);
    let Some(Action::Ask(second, "second")) = out.pop() else { panic!("{out:?}") };
    plane.outcome(Millis(2), second, 20, &mut out);
    assert_eq!(out, [Action::Tell("10 then 20".into())]);
    assert!(plane.is_empty());
}

#[test]
fn sequences_wait_for_each_other_through_the_state() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let waiting = cx.clone();
            cx.spawn(async move {
                waiting.until(|state| *state == 3).await;
                waiting.tell("three".into());
            });
            let counting = cx.clone();
            cx.spawn(async move {
                for _ in 0..3 {
                    *counting.state_mut() += 1;
                    counting.sleep(10).await;
                }
            });
        },
        &mut out,
    );
    assert_eq!(plane.next_deadline(), Some(Millis(10)));
    plane.handle(Millis(10), |_| {}, &mut out);
    assert_eq!(out, []);
    plane.handle(Millis(20), |_| {}, &mut out);
    assert_eq!(out, [Action::Tell("three".into())]);
}

#[test]
fn a_deadline_ends_a_wait_and_is_announced() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(5),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                let met = cx.until_or(cx.now().plus_seconds(2), |state| *state > 0).await;
                cx.tell(met.to_string());
            });
        },
        &mut out,
    );
    assert_eq!(plane.next_deadline(), Some(Millis(2_005)));
    plane.handle(Millis(2_004), |_| {}, &mut out);
    assert_eq!(out, []);
    plane.handle(Millis(2_005), |_| {}, &mut out);
    assert_eq!(out, [Action::Tell("false".into())]);
    assert_eq!(plane.next_deadline(), None);
}

#[test]
fn what_nobody_waits_for_any_more_is_forgotten() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                drop(cx.ask("given up"));
                cx.ask("awaited").await;
            });
        },
        &mut out,
    );
    assert_eq!(out[1], Action::Forget(Token(1)));
    let Action::Ask(awaited, "awaited") = out[2] else { panic!("{out:?}") };
    out.clear();
    plane.outcome(Millis(0), Token(1), 1, &mut out);
    assert_eq!(plane.len(), 1, "a late outcome changes nothing");
    plane.outcome(Millis(0), awaited, 1, &mut out);
    assert!(plane.is_empty());
}

#[test]
fn outcomes_of_several_requests_come_in_the_order_of_the_requests() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                let both = vec![cx.ask("a"), cx.ask("b")];
                cx.tell(format!("{:?}", join_all(both).await));
            });
        },
        &mut out,
    );
    let tokens: Vec<Token> = out
        .drain(..)
        .map(|action| match action {
            Action::Ask(token, _) => token,
            other => panic!("{other:?}"),
        })
        .collect();
    plane.outcome(Millis(0), tokens[1], 2, &mut out);
    assert_eq!(out, []);
    plane.outcome(Millis(0), tokens[0], 1, &mut out);
    assert_eq!(out, [Action::Tell("[1, 2]".into())]);
}

#[test]
fn the_seed_decides_the_numbers_and_time_never_goes_back() {
    let (mut one, mut out) = plane();
    let (two, _) = plane();
    assert_eq!(one.cx().random(), two.cx().random());
    one.handle(Millis(9), |_| {}, &mut out);
    one.handle(Millis(3), |_| {}, &mut out);
    assert_eq!(one.cx().now(), Millis(9));
}

#[test]
fn of_two_waits_the_first_to_end_counts_and_the_other_is_forgotten() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                let deadline = cx.now().plus(10);
                let ended = first_of(cx.ask("slow"), cx.until_or(deadline, |_| false)).await;
                cx.tell(format!("{ended:?}"));
            });
        },
        &mut out,
    );
    assert_eq!(std::mem::take(&mut out), [Action::Ask(Token(1), "slow")]);
    plane.handle(Millis(10), |_| {}, &mut out);
    assert_eq!(out, [Action::Forget(Token(1)), Action::Tell("Err(false)".into())]);
}

#[test]
fn a_wait_that_ends_early_leaves_no_timer_and_others_keep_theirs() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            for wanted in [1, 2] {
                let cx = cx.clone();
                cx.clone().spawn(async move {
                    cx.until_or(Millis(50), move |state| *state == wanted).await;
                    cx.tell(wanted.to_string());
                });
            }
        },
        &mut out,
    );
    plane.handle(Millis(1), |cx| *cx.state_mut() = 1, &mut out);
    assert_eq!(std::mem::take(&mut out), [Action::Tell("1".into())]);
    assert_eq!(plane.next_deadline(), Some(Millis(50)));
    plane.handle(Millis(2), |cx| *cx.state_mut() = 2, &mut out);
    assert_eq!(plane.next_deadline(), None);
}

/// Asks for three things at once and tells what came, in order.
fn ask_three(cx: &Cx<Test>) {
    let cx = cx.clone();
    cx.clone().spawn(async move {
        let outcomes = cx.ask_all(["a", "b", "c"]).await;
        cx.tell(format!("{outcomes:?}"));
    });
}

#[test]
fn a_crowd_of_outcomes_comes_in_the_order_of_their_arrival() {
    let (mut plane, mut out) = plane();
    plane.handle(Millis(0), ask_three, &mut out);
    let tokens: Vec<Token> = std::mem::take(&mut out)
        .into_iter()
        .map(|action| match action {
            Action::Ask(token, _) => token,
            other => panic!("{other:?}"),
        })
        .collect();
    for (token, outcome) in [(2, 30), (0, 10), (0, 99), (1, 20)] {
        assert_eq!(out, []);
        plane.outcome(Millis(1), tokens[token], outcome, &mut out);
    }
    assert_eq!(out, [Action::Tell("[(2, 30), (0, 10), (1, 20)]".into())]);
    assert!(plane.is_empty());
}

#[test]
fn a_crowd_of_none_is_over_at_once() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                cx.tell(cx.ask_all([]).await.len().to_string());
            });
        },
        &mut out,
    );
    assert_eq!(out, [Action::Tell("0".into())]);
}

#[test]
fn a_crowd_that_is_given_up_is_forgotten_but_for_what_has_come() {
    let (mut plane, mut out) = plane();
    plane.handle(
        Millis(0),
        |cx| {
            let cx = cx.clone();
            cx.clone().spawn(async move {
                let deadline = Box::pin(cx.until(|state| *state == 1));
                drop(first_of(cx.ask_all(["a", "b"]), deadline).await);
            });
        },
        &mut out,
    );
    let [Action::Ask(one, "a"), Action::Ask(other, "b")] = out[..] else { panic!("{out:?}") };
    out.clear();
    plane.outcome(Millis(1), one, 1, &mut out);
    plane.handle(Millis(2), |cx| *cx.state_mut() = 1, &mut out);
    assert_eq!(out, [Action::Forget(other)]);
    out.clear();
    plane.outcome(Millis(3), other, 1, &mut out);
    assert_eq!(out, []);
}
