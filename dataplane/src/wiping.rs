//! Keys leave no trace: memory is wiped when it is freed, and so is the stack below a handshake.
//!
//! What holds keys for long wipes itself (`zeroize`, aws-lc). But snow copies them between values of its own that do
//! not, and the agent's messages bring them as text; whoever reads this process's memory later must not find those.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;
use std::hint::black_box;

pub struct Wiping;

// SAFETY: memory comes from the system's allocator and goes back to it with the same layout.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back a block of this layout that nobody uses any more. The empty assembly may read
        // any memory as far as the compiler knows, so the zeros have to be there.
        unsafe {
            at.write_bytes(0, layout.size());
            asm!("/* {0} */", in(reg) at, options(nostack, preserves_flags));
            System.dealloc(at, layout);
        }
    }
}

/// Overwrites what calls that have returned left on the stack.
#[inline(never)]
pub fn wipe_stack() {
    black_box(&mut [0u8; STACK_OF_A_HANDSHAKE]);
}

const STACK_OF_A_HANDSHAKE: usize = 16 << 10;
