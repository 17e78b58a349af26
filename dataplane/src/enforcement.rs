//! The policy on the way of a packet: what it denies is counted, and its local sender told. And how a new one comes
//! into force.

use crate::engine::Engine;
use crate::forwarding::Origin;
use crate::icmp::Problem;
use crate::log;
use crate::packet::Inner;
use crate::policy::{PreparedPolicy, Side};
use crate::stats::Counter;

impl Engine {
    /// `sync`: of the agent's full state that it belongs to.
    pub(crate) fn enforce(&mut self, prepared: PreparedPolicy, sync: u64) {
        let former = self.policy.enforce(prepared, sync, self.now);
        self.policy_preparation.free(former);
        log::info("policy", &[("version", &self.policy.version()), ("rules", &self.policy.rules())]);
    }

    /// The thread that prepares policies may be done with one.
    pub(crate) fn take_prepared_policy(&mut self) {
        let Some(done) = self.policy_preparation.finish() else { return };
        let result = done.result.map(|prepared| {
            self.enforce(prepared, done.sync);
            None
        });
        self.answer(Some(done.connection), done.id, result);
        if let Some(connection) = self.channel.connection() {
            connection.paused = false;
        }
        let failed = self.handle_requests().err();
        self.served(failed);
    }

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
