//! Runs work that recurses with hostile input on a stack of known size, so that what one service accepts, the other
//! can use, whatever the threads that call it.

use std::thread::Builder;

/// Several times what the worst template or script within bounds needs in a debug build.
pub const STACK_BYTES: usize = 8 << 20;

/// Runs `work` on a thread of its own, which takes some 30 microseconds.
///
/// # Panics
/// If `work` panics, or the system has no thread left.
pub fn on_known_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        match thread.expect("a thread").join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
