//! The policy on the way of a packet: what it denies is counted, and its local sender told.

use crate::engine::Engine;
use crate::forwarding::Origin;
use crate::icmp::Problem;
use crate::packet::Inner;
use crate::policy::Side;
use crate::stats::Counter;

impl Engine {
    /// Of a packet that this host sends.
    #[inline]
    pub(crate) fn may_send(&mut self, packet: &[u8], inner: &Inner) -> bool {
        !self.policy.is_enforced() || self.judge(Side::Sending, packet, inner)
    }

    /// Of a packet for this host. Its sender is not told: its own side should have done so.
    #[inline]
    pub(crate) fn may_receive(&mut self, from: Origin, packet: &[u8], inner: &Inner) -> bool {
        !self.policy.is_enforced() || self.judge(Side::Receiving { from }, packet, inner)
    }

    fn judge(&mut self, side: Side, packet: &[u8], inner: &Inner) -> bool {
        let allowed = self.policy.allows(side, packet, inner, &self.table, self.now);
        if !allowed {
            match side {
                Side::Sending => {
                    self.tunnel.stats.count(Counter::DropPolicy);
                    self.explain_packet(packet, inner, Problem::Prohibited);
                }
                Side::Receiving { .. } => self.tunnel.stats.count(Counter::DropPolicyIn),
            }
        }
        allowed
    }
}
