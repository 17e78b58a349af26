//! Two hosts from network namespaces, a data plane on each, and the agent that the test plays.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cable::{Cable, Trouble};
use crate::process::DataPlane;

pub fn why_not() -> Option<&'static str> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root");
    }
    if File::open("/dev/net/tun").is_err() {
        return Some("needs /dev/net/tun");
    }
    let ip = Command::new("ip").arg("netns").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!ip.is_ok_and(|s| s.success())).then_some("needs ip netns (iproute2)")
}

pub struct Lab {
    pub hosts: Vec<Host>,
    namespaces: [String; 2],
    options: Vec<String>,
}

pub struct Host {
    pub namespace: String,
    pub process: DataPlane,
    pub agent: Agent,
    pub key: String,
    epoch: u64,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(&[])
    }

    /// With options for the data planes.
    pub fn with(options: &[&str]) -> Lab {
        Lab::on(options, |a, b| ip(&format!("link add eth0 netns {a} type veth peer name eth0 netns {b}")))
    }

    /// On a cable that takes time, and with which things go wrong.
    pub fn troubled(options: &[&str], delay: Duration, trouble: Trouble) -> Lab {
        Lab::on(options, |a, b| {
            let end = |name: &str| format!("/run/netns/{name}=eth0");
            let mut cable = Cable::lay(&end(a), &end(b), delay, trouble).expect("a cable");
            thread::spawn(move || cable.run().expect("the cable"));
        })
    }

    fn on(options: &[&str], lay_cable: impl FnOnce(&str, &str)) -> Lab {
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let run = std::process::id();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let names = [format!("stayput-{run}-{number}a"), format!("stayput-{run}-{number}b")];
        // It removes what was made so far if something of this fails.
        let mut lab = Lab { hosts: Vec::new(), namespaces: names.clone(), options };
        for name in &names {
            ip(&format!("netns add {name}"));
        }
        lay_cable(&names[0], &names[1]);
        for (n, name) in names.iter().enumerate() {
            for command in ["link set lo up", "link set eth0 up", &format!("addr add 192.0.2.{}/24 dev eth0", n + 1)] {
                ip(&format!("-n {name} {command}"));
            }
        }
        for (n, name) in names.into_iter().enumerate() {
            lab.hosts.push(Host::start(n, name, 1, &lab.options));
        }
        lab
    }

    pub fn ip(&self, host: usize, command: &str) {
        ip(&format!("-n {} {command}", self.hosts[host].namespace));
    }

    pub fn introduce(&mut self) {
        for (me, other) in [(0, 1), (1, 0)] {
            let key = self.hosts[other].key.clone();
            let agent = &mut self.hosts[me].agent;
            agent.request(json!({ "type": "sync-begin" }));
            let locator =
                json!({ "address": format!("192.0.2.{}", other + 1), "port": 4341, "priority": 1, "weight": 100 });
            agent.request(json!({ "type": "peer-set", "publicKey": key, "locators": [locator] }));
            for family in ["10.77.0.N/32", "fd77::N/128", "fd53:7461:7970:7574::N/128"] {
                let prefix = family.replace('N', &(other + 1).to_string());
                agent.request(json!({
                    "type": "mapping-set", "prefix": prefix, "generation": 1, "action": "forward", "publicKey": key,
                }));
            }
            for family in ["10.77.0.N/32", "fd77::N/128"] {
                let prefix = family.replace('N', &(me + 1).to_string());
                agent.request(json!({
                    "type": "local-eid-set", "prefix": prefix, "generation": 1, "interface": null, "redirectFrom": null,
                }));
            }
            agent.request(json!({ "type": "sync-end" }));
        }
    }

    pub fn restart(&mut self, host: usize) {
        let old = &mut self.hosts[host];
        old.process.kill();
        let (namespace, epoch) = (old.namespace.clone(), old.epoch + 1);
        self.hosts[host] = Host::start(host, namespace, epoch, &self.options);
        self.introduce();
    }

    /// Sends octets from the first host to the second, does something in the middle, and compares a checksum.
    pub fn transfer(&mut self, to: &str, midway: impl FnOnce(&Lab)) {
        let to = to.to_string();
        let listener = in_namespace(&self.hosts[1].namespace, {
            let to = to.clone();
            move || TcpListener::bind((to.as_str(), 0)).expect("listen")
        });
        let port = listener.local_addr().expect("address").port();
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            let (mut buffer, mut sum, mut length) = (vec![0; 1 << 16], 0u64, 0);
            loop {
                match uninterrupted(|| stream.read(&mut buffer)).expect("the transfer stalled") {
                    0 => return (sum, length),
                    n => {
                        length += n;
                        sum = buffer[..n].iter().fold(sum, |sum, byte| mix(sum, *byte));
                    }
                }
            }
        });
        let mut stream =
            in_namespace(&self.hosts[0].namespace, move || TcpStream::connect((to.as_str(), port)).expect("connect"));
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let mut sum = 0;
        let mut midway = Some(midway);
        for chunk in 0..CHUNKS {
            let octets: Vec<u8> = (0..CHUNK).map(|i| (i * 7 + chunk * 13 + (i >> 8)) as u8).collect();
            sum = octets.iter().fold(sum, |sum, byte| mix(sum, *byte));
            stream.write_all(&octets).expect("the transfer stalled");
            if chunk == CHUNKS / 2
                && let Some(midway) = midway.take()
            {
                midway(self);
            }
        }
        drop(stream);
        assert_eq!(receiver.join().expect("receiver"), (sum, CHUNK * CHUNKS));
    }

    /// A thousand datagrams a second each way while the first host is without an address for 100 ms and then has
    /// another: all arrive, and once.
    pub fn count_datagrams_through_a_roam(&mut self) {
        let open = |address: &'static str| move || UdpSocket::bind((address, 0)).expect("bind");
        let near = in_namespace(&self.hosts[0].namespace, open("10.77.0.1"));
        let far = in_namespace(&self.hosts[1].namespace, open("10.77.0.2"));
        near.connect(far.local_addr().expect("address")).expect("connect");
        far.connect(near.local_addr().expect("address")).expect("connect");
        let receivers = [&near, &far].map(|socket| {
            let socket = socket.try_clone().expect("clone");
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
            socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
            thread::spawn(move || {
                let (mut times, mut octets, mut missing) = (vec![0; DATAGRAMS], [0; 4], DATAGRAMS);
                while uninterrupted(|| socket.recv(&mut octets)).is_ok() {
                    let times = &mut times[u32::from_be_bytes(octets) as usize];
                    missing -= usize::from(*times == 0);
                    *times += 1;
                    if missing == 0 {
                        // One that comes twice would come soon.
                        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
                    }
                }
                times
            })
        });
        let start = Instant::now();
        for n in 0..DATAGRAMS {
            thread::sleep((start + Duration::from_millis(n as u64)).saturating_duration_since(Instant::now()));
            near.send(&(n as u32).to_be_bytes()).expect("send");
            far.send(&(n as u32).to_be_bytes()).expect("send");
            if n == DATAGRAMS / 3 {
                self.ip(0, "addr del 192.0.2.11/24 dev eth0");
            } else if n == DATAGRAMS / 3 + 100 {
                self.ip(0, "addr add 192.0.2.12/24 dev eth0");
            }
        }
        for receiver in receivers {
            let times = receiver.join().expect("receiver");
            let odd: Vec<_> = times.iter().enumerate().filter(|(_, times)| **times != 1).collect();
            assert!(odd.is_empty(), "datagrams that did not arrive once, and how often: {odd:?}");
        }
        for host in &mut self.hosts {
            let counters = counters(host);
            assert_eq!(counters["drop.replay"], 0, "{counters}");
        }
        let counters = counters(&mut self.hosts[1]);
        assert!(counters["retransmit_resent"].as_u64().is_some_and(|n| n >= 90), "{counters}");
    }

    /// A program on the first host cannot speak to the other host's agent.
    pub fn pretend_to_be_the_agent(&mut self) {
        let before = self.counter(0, "drop.policy");
        let socket = in_namespace(&self.hosts[0].namespace, || UdpSocket::bind(("::", 0)).expect("bind"));
        socket.send_to(b"forged", ("fd53:7461:7970:7574::2", 4342)).expect("send");
        wait_for("the forged message to be dropped", || self.counter(0, "drop.policy") != before);
        assert_eq!(self.counter(0, "agent_messages_sent"), 2);
        assert_eq!(self.counter(1, "agent_messages_received"), 2);
    }

    pub fn counter(&mut self, host: usize, name: &str) -> u64 {
        self.stat(host, "counters", name)
    }

    pub fn gauge(&mut self, host: usize, name: &str) -> u64 {
        self.stat(host, "gauges", name)
    }

    fn stat(&mut self, host: usize, kind: &str, name: &str) -> u64 {
        let stats = self.hosts[host].agent.request(json!({ "type": "stats" }));
        stats[kind][name].as_u64().unwrap_or_else(|| panic!("no {name} among the {kind}"))
    }

    /// Of the path to the other host.
    pub fn wait_for_path_mtu(&mut self, host: usize, size: u32) {
        let agent = &mut self.hosts[host].agent;
        wait_for(&format!("a path MTU of {size}"), || {
            agent.request(json!({ "type": "peers" }))["peers"][0]["pathMtu"] == size
        });
    }

    pub fn echo_datagrams(&mut self, from: &str, to: &str, size: usize) {
        let open = |address: String| move || UdpSocket::bind((address.as_str(), 0)).expect("bind");
        let far = in_namespace(&self.hosts[1].namespace, open(to.to_string()));
        let near = in_namespace(&self.hosts[0].namespace, open(from.to_string()));
        near.set_read_timeout(Some(PATIENCE)).expect("timeout");
        far.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut buffer = vec![0; size + 1];
        near.send_to(&vec![7; size], far.local_addr().expect("address")).expect("send");
        let (length, sender) = uninterrupted(|| far.recv_from(&mut buffer)).expect("no datagram arrived");
        far.send_to(&buffer[..length], sender).expect("send");
        assert_eq!(uninterrupted(|| near.recv(&mut buffer)).expect("no datagram came back"), size);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hosts.clear();
        for namespace in &self.namespaces {
            let quietly = |arguments: &[&str]| Command::new("ip").args(arguments).stderr(Stdio::null()).status();
            // With it the cable's thread ends, which would keep the namespace.
            let _ = quietly(&["-n", namespace, "link", "del", "eth0"]);
            let _ = quietly(&["netns", "del", namespace]);
            for end in ["sock", "ready", "log"] {
                let _ = std::fs::remove_file(file_of(namespace, end));
            }
        }
    }
}

impl Host {
    fn start(n: usize, namespace: String, epoch: u64, options: &[String]) -> Host {
        let readiness = file_of(&namespace, "ready");
        let service_manager = UnixDatagram::bind(&readiness).expect("bind");
        service_manager.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let process = DataPlane::start(&namespace, options, &readiness);
        let mut told = [0; 16];
        let told = uninterrupted(|| service_manager.recv(&mut told)).map(|length| told[..length].to_vec());
        let _ = std::fs::remove_file(&readiness);
        assert_eq!(told.expect("systemd would wait in vain"), b"READY=1");
        let mut agent = Agent::connect(process.socket());
        agent.request(json!({ "type": "hello", "capability": 1, "software": "test" }));
        let reply = agent.request(configuration(n, epoch, 1420));
        let key = reply["publicKey"].as_str().expect("key").to_string();
        Host { namespace, process, agent, key, epoch }
    }
}

/// The command `configure` of a host.
pub fn configuration(n: usize, epoch: u64, mtu: u32) -> Value {
    json!({
        "type": "configure",
        "privateKey": STANDARD.encode([n as u8 + 1; 32]),
        "presharedKey": STANDARD.encode([9; 32]),
        "epoch": epoch,
        "instance": 7,
        "agentAddress": format!("fd53:7461:7970:7574::{}", n + 1),
        "listenPort": 4341,
        "mtu": mtu,
        "overlay": ["10.77.0.0/16", "fd77::/48"],
    })
}

pub struct Agent {
    stream: UnixStream,
    next: u64,
    replies: Vec<Value>,
    events: Vec<Value>,
}

impl Agent {
    fn connect(socket: &Path) -> Agent {
        let end = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                    return Agent { stream, next: 1, replies: Vec::new(), events: Vec::new() };
                }
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn request(&mut self, message: Value) -> Value {
        let reply = self.try_request(message.clone());
        assert_eq!(reply["ok"], true, "{message}: {reply}");
        reply["result"].clone()
    }

    pub fn try_request(&mut self, message: Value) -> Value {
        let id = self.ask(message);
        self.reply_to(id)
    }

    /// Does not wait for the reply, whose number this is.
    pub fn ask(&mut self, mut message: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        message["id"] = id.into();
        let text = message.to_string();
        self.stream.write_all(&(text.len() as u32).to_be_bytes()).expect("write");
        self.stream.write_all(text.as_bytes()).expect("write");
        id
    }

    pub fn reply_to(&mut self, id: u64) -> Value {
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["id"] == id) {
                return self.replies.remove(at);
            }
            let message = self.read();
            if message["type"] == "reply" { &mut self.replies } else { &mut self.events }.push(message);
        }
    }

    /// Of what was read while something else was waited for.
    pub fn has_reply_to(&self, id: u64) -> bool {
        self.replies.iter().any(|reply| reply["id"] == id)
    }

    pub fn event(&mut self, kind: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|e| e["type"] == kind) {
                return self.events.remove(at);
            }
            let event = self.read();
            self.events.push(event);
        }
    }

    fn read(&mut self) -> Value {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).expect("read");
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        self.stream.read_exact(&mut body).expect("read");
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// Of a host, and of the one that takes its place.
pub fn file_of(namespace: &str, end: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{namespace}.{end}"))
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A call that waits may end early when the process was stopped for a moment, or frozen (signal(7)): then once more.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Runs a closure in a network namespace; sockets it makes stay there.
pub fn in_namespace<T: Send + 'static>(namespace: &str, make: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).expect("namespace");
    let enter = move || {
        // SAFETY: setns changes the calling thread only, which ends after this.
        assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
        make()
    };
    thread::spawn(enter).join().expect("thread in the namespace")
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {command}");
}

fn mix(sum: u64, byte: u8) -> u64 {
    (sum.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

static LABS: AtomicU32 = AtomicU32::new(0);

pub fn counters(host: &mut Host) -> Value {
    host.agent.request(json!({ "type": "stats" }))["counters"].clone()
}

/// Datagrams of many sizes, one by one and as superpackets that this kernel makes of them. They arrive whole and in
/// their order.
pub fn send_datagrams(lab: &Lab, from: &'static str, to: &'static str) {
    let near = in_namespace(&lab.hosts[0].namespace, move || UdpSocket::bind((from, 0)).expect("bind"));
    let far = in_namespace(&lab.hosts[1].namespace, move || UdpSocket::bind((to, 0)).expect("bind"));
    near.connect(far.local_addr().expect("address")).expect("connect");
    far.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let octets: Vec<u8> = (0..20_000u32).map(|i| (i * 31 + (i >> 8)) as u8).collect();
    let mut buffer = [0; 2048];
    for size in (1..1300).step_by(37) {
        let segmented = size % 2 == 0;
        let length = (size * 14).min(octets.len());
        set_segment(&near, if segmented { size as i32 } else { 0 });
        if segmented {
            near.send(&octets[..length]).expect("send");
        } else {
            octets[..length].chunks(size).for_each(|chunk| assert!(near.send(chunk).is_ok()));
        }
        for chunk in octets[..length].chunks(size) {
            let length = uninterrupted(|| far.recv(&mut buffer)).expect("a datagram is missing");
            assert!(buffer[..length] == *chunk, "{size} octets, segmented: {segmented}");
        }
    }
}

pub fn set_segment(socket: &UdpSocket, size: i32) {
    set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size);
}

pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    // SAFETY: value is an int that lives through the call.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as libc::socklen_t) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 1 << 16;
const CHUNKS: usize = 400;
const DATAGRAMS: usize = 1500;
