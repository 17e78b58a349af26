//! Each in a process of its own, as the sandbox cannot be left again.

use std::ffi::{c_int, c_long};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::ptr::null;

use super::{files, refusals, system_calls};

/// Runs `story` in a child. What goes wrong there fails the test here.
fn in_a_process(story: impl FnOnce()) {
    // SAFETY: the child only runs the story, which uses nothing that another thread of the tests may hold, and ends
    // without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        // SAFETY: ends this process, which shares nothing with the tests.
        unsafe { libc::_exit(if told.is_ok() { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: status is valid to write to, and the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "ended by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0, "the story failed, see above");
}

fn forbid_files(socket: &Path) -> files::Restriction {
    files::forbid(socket).expect("Landlock, which Linux 5.13 and newer have")
}

fn forbid_system_calls() {
    system_calls::forbid().expect("seccomp");
}

fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

// Attack: code in the data plane, as root, that reads and writes files: its own program, passwords, devices, the memory
// of others, the directory of its socket | 12 | each is refused; the network's settings and the own socket can be reached
#[test]
fn attack_files_from_inside_the_data_plane() {
    let directory = std::env::temp_dir().join(format!("stayput-sandbox-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let socket = directory.join("dataplane.sock");
    let secret = directory.join("secret");
    fs::write(&socket, "").unwrap();
    fs::write(&secret, "key").unwrap();
    let program = std::env::current_exe().unwrap();
    in_a_process(|| {
        let _kept = forbid_files(&socket);
        for path in [&secret, &program, Path::new("/etc/passwd"), Path::new("/etc/shadow"), Path::new("/dev/net/tun")] {
            assert!(refused(File::open(path)), "{}", path.display());
        }
        assert!(refused(File::open("/proc/self/mem")));
        assert!(refused(OpenOptions::new().write(true).open(&secret)));
        assert!(refused(fs::write(directory.join("new"), "x")));
        assert!(refused(fs::create_dir(directory.join("new"))));
        assert!(refused(fs::rename(&secret, directory.join("other"))));
        assert!(refused(fs::read_dir("/")));
        assert!(refused(std::os::unix::fs::symlink("/etc/passwd", directory.join("new"))));
        fs::remove_file(&socket).unwrap();
        assert_eq!(fs::read_dir("/proc/sys/net/ipv4/conf").map(|entries| entries.count() > 1).ok(), Some(true));
        assert!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok());
    });
    assert!(!socket.exists() && secret.exists());
    fs::remove_dir_all(&directory).unwrap();
}

// Attack: code in the data plane, as root, that starts a program, forks, traces, signals, makes code, loads modules,
// opens Unix and netlink sockets, changes its user or leaves its namespaces | 18 system calls | each returns EPERM, is
// counted, and the data plane goes on
#[test]
fn attack_system_calls_from_inside_the_data_plane() {
    in_a_process(|| {
        let parent = c_long::from(std::os::unix::process::parent_id() as i32);
        forbid_system_calls();
        let page = 4096;
        let code = c_long::from(libc::PROT_READ | libc::PROT_EXEC);
        let anonymous = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let calls: &[(c_long, [c_long; 6])] = &[
            (libc::SYS_execve, [c"/bin/true".as_ptr() as c_long, 0, 0, 0, 0, 0]),
            (libc::SYS_execveat, [-100, c"/bin/true".as_ptr() as c_long, 0, 0, 0, 0]),
            (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
            (libc::SYS_clone3, [0; 6]),
            (libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), parent, 0, 0, 0, 0]),
            (libc::SYS_process_vm_readv, [parent, 0, 0, 0, 0, 0]),
            (libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
            (libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]),
            (libc::SYS_mmap, [0, page, code, anonymous, -1, 0]),
            (libc::SYS_memfd_create, [c"x".as_ptr() as c_long, 0, 0, 0, 0, 0]),
            (libc::SYS_socket, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]),
            (libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 0, 0, 0, 0]),
            (libc::SYS_setuid, [0; 6]),
            (libc::SYS_setns, [0; 6]),
            (libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]),
            (libc::SYS_mount, [0; 6]),
            (libc::SYS_init_module, [0; 6]),
            (libc::SYS_bpf, [0; 6]),
        ];
        for (number, [a, b, c, d, e, f]) in calls {
            // SAFETY: the filter refuses each of them before the kernel looks at the arguments.
            let result = unsafe { libc::syscall(*number, *a, *b, *c, *d, *e, *f) };
            assert_eq!((result, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)), "{number}");
        }
        let told = refusals::take().expect("counted");
        assert_eq!(told.count, calls.len() as u64);
        let mut numbers: Vec<usize> = calls.iter().map(|(number, _)| *number as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(told.new_numbers, numbers);
        assert!(refusals::take().is_none());
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_setuid, 0) };
        assert!(refusals::take().is_some_and(|again| again.count == 1 && again.new_numbers.is_empty()));
    });
}

// Attack: code in the data plane, as root, that carries keys away by TCP, or speaks with other daemons of the host over
// abstract sockets, where the kernel has no seccomp | 3 | refused by Landlock, from Linux 6.7 and 6.12 on
#[test]
fn attack_connections_from_inside_the_data_plane() {
    use std::os::linux::net::SocketAddrExt;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name = format!("stayput-sandbox-{}", std::process::id());
    let neighbour = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _neighbour = UnixDatagram::bind_addr(&neighbour).unwrap();
    if !kernel_is_at_least(6, 12) {
        return;
    }
    in_a_process(|| {
        let _kept = forbid_files(Path::new("none"));
        assert!(refused(TcpStream::connect(address)));
        assert!(refused(TcpListener::bind("127.0.0.1:0")));
        assert!(refused(UnixDatagram::unbound().unwrap().send_to_addr(b"x", &neighbour)));
        assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    });
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}

#[test]
fn a_kernel_without_them_is_told_of() {
    use seccompiler::{SeccompAction, SeccompFilter};
    in_a_process(|| {
        let lacking = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp].map(|number| (number, Vec::new()));
        let (others, lacks) = (SeccompAction::Allow, SeccompAction::Errno(libc::EOPNOTSUPP as u32));
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(lacking.into_iter().collect(), others, lacks, architecture).unwrap();
        seccompiler::apply_filter_all_threads(&filter.try_into().unwrap() as &seccompiler::BpfProgram).unwrap();
        assert!(files::forbid(Path::new("none")).is_err_and(|error| error.contains("no Landlock")));
        assert!(system_calls::forbid().is_err());
        assert!(File::open("/etc/passwd").is_ok());
    });
}

#[test]
fn a_signal_that_somebody_sends_is_no_refusal() {
    in_a_process(|| {
        forbid_system_calls();
        // SAFETY: raises a signal that is handled.
        let result: c_int = unsafe { libc::raise(libc::SIGSYS) };
        assert_eq!(result, 0);
        assert!(refusals::take().is_none());
    });
}

#[test]
fn threads_that_run_already_are_held_as_well() {
    in_a_process(|| {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let earlier = std::thread::spawn(move || {
            wait.recv().unwrap();
            // SAFETY: refused before the kernel looks at the arguments.
            let result = unsafe { libc::syscall(libc::SYS_execve, null::<u8>(), null::<u8>(), null::<u8>()) };
            (result, io::Error::last_os_error().raw_os_error())
        });
        forbid_system_calls();
        go.send(()).unwrap();
        assert_eq!(earlier.join().unwrap(), (-1, Some(libc::EPERM)));
        assert_eq!(refusals::take().map(|told| told.count), Some(1));
    });
}
