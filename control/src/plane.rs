//! The control plane's engine: pure sequences of steps, driven by events.
//!
//! Role: runs the sequences of this crate (answering a control, the leader's main loop, a recovery,
//! the monitor loop). A sequence is written as an `async fn` that reads like the procedure it is:
//! it asks for something ([`Cx::ask`]), waits for the outcome, decides, goes on. Nothing is done
//! here: what a sequence asks for leaves as an [`Action`], what comes of it returns as an
//! event. The daemon carries actions out; the simulator plays them.
//! Invariants
//! - No clock, no I/O, no thread, no randomness of its own: time and the seed are arguments, so that
//!   a run can be repeated exactly.
//! - One event at a time; all sequences are then polled in the order in which they were started,
//!   until none of them moves any more.
//! - State is borrowed between two awaits only, never across one.
//! - Dropping a sequence voids what it waits for: a late outcome finds nothing.
//!
//! Origin: ours (C: tevent requests and processes).

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Milliseconds since an arbitrary start; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// No deadline at all.
    pub const NEVER: Self = Self(u64::MAX);

    /// Later by `millis`.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Later by whole seconds.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(1_000_u64.saturating_mul(seconds as u64)))
    }
}

/// Names a request of a sequence; its outcome carries the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a plane works with: its state, what it asks for, what comes back.
pub trait World: 'static {
    /// Everything the sequences share.
    type State;
    /// Something to be done that has an outcome.
    type Ask;
    /// What came of it.
    type Outcome: 'static;
    /// Something to be done that has none.
    type Tell;
}

/// Left to be done by whoever drives the plane.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<A, T> {
    /// Do it and report the outcome with [`Plane::outcome`].
    Ask(Token, A),
    /// Do it.
    Tell(T),
    /// Nobody waits for this any more; an outcome may still be reported and is dropped.
    Forget(Token),
}

type Sequence = Pin<Box<dyn Future<Output = ()>>>;

struct Inner<W: World> {
    now: Cell<Millis>,
    state: RefCell<W::State>,
    actions: RefCell<Vec<Action<W::Ask, W::Tell>>>,
    /// Requests under way.
    asked: RefCell<BTreeMap<Token, Slot<W::Outcome>>>,
    next_token: Cell<u64>,
    /// When sequences want to be polled, by time; one entry per wait under way.
    timers: RefCell<BTreeSet<(Millis, u64)>>,
    next_timer: Cell<u64>,
    spawned: RefCell<Vec<Sequence>>,
    random: Cell<u64>,
}

/// Where an outcome goes.
enum Slot<O> {
    /// To whoever polls for it; `Some` once it is here.
    Single(Option<O>),
    /// Into a crowd, under this number.
    Crowd(Rc<RefCell<Crowd<O>>>, usize),
}

/// Outcomes of many requests.
struct Crowd<O> {
    /// In the order in which they came, each with the number of its request.
    arrived: Vec<(usize, O)>,
    missing: usize,
}

/// What a sequence sees of the plane. Cheap to clone.
pub struct Cx<W: World> {
    inner: Rc<Inner<W>>,
}

impl<W: World> Clone for Cx<W> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<W: World> fmt::Debug for Cx<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("now", &self.inner.now.get()).finish_non_exhaustive()
    }
}

/// Runs sequences.
pub struct Plane<W: World> {
    cx: Cx<W>,
    sequences: Vec<Sequence>,
}

impl<W: World> fmt::Debug for Plane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").field("sequences", &self.sequences.len()).finish_non_exhaustive()
    }
}

impl<W: World> Plane<W> {
    /// A plane without sequences. `seed` feeds [`Cx::random`].
    #[must_use]
    pub fn new(state: W::State, now: Millis, seed: u64) -> Self {
        let inner = Inner {
            now: Cell::new(now),
            state: RefCell::new(state),
            actions: RefCell::new(Vec::new()),
            asked: RefCell::new(BTreeMap::new()),
            next_token: Cell::new(0),
            timers: RefCell::new(BTreeSet::new()),
            next_timer: Cell::new(0),
            spawned: RefCell::new(Vec::new()),
            // The generator must not start at 0.
            random: Cell::new(seed | 1),
        };
        Self { cx: Cx { inner: Rc::new(inner) }, sequences: Vec::new() }
    }

    /// For starting sequences and looking at the state from outside.
    #[must_use]
    pub const fn cx(&self) -> &Cx<W> {
        &self.cx
    }

    /// Something has happened: `event` changes the state and starts sequences; then everything
    /// that can move moves. What is to be done is added to `out`, in the order in which it was
    /// asked for.
    pub fn handle(
        &mut self,
        now: Millis,
        event: impl FnOnce(&Cx<W>),
        out: &mut Vec<Action<W::Ask, W::Tell>>,
    ) {
        self.cx.inner.now.set(now.max(self.cx.now()));
        event(&self.cx);
        self.run();
        out.append(&mut self.cx.inner.actions.borrow_mut());
    }

    /// The outcome of an [`Action::Ask`]. One that nobody waits for is dropped.
    pub fn outcome(
        &mut self,
        now: Millis,
        token: Token,
        outcome: W::Outcome,
        out: &mut Vec<Action<W::Ask, W::Tell>>,
    ) {
        self.cx.store(token, outcome);
        self.handle(now, |_| {}, out);
    }

    /// When [`Self::handle`] wants to be called even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.cx.inner.timers.borrow().first().map(|(at, _)| *at)
    }

    /// Sequences under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    fn run(&mut self) {
        let mut waker = Context::from_waker(Waker::noop());
        loop {
            let now = self.cx.now();
            self.cx.drop_timers(now);
            let before = self.cx.progress();
            self.sequences.append(&mut self.cx.inner.spawned.borrow_mut());
            self.sequences.retain_mut(|sequence| sequence.as_mut().poll(&mut waker).is_pending());
            // Sequences wait for each other through the state: go on until nobody moves.
            if self.cx.progress() == before && self.cx.inner.spawned.borrow().is_empty() {
                return;
            }
        }
    }
}

impl<W: World> Cx<W> {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.inner.now.get()
    }

    /// The state, to look at. Not across an await.
    #[must_use]
    pub fn state(&self) -> Ref<'_, W::State> {
        self.inner.state.borrow()
    }

    /// The state, to change. Not across an await.
    #[must_use]
    pub fn state_mut(&self) -> RefMut<'_, W::State> {
        // Whoever changes the state may let another sequence move.
        self.moved();
        self.inner.state.borrow_mut()
    }

    /// Starts a sequence; it is polled before the current event has been handled.
    pub fn spawn(&self, sequence: impl Future<Output = ()> + 'static) {
        self.inner.spawned.borrow_mut().push(Box::pin(sequence));
    }

    /// Has something done that has no outcome.
    pub fn tell(&self, what: W::Tell) {
        self.inner.actions.borrow_mut().push(Action::Tell(what));
    }

    /// Has something done and waits for what comes of it.
    pub fn ask(&self, what: W::Ask) -> Asked<W> {
        let token = self.send(what, Slot::Single(None));
        Asked { cx: self.clone(), token, over: false }
    }

    /// The same for many things at once: the outcomes come together, in the order in which they
    /// came, each with the place of its request. Unlike [`join_all`] it costs nothing to wait for a
    /// crowd while its outcomes come one by one.
    pub fn ask_all(&self, what: impl IntoIterator<Item = W::Ask>) -> AskedAll<W> {
        let crowd = Rc::new(RefCell::new(Crowd { arrived: Vec::new(), missing: 0 }));
        let send = |(place, what)| self.send(what, Slot::Crowd(Rc::clone(&crowd), place));
        let tokens: Vec<Token> = what.into_iter().enumerate().map(send).collect();
        crowd.borrow_mut().missing = tokens.len();
        AskedAll { cx: self.clone(), crowd, tokens }
    }

    fn send(&self, what: W::Ask, slot: Slot<W::Outcome>) -> Token {
        let token = Token(self.inner.next_token.get() + 1);
        self.inner.next_token.set(token.0);
        self.inner.asked.borrow_mut().insert(token, slot);
        self.inner.actions.borrow_mut().push(Action::Ask(token, what));
        token
    }

    /// Keeps an outcome for whoever waits for it.
    fn store(&self, token: Token, outcome: W::Outcome) {
        let mut asked = self.inner.asked.borrow_mut();
        match asked.get_mut(&token) {
            Some(Slot::Single(slot)) => *slot = Some(outcome),
            Some(Slot::Crowd(crowd, place)) => {
                let mut crowd = crowd.borrow_mut();
                crowd.arrived.push((*place, outcome));
                crowd.missing -= 1;
                drop(crowd);
                asked.remove(&token);
            }
            None => {}
        }
    }

    fn take(&self, token: Token) -> Option<W::Outcome> {
        match self.inner.asked.borrow_mut().get_mut(&token) {
            Some(Slot::Single(slot)) => slot.take(),
            _ => None,
        }
    }

    /// Waits until `at`.
    pub async fn sleep_until(&self, at: Millis) {
        self.until_or(at, |_| false).await;
    }

    /// Waits for some milliseconds.
    pub async fn sleep(&self, millis: u64) {
        self.sleep_until(self.now().plus(millis)).await;
    }

    /// Waits until the state says so.
    pub fn until<F: Fn(&W::State) -> bool>(&self, condition: F) -> Until<W, F> {
        Until { cx: self.clone(), condition, deadline: None, timer: None }
    }

    /// Waits until the state says so (`true`) or it is too late (`false`).
    pub fn until_or<F: Fn(&W::State) -> bool>(
        &self,
        deadline: Millis,
        condition: F,
    ) -> Until<W, F> {
        Until { cx: self.clone(), condition, deadline: Some(deadline), timer: None }
    }

    /// A number that the seed decides (xorshift; not for secrets).
    #[must_use]
    pub fn random(&self) -> u64 {
        let mut number = self.inner.random.get();
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        self.inner.random.set(number);
        number
    }

    /// Those that are due; every sequence is polled anyway.
    fn drop_timers(&self, now: Millis) {
        let mut timers = self.inner.timers.borrow_mut();
        while timers.first().is_some_and(|(at, _)| *at <= now) {
            timers.pop_first();
        }
    }

    fn moved(&self) {
        self.inner.next_token.set(self.inner.next_token.get() + 1);
    }

    /// Changes whenever a sequence has asked or may have changed the state.
    fn progress(&self) -> (u64, usize) {
        (self.inner.next_token.get(), self.inner.actions.borrow().len())
    }
}

/// Waits for an outcome.
#[must_use = "nobody hears of the outcome unless this is awaited"]
pub struct Asked<W: World> {
    cx: Cx<W>,
    token: Token,
    over: bool,
}

impl<W: World> fmt::Debug for Asked<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.token).finish()
    }
}

impl<W: World> Future for Asked<W> {
    type Output = W::Outcome;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<W::Outcome> {
        let token = self.token;
        match self.cx.take(token) {
            Some(outcome) => {
                self.cx.inner.asked.borrow_mut().remove(&token);
                self.cx.moved();
                self.over = true;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl<W: World> Drop for Asked<W> {
    fn drop(&mut self) {
        if !self.over {
            self.cx.inner.asked.borrow_mut().remove(&self.token);
            self.cx.inner.actions.borrow_mut().push(Action::Forget(self.token));
        }
    }
}

/// Waits for the outcomes of many requests.
#[must_use = "nobody hears of the outcomes unless this is awaited"]
pub struct AskedAll<W: World> {
    cx: Cx<W>,
    crowd: Rc<RefCell<Crowd<W::Outcome>>>,
    tokens: Vec<Token>,
}

impl<W: World> fmt::Debug for AskedAll<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskedAll").field("requests", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl<W: World> Future for AskedAll<W> {
    type Output = Vec<(usize, W::Outcome)>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut crowd = self.crowd.borrow_mut();
        if crowd.missing > 0 {
            return Poll::Pending;
        }
        self.cx.moved();
        Poll::Ready(std::mem::take(&mut crowd.arrived))
    }
}

impl<W: World> Drop for AskedAll<W> {
    fn drop(&mut self) {
        let mut asked = self.cx.inner.asked.borrow_mut();
        for token in &self.tokens {
            if asked.remove(token).is_some() {
                self.cx.inner.actions.borrow_mut().push(Action::Forget(*token));
            }
        }
    }
}

/// Waits for a condition, perhaps until a deadline.
#[must_use = "a condition is only waited for when awaited"]
pub struct Until<W: World, F> {
    cx: Cx<W>,
    condition: F,
    deadline: Option<Millis>,
    /// Its entry among the timers.
    timer: Option<(Millis, u64)>,
}

impl<W: World, F> fmt::Debug for Until<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl<W: World, F: Fn(&W::State) -> bool + Unpin> Future for Until<W, F> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<bool> {
        if (self.condition)(&self.cx.state()) {
            return Poll::Ready(true);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if self.cx.now() >= deadline {
            return Poll::Ready(false);
        }
        if self.timer.is_none() && deadline != Millis::NEVER {
            let inner = &self.cx.inner;
            let timer = (deadline, inner.next_timer.get());
            inner.next_timer.set(timer.1 + 1);
            inner.timers.borrow_mut().insert(timer);
            self.timer = Some(timer);
        }
        Poll::Pending
    }
}

/// A wait that has ended early must not wake anybody later.
impl<W: World, F> Drop for Until<W, F> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.cx.inner.timers.borrow_mut().remove(&timer);
        }
    }
}

/// Waits for all of several requests, in any order; the outcomes come in the order of the requests.
pub async fn join_all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut slots: Vec<Result<F::Output, F>> = futures.into_iter().map(Err).collect();
    std::future::poll_fn(|cx| {
        let mut missing = false;
        for slot in &mut slots {
            if let Err(future) = slot {
                match Pin::new(future).poll(cx) {
                    Poll::Ready(outcome) => *slot = Ok(outcome),
                    Poll::Pending => missing = true,
                }
            }
        }
        if missing { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    slots.into_iter().filter_map(Result::ok).collect()
}

/// Waits for whichever of two comes first; the other one is given up.
///
/// # Errors
/// The second, if that was first.
pub async fn first_of<A, B>(mut wanted: A, mut instead: B) -> Result<A::Output, B::Output>
where
    A: Future + Unpin,
    B: Future + Unpin,
{
    std::future::poll_fn(|cx| match Pin::new(&mut wanted).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut instead).poll(cx).map(Err),
    })
    .await
}

#[cfg(test)]
mod tests;
