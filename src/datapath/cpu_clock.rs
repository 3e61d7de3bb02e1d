//! The CPU time of a thread, read by other threads, without /proc and without a cost for the thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;

/// The CPU clock of a thread.
#[derive(Default)]
pub(super) struct CpuClock {
    clock: OnceLock<ClockId>,
    /// What was read last, in nanoseconds, which stays when the thread has ended.
    last: AtomicU64,
}

impl CpuClock {
    /// Is the clock of the calling thread from now on.
    pub(super) fn start(&self) {
        // clock_getres(2), include/linux/posix-timers.h: the inverted thread ID, CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED.
        // pthread_getcpuclockid(3) returns the same, but needs `unsafe`.
        let _ = self.clock.set(ClockId::from_raw(!gettid().as_raw() << 3 | 4 | 2));
    }

    /// The CPU time that the thread has used; zero before it has started.
    pub(super) fn read(&self) -> Duration {
        let time = self.clock.get().and_then(|clock| clock_gettime(*clock).ok()).map(Duration::from);
        let now = time.map_or(0, |time| time.as_nanos() as u64);
        Duration::from_nanos(self.last.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// The clock is that of one thread: it stands while that waits, and keeps its value after its end.
    #[test]
    fn the_time_of_one_thread_is_read_by_others() {
        let cpu = Arc::new(CpuClock::default());
        assert_eq!(cpu.read(), Duration::ZERO);
        let (of_thread, (busy, waits), (go, goes)) = (cpu.clone(), channel(), channel::<()>());
        let thread = thread::spawn(move || {
            of_thread.start();
            while of_thread.read() < Duration::from_millis(20) {}
            busy.send(()).unwrap();
            let _ = goes.recv();
        });
        waits.recv().unwrap();
        let used = cpu.read();
        let own = CpuClock::default();
        own.start();
        let begin = own.read();
        while own.read() < begin + Duration::from_millis(20) {}
        assert!(used >= Duration::from_millis(20) && cpu.read() < used + Duration::from_millis(15));
        drop(go);
        thread.join().unwrap();
        assert!(cpu.read() >= used, "a counter never decreases");
    }
}
