//! Threads that help others with work that is cut into shares.
//!
//! To start a thread for a call is no help: until the caller sleeps, Linux may let the new thread wait on the caller's own
//! core. One that sleeps is woken on a free core within microseconds. So those that helped once stay, and sleep.
//!
//! Nobody depends on them. Whoever asks for help does the work too, takes back what no helper began, and waits for those
//! alone that began. In a fork the threads are gone: it gets a crew of its own when it first asks.
#![allow(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Turns around the loop that waits for helpers before the caller sleeps: some ten microseconds, as long as a share takes.
const TURNS: usize = 4000;

/// Work that several threads do at once: each call takes shares until none is left.
type Work<'a> = dyn Fn() + Sync + 'a;

struct Crew {
    process: u32,
    state: Mutex<State>,
    /// There is work for one more.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    /// What waits for helpers, the oldest first, and for how many.
    calls: Vec<(Arc<Call>, usize)>,
    threads: usize,
    idle: usize,
}

/// One caller's work.
struct Call {
    /// There as long as the caller waits, which is until no helper is at it and none can begin.
    work: *const Work<'static>,
    /// Helpers that are at it; counted up under the lock of the crew.
    busy: AtomicUsize,
    ended: Mutex<Option<Box<dyn Any + Send>>>,
    quiet: Condvar,
}

// SAFETY: what `work` points to is `Sync`; the rest is made for several threads.
unsafe impl Send for Call {}
// SAFETY: as above.
unsafe impl Sync for Call {}

/// Calls `work` on this thread and on at most `helpers` others at once, and returns when all that began have returned.
///
/// What a helper panics with goes on here.
pub fn together(helpers: usize, work: &Work) {
    if helpers == 0 {
        return work();
    }
    // SAFETY: only the lifetime changes, of what is a pointer from here on.
    let forever = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
    let crew = crew();
    let (busy, ended, quiet) = Default::default();
    let call = Arc::new(Call { work: forever, busy, ended, quiet });
    crew.ask(&call, helpers);
    let wait = Wait { crew, call: &call };
    work();
    drop(wait);
    let panicked = call.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
}

/// Does work on each of some things, on this thread and on at most `helpers` others at once. Things are begun in their order;
/// behind the first error no more are.
pub fn each<T, E: Send>(
    helpers: usize,
    things: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = Mutex::new((things, None));
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || {
        let mut state = lock();
        if state.1.is_some() { None } else { state.0.next() }
    };
    together(helpers, &|| {
        while let Some(thing) = next() {
            if let Err(error) = work(thing) {
                lock().1.get_or_insert(error);
            }
        }
    });
    state.into_inner().unwrap_or_else(PoisonError::into_inner).1.map_or(Ok(()), Err)
}

/// This process's threads.
fn crew() -> &'static Crew {
    static CREW: AtomicPtr<Crew> = AtomicPtr::new(std::ptr::null_mut());
    let process = std::process::id();
    let found = CREW.load(Ordering::Acquire);
    // SAFETY: it is null or came out of `Box::into_raw` below, and is never freed.
    if let Some(crew) = unsafe { found.as_ref() }.filter(|crew| crew.process == process) {
        return crew;
    }
    // an inherited crew is left alone: a thread that is not here may hold its lock
    let new = Box::into_raw(Box::new(Crew { process, state: Mutex::default(), wanted: Condvar::new() }));
    let chosen = match CREW.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: `new` came out of `Box::into_raw` and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            other
        }
    };
    // SAFETY: as above; what another thread of this process stored is not null.
    unsafe { &*chosen }
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call on the list and wakes helpers, or starts them if there never were as many.
    fn ask(&'static self, call: &Arc<Call>, helpers: usize) {
        let mut state = self.lock();
        state.calls.push((Arc::clone(call), helpers));
        while state.idle < helpers && state.threads < helpers {
            let started = std::thread::Builder::new().name("lamina-helper".to_owned()).spawn(|| self.help());
            // where no thread can be started, the caller does it all
            let Ok(_) = started else { break };
            state.threads += 1;
            state.idle += 1;
        }
        drop(state);
        (0..helpers).for_each(|_| self.wanted.notify_one());
    }

    /// What a helper does all its life.
    fn help(&self) {
        let mut state = self.lock();
        loop {
            let Some((call, left)) = state.calls.first_mut() else {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let call = Arc::clone(call);
            *left -= 1;
            if *left == 0 {
                state.calls.remove(0);
            }
            state.idle -= 1;
            call.busy.fetch_add(1, Ordering::Relaxed);
            drop(state);
            // SAFETY: the caller is in `together`: `Wait` keeps it from returning or unwinding while a helper is busy, and
            // took the call off the list, under the lock under which this one became busy, before it looked.
            let work = unsafe { &*call.work };
            let result = catch_unwind(AssertUnwindSafe(work));
            call.end(result.err());
            state = self.lock();
            state.idle += 1;
        }
    }
}

impl Call {
    fn end(&self, panic: Option<Box<dyn Any + Send>>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if panic.is_some() {
            *ended = panic;
        }
        // what the helper wrote is seen by whoever sees this; under the lock, so that it cannot fall between look and sleep
        self.busy.fetch_sub(1, Ordering::Release);
        self.quiet.notify_all();
    }
}

/// Waits, when it is dropped, until nobody is at a call.
struct Wait<'a> {
    crew: &'a Crew,
    call: &'a Arc<Call>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.crew.lock().calls.retain(|(call, _)| !Arc::ptr_eq(call, self.call));
        let busy = || self.call.busy.load(Ordering::Acquire) > 0;
        if (0..TURNS).any(|_| {
            std::hint::spin_loop();
            !busy()
        }) {
            return;
        }
        let mut ended = self.call.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while busy() {
            ended = self.call.quiet.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn sum(helpers: usize, shares: usize) -> usize {
        let (next, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        together(helpers, &|| {
            loop {
                let share = next.fetch_add(1, Ordering::Relaxed);
                if share >= shares {
                    return;
                }
                total.fetch_add(share, Ordering::Relaxed);
            }
        });
        total.into_inner()
    }

    #[test]
    fn every_share_is_done_once_however_many_help_and_call() {
        for helpers in [0, 1, 2, 7] {
            for shares in [0, 1, 2, 1000] {
                assert_eq!(sum(helpers, shares), (0..shares).sum::<usize>());
            }
        }
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..500).for_each(|shares| assert_eq!(sum(3, shares), (0..shares).sum::<usize>())));
            }
        });
    }

    #[test]
    fn things_are_begun_in_order_and_none_behind_an_error() {
        for helpers in [0, 2] {
            let begun = Mutex::new(Vec::new());
            let until = |last: usize| {
                each(helpers, 0..100, |thing| {
                    begun.lock().unwrap().push(thing);
                    if thing == last { Err(thing) } else { Ok(()) }
                })
            };
            assert_eq!(until(100), Ok(()));
            let mut all = std::mem::take(&mut *begun.lock().unwrap());
            all.sort_unstable();
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            assert_eq!(until(50), Err(50));
            let begun = begun.into_inner().unwrap();
            assert!(begun.len() <= 51 + helpers && (0..=50).all(|thing| begun.contains(&thing)), "{begun:?}");
        }
    }

    #[test]
    fn helpers_work_at_the_same_time_and_stay() {
        for _ in 0..100 {
            let barrier = Barrier::new(3);
            // returns only if three threads are in it at once
            together(2, &|| {
                barrier.wait();
            });
        }
        assert!(crew().lock().threads <= 7, "no more than one call of these tests asks for");
    }

    #[test]
    fn work_may_ask_for_help_itself() {
        let total = AtomicUsize::new(0);
        together(2, &|| {
            total.fetch_add(sum(2, 100), Ordering::Relaxed);
        });
        let done = total.into_inner();
        assert!(done.is_multiple_of(4950) && (1..=3).contains(&(done / 4950)), "{done}");
    }

    #[test]
    fn a_panic_comes_to_the_caller_when_all_have_ended() {
        let caller = std::thread::current().id();
        for at_caller in [true, false] {
            let barrier = Barrier::new(2);
            let failed = catch_unwind(AssertUnwindSafe(|| {
                together(1, &|| {
                    barrier.wait();
                    assert!((std::thread::current().id() == caller) != at_caller, "planted");
                });
            }));
            assert!(failed.unwrap_err().downcast::<&str>().unwrap().contains("planted"));
        }
        assert_eq!(sum(1, 100), 4950, "the helper is still there");
    }
}
