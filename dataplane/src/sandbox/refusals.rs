//! What becomes of a system call that the filter refuses: the kernel does not make it and sends the thread SIGSYS, whose
//! handler has the call return EPERM, and notes it for the engine to count and log.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::check;

pub struct Refused {
    pub count: u64,
    /// Of system calls that were not refused before.
    pub new_numbers: Vec<usize>,
}

/// Those since the last call.
pub fn take() -> Option<Refused> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let count = COUNT.swap(0, Ordering::Relaxed);
    let mut new_numbers = Vec::new();
    for (word, (refused, told)) in REFUSED.iter().zip(&TOLD).enumerate() {
        let refused = refused.load(Ordering::Relaxed);
        let new = refused & !told.swap(refused, Ordering::Relaxed);
        new_numbers.extend((0..64).filter(|bit| new >> bit & 1 == 1).map(|bit| word * 64 + bit));
    }
    Some(Refused { count, new_numbers })
}

pub fn answer_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid, the handler has the signature that SA_SIGINFO asks for, and it only does
    // what a signal handler may: it writes to atomics and to the registers that it is given.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        check(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())).map(drop)
    }
}

extern "C" fn on_refused(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo_t, which for SIGSYS is laid out as SystemCallInfo, and a ucontext_t.
    let (info, context) = unsafe { (&*info.cast::<SystemCallInfo>(), &mut *context.cast::<libc::ucontext_t>()) };
    // Anybody who may can send the signal by itself; there is no call to answer then.
    if info.code != SYS_SECCOMP {
        return;
    }
    set_result(context, -libc::EPERM);
    COUNT.fetch_add(1, Ordering::Relaxed);
    let number = usize::try_from(info.number).unwrap_or(LAST).min(LAST);
    REFUSED[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
}

#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t, result: c_int) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result.into();
}

#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t, result: c_int) {
    context.uc_mcontext.regs[0] = i64::from(result) as u64;
}

/// `siginfo_t` with the SIGSYS member of its union (sigaction(2)).
#[repr(C)]
struct SystemCallInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    address: *const c_void,
    number: c_int,
    architecture: u32,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
/// A bit for each number of a system call; the last one is for all beyond.
static REFUSED: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static TOLD: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
const WORDS: usize = 16;
const LAST: usize = WORDS * 64 - 1;
/// si_code of a signal by seccomp (asm-generic/siginfo.h).
const SYS_SECCOMP: c_int = 1;
