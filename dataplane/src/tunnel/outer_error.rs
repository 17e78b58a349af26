//! What is made of ICMP errors about the outer path: hints. Anybody may send one, so it has to quote a packet that was
//! sent lately, and even then it only makes a probe go out at once; nothing is torn down or believed.

use super::Tunnel;
use crate::outer_error::{OuterError, OuterProblem};
use crate::peer::{PeerId, Silence};
use crate::session::Session;
use crate::stats::Counter;
use crate::time::Time;
use crate::wire::Header;

impl Tunnel {
    pub fn handle_outer_error(&mut self, error: &OuterError, now: Time) {
        let Some(id) = self.quoted_peer(error) else {
            return self.stats.count(Counter::OuterIcmpIgnored);
        };
        match error.problem {
            OuterProblem::TooBig { mtu } => {
                self.stats.count(Counter::OuterIcmpTooBig);
                self.size_hint(id, mtu.min(u32::from(u16::MAX)) as u16, now);
            }
            OuterProblem::Unreachable => {
                self.stats.count(Counter::OuterIcmpUnreachable);
                self.suspect(id, now);
            }
            OuterProblem::TimeExceeded => self.stats.count(Counter::OuterIcmpTimeExceeded),
        }
    }

    /// The peer that the quoted packet was sent to, at its present locator.
    fn quoted_peer(&self, error: &OuterError) -> Option<PeerId> {
        let quoted = error.quoted?;
        let index = Header::quoted_index(&quoted)?;
        let [.., c0, c1, c2, c3, c4, c5, c6, c7] = quoted;
        let counter = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        let sent_lately = |session: &Session| {
            session.remote_index == index
                && session.next_counter().checked_sub(counter).is_some_and(|ago| (1..=LATELY).contains(&ago))
        };
        self.peers()
            .filter(|(_, peer)| peer.endpoint.is_some_and(|endpoint| endpoint.remote == error.to))
            .find(|(_, peer)| [&peer.current, &peer.previous].into_iter().flatten().any(sent_lately))
            .map(|(id, _)| id)
    }

    /// The path may be dead: asks at once, as if the silence had lasted.
    fn suspect(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        match peer.silence.as_mut() {
            Some(silence) if silence.step == 0 => silence.next = now,
            Some(_) => return,
            None => peer.silence = Some(Silence { since: now, step: 0, next: now }),
        }
        self.reschedule(id);
    }
}

/// As many packets as a fast path has under way.
const LATELY: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{millis, seconds};
    use crate::tunnel::simulation::{World, kind};
    use crate::wire::{DATA_HEADER, Kind};

    fn world() -> World {
        let mut world = World::pair();
        world.interface_mtu = Some(1500);
        world.send(0, 1);
        world.run(millis(50));
        world.send_sized(0, 1, 1400);
        world.run(seconds(1));
        assert_eq!(world.peer(0).path_mtu.size(), 1480);
        world
    }

    /// About the last data packet of the first host.
    fn error(world: &World, problem: OuterProblem) -> OuterError {
        let packet = world.log.iter().rfind(|p| kind(&p.bytes) == Some(Kind::Data)).unwrap();
        let quoted = packet.bytes.first_chunk::<DATA_HEADER>().copied();
        OuterError { to: packet.to, problem, quoted }
    }

    // Attack: an ICMP "packet too big" that quotes a captured packet | 1 | counted and probed; the path MTU stays
    // while the path takes more
    #[test]
    fn attack_forged_icmp_packet_too_big() {
        let mut world = world();
        let error = error(&world, OuterProblem::TooBig { mtu: 1400 });
        let now = world.now;
        world.nodes[0].tunnel.handle_outer_error(&error, now);
        world.run(seconds(1));
        assert_eq!(world.peer(0).path_mtu.size(), 1480);
        world.path_mtu = 1400;
        let now = world.now;
        world.nodes[0].tunnel.handle_outer_error(&error, now);
        world.run(millis(100));
        assert_eq!(world.peer(0).path_mtu.size(), 1400);
        assert_eq!(world.count(0, Counter::OuterIcmpTooBig), 2);
    }

    // Attack: an ICMP "unreachable" that quotes a captured packet | 100 | one probe; the session stays up
    #[test]
    fn attack_forged_icmp_unreachable() {
        let mut world = world();
        let before = world.count(0, Counter::ProbesSent);
        let error = error(&world, OuterProblem::Unreachable);
        for _ in 0..100 {
            let now = world.now;
            world.nodes[0].tunnel.handle_outer_error(&error, now);
        }
        world.run(millis(1));
        assert_eq!(world.count(0, Counter::ProbesSent), before + 1);
        world.run(seconds(1));
        assert_eq!(world.count(0, Counter::ProbesSent), before + 1);
        assert!(world.peer(0).is_up(world.now));
    }

    // Attack: ICMP errors that quote another session, a counter never used, another destination, or too little | 4 |
    // ignored and counted
    #[test]
    fn attack_icmp_that_quotes_no_packet_of_ours() {
        let mut world = world();
        let right = error(&world, OuterProblem::Unreachable);
        let mut quoted = right.quoted.unwrap();
        quoted[3] ^= 1;
        let another_session = OuterError { quoted: Some(quoted), ..right };
        let mut quoted = right.quoted.unwrap();
        quoted[8] = 1;
        let never_sent = OuterError { quoted: Some(quoted), ..right };
        let elsewhere = OuterError { to: "192.0.2.77:4341".parse().unwrap(), ..right };
        let short = OuterError { quoted: None, ..right };
        for wrong in [another_session, never_sent, elsewhere, short] {
            let now = world.now;
            world.nodes[0].tunnel.handle_outer_error(&wrong, now);
        }
        assert_eq!(world.count(0, Counter::OuterIcmpIgnored), 4);
        assert_eq!(world.count(0, Counter::OuterIcmpUnreachable), 0);
    }
}
