//! In a process of its own, since it changes what the kernel lets others do with this one.

use stayput_dataplane::forbid_core_dumps;

// Attack: a crash of the data plane, to read its keys from the core dump | 1 | the kernel writes none, and lets no other
// process of the user read the memory
#[test]
fn attack_core_dump() {
    // SAFETY: prctl takes no pointers here.
    let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    assert_eq!(dumpable(), 1);
    forbid_core_dumps().unwrap();
    assert_eq!(dumpable(), 0);
    let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: the limit is a valid place to write to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &mut limit) }, 0);
    assert_eq!((limit.rlim_cur, limit.rlim_max), (0, 0));
}
