//! Monotonic counters, one array for the whole process.

macro_rules! counters {
    ($($variant:ident => $name:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($variant),* }
        const NAMES: &[&str] = &[$($name),*];
    };
}

counters! {
    TunRxPackets => "tun_rx_packets",
    TunRxBytes => "tun_rx_bytes",
    TunTxPackets => "tun_tx_packets",
    TunTxBytes => "tun_tx_bytes",
    TunReadCalls => "tun_read_calls",
    TunWriteCalls => "tun_write_calls",
    TunWriteCallsHandedOver => "tun_write_calls_handed_over",
    UdpRxDatagrams => "udp_rx_datagrams",
    UdpTxDatagrams => "udp_tx_datagrams",
    UdpRxMessages => "udp_rx_messages",
    UdpTxMessages => "udp_tx_messages",
    UdpReceiveCalls => "udp_receive_calls",
    UdpSendCalls => "udp_send_calls",
    HandshakesInitiated => "handshakes_initiated",
    HandshakesCompleted => "handshakes_completed",
    HandshakesRejected => "handshakes_rejected",
    HandshakesCopied => "handshakes_copied",
    HandshakesParked => "handshakes_parked",
    CookiesSent => "cookies_sent",
    Rekeys => "rekeys",
    Sleeps => "sleeps",
    Roams => "roams",
    ProbesSent => "probes_sent",
    SizeProbesSent => "size_probes_sent",
    PathMtuRaised => "path_mtu_raised",
    PathMtuBlackHoles => "path_mtu_black_holes",
    PathFailovers => "path_failovers",
    PathReturns => "path_returns",
    UplinkFailures => "uplink_failures",
    PlainRxPackets => "plain_rx_packets",
    PlainTxPackets => "plain_tx_packets",
    RedirectedPackets => "redirected_packets",
    AgentMessagesSent => "agent_messages_sent",
    AgentMessagesReceived => "agent_messages_received",
    NeighbourAnswers => "neighbour_answers",
    HeldPacketsTotal => "held_packets_total",
    ResentDatagrams => "resent_datagrams",
    RetransmitKept => "retransmit_kept",
    RetransmitResent => "retransmit_resent",
    RetransmitDuplicates => "retransmit_duplicates",
    RetransmitOverflowed => "retransmit_overflowed",
    FragmentedPackets => "fragmented_packets",
    CongestionMarks => "congestion_marks",
    IcmpSent => "icmp_sent",
    OuterIcmpTooBig => "outer_icmp_too_big",
    OuterIcmpUnreachable => "outer_icmp_unreachable",
    OuterIcmpTimeExceeded => "outer_icmp_time_exceeded",
    OuterIcmpIgnored => "outer_icmp_ignored",
    EventsDropped => "events_dropped",
    RefusedSystemCalls => "refused_system_calls",
    DropReplay => "drop.replay",
    DropAuth => "drop.auth",
    DropSourceCheck => "drop.source_check",
    DropNoMapping => "drop.no_mapping",
    DropPolicy => "drop.policy",
    DropPolicyIn => "drop.policy_in",
    DropNotLocal => "drop.not_local",
    DropQueueFull => "drop.queue_full",
    DropNoSession => "drop.no_session",
    DropMalformed => "drop.malformed",
    DropPlaintext => "drop.plaintext",
    DropPlainTunnelled => "drop.plain_tunnelled",
    DropPlainRloc => "drop.plain_rloc",
    DropWrongInstance => "drop.wrong_instance",
    DropUnknownIndex => "drop.unknown_index",
    DropCongestion => "drop.congestion",
    DropTtl => "drop.ttl",
    DropTooBig => "drop.too_big",
    DropSendError => "drop.send_error",
    DropTunWriteError => "drop.tun_write_error",
    DropExpired => "drop.expired",
    DropNotOverlay => "drop.not_overlay",
    DropInterfaceAway => "drop.interface_away",
    DropAgentMessageRate => "drop.agent_message_rate",
    FallbackUdpGso => "fallback.udp_gso",
    FallbackUdpGro => "fallback.udp_gro",
    FallbackUso => "fallback.uso",
    FallbackTso => "fallback.tso",
    FallbackSocketBuffer => "fallback.socket_buffer",
    FallbackInitiationSocket => "fallback.initiation_socket",
    FallbackLandlock => "fallback.landlock",
    FallbackSeccomp => "fallback.seccomp",
    FallbackOuterFragmented => "fallback.outer_fragmented",
}

pub struct Stats {
    values: [u64; NAMES.len()],
}

impl Stats {
    pub fn new() -> Stats {
        Stats { values: [0; NAMES.len()] }
    }

    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.values[counter as usize] += n;
    }

    #[inline]
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.values.iter().copied())
    }

    #[cfg(test)]
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}
