//! The data plane of a host. It ends with its test, whose output it does not hold open, and says why if that has failed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::lab::{Lab, file_of, why_not};

pub struct DataPlane {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl DataPlane {
    pub fn start(namespace: &str, options: &[String], readiness: &Path) -> DataPlane {
        let (socket, log) = (file_of(namespace, "sock"), file_of(namespace, "log"));
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_stayput-dataplane"), "--log", "warn", "--socket"])
            .arg(&socket)
            .args(options)
            .env("NOTIFY_SOCKET", readiness)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("log"));
        // SAFETY: prctl takes numbers here and is a plain system call, as a forked child may make.
        unsafe {
            command.pre_exec(|| {
                // With the thread of the test, however that ends.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        DataPlane { child: command.spawn().expect("start"), socket, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM ends it with success and without its socket.
    pub fn terminate(&mut self) {
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(self.id() as i32, libc::SIGTERM) };
        assert!(self.child.wait().expect("wait").success());
        assert!(!self.socket.exists());
    }

    /// What has become of it, and the last that it said.
    fn account(&mut self) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("has ended ({status})"),
            Ok(None) => "runs".to_string(),
            Err(error) => error.to_string(),
        };
        let log = fs::read(&self.log).unwrap_or_default();
        let last = String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_OCTETS)..]);
        format!("{} {state}; the end of its log:\n{last}", self.log.display())
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.account());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_data_plane_ends_with_the_thread_of_its_test_and_tells_how() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = thread::spawn(Lab::new).join().expect("a lab");
    for host in &mut lab.hosts {
        assert!(!host.process.child.wait().expect("wait").success());
        let account = host.process.account();
        assert!(account.contains("has ended (signal: 9 (SIGKILL))"), "{account}");
    }
}

const LAST_OCTETS: usize = 8 << 10;
