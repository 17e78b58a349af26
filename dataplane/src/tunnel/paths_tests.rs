//! Several locators and uplinks, on a virtual clock: what is left when, what is taken back, and what is not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::paths::order_locators;
use super::simulation::{Node, World};
use super::*;
use crate::prefix::Prefix;
use crate::time::millis;

#[test]
fn a_silent_path_is_left_within_300_ms_in_whichever_direction_it_is_silent() {
    for (name, cut) in [("there", vec![(A1, B1)]), ("back", vec![(B1, A1)]), ("both ways", vec![(A1, B1), (B1, A1)])] {
        for rtt in [1, 10, 50] {
            for (traffic, senders) in [("both", &[0, 1][..]), ("from a", &[0]), ("from b", &[1])] {
                // Somebody who only receives over a path that is whole in that direction loses nothing.
                if (name, traffic) == ("there", "from b") || (name, traffic) == ("back", "from a") {
                    continue;
                }
                let mut world = two_uplinks_of_b(rtt);
                world.talk(senders, millis(500));
                world.cut = cut.clone();
                let gap = world.longest_gap(senders, millis(1000));
                assert!(gap <= millis(300), "{name}, {rtt} ms, traffic {traffic}: {gap:?}");
            }
        }
    }
}

#[test]
fn who_has_other_locators_to_try_learns_from_the_questions_of_who_has_not_that_it_is_not_heard() {
    for rtt in [1, 10, 50] {
        let mut world = two_locators_of_b(rtt);
        world.talk(&[0, 1], millis(500));
        world.cut = vec![(A1, B1)];
        let gap = world.longest_gap(&[0, 1], millis(1000));
        assert!(gap <= millis(300), "{rtt} ms: {gap:?}");
        assert_eq!(world.failovers(), [1, 0]);
    }
}

#[test]
fn the_doubt_about_a_path_ends_with_the_session() {
    for after in (5..300).step_by(5) {
        let mut world = two_locators_of_b(50);
        world.talk(&[0, 1], millis(500));
        world.cut = vec![(A1, B1)];
        world.talk(&[0, 1], millis(after));
        // Another identity, as a copied VM is given: its sessions are gone.
        let identity = crate::handshake::Identity::new([3; 32], [9; 32], 7).unwrap();
        world.nodes[0].tunnel.configure(identity, 9);
        let (node, mut calls) = (&mut world.nodes[0].tunnel, 0);
        while node.next_timeout() < world.now + millis(500) {
            node.handle_timeout(node.next_timeout().max(world.now));
            while node.poll().is_some() {}
            calls += 1;
            assert!(calls < 1000, "{after} ms: timers do not come to rest");
        }
    }
}

#[test]
fn two_hosts_do_not_make_each_other_ask_without_end() {
    for rtt in [1, 10, 50, 200] {
        for away in (60..400).step_by(20) {
            let mut world = two_uplinks_of_b(rtt);
            world.talk(&[0, 1], millis(500));
            world.cut = both_ways(&[(A1, B1), (A1, B2)]);
            world.talk(&[0, 1], millis(away));
            world.cut.clear();
            world.talk(&[0, 1], millis(500 + 4 * rtt));
            let before = world.probes();
            world.talk(&[0, 1], seconds(3));
            let asked = world.probes() - before;
            assert!(asked <= 12, "{rtt} ms, silent for {away} ms: {asked} probes in 3 s");
        }
    }
}

#[test]
fn two_hosts_that_follow_each_other_to_two_paths_meet_on_one() {
    for rtt in [1, 10, 50, 200] {
        let mut world = two_uplinks_of_b(rtt);
        world.nodes[0].aliases.push(SocketAddr::new(A2, 4341));
        world.nodes[0].uplinks = vec![(1, A1), (2, A2)];
        world.nodes[0].tunnel.set_uplinks(vec![route(1, A1, "0.0.0.0/0"), route(2, A2, "0.0.0.0/0")]);
        world.tell_locators(0, &[A1, A2]);
        world.talk(&[0, 1], seconds(1));
        // Each begins to send by another one than the other.
        for (node, link, local, remote) in [(0, 1, A1, B1), (1, 2, B2, A2)] {
            let path = Path { remote: SocketAddr::new(remote, 4341), local: Some(local), link };
            let tunnel = &mut world.nodes[node].tunnel;
            let id = tunnel.ids()[0];
            tunnel.peer_mut(id).unwrap().endpoint = Some(path);
        }
        world.talk(&[0, 1], seconds(3));
        let turns = [0, 1].map(|node| world.nodes[node].moves.len());
        world.talk(&[0, 1], seconds(3));
        let later = [0, 1].map(|node| world.nodes[node].moves.len());
        assert_eq!(turns, later, "{rtt} ms: still going round");
        assert!(turns.iter().all(|turns| *turns <= 20), "{rtt} ms: {turns:?}");
        let [a, b] = [0, 1].map(|node| world.peer(node).endpoint.unwrap());
        assert_eq!((a.local, b.local), (Some(b.remote.ip()), Some(a.remote.ip())), "{rtt} ms");
    }
}

#[test]
fn lost_questions_do_not_keep_a_silent_path() {
    for lost in 1..=3 {
        let mut world = two_locators_of_b(50);
        world.talk(&[0, 1], millis(500));
        world.cut = vec![(A1, B1), (B1, A1)];
        world.loses_first(lost, Some(Kind::Control));
        let gap = world.longest_gap(&[0, 1], millis(1000));
        assert!(gap <= millis(300), "{lost} lost: {gap:?}");
    }
}

#[test]
fn what_a_silent_path_has_lost_arrives_once() {
    let mut world = two_locators_of_b(10);
    world.talk(&[0, 1], millis(500));
    world.cut = vec![(A1, B1), (B1, A1)];
    world.talk(&[0, 1], millis(600));
    world.run(millis(300));
    for (from, to) in [(0, 1), (1, 0)] {
        let numbers = &mut world.nodes[to].numbers;
        numbers.sort_unstable();
        let sent = world.nodes[from].sent;
        assert!(world.nodes[to].numbers.iter().copied().eq(0..sent), "from {from}");
    }
}

#[test]
fn one_way_traffic_and_slow_answers_move_nothing() {
    for rtt in [1, 50, 200] {
        let mut world = two_locators_of_b(rtt);
        world.talk(&[0], seconds(20));
        assert_eq!(world.failovers(), [0, 0], "{rtt} ms");
        assert!(world.nodes.iter().all(|node| node.moves.is_empty()), "{rtt} ms");
    }
}

#[test]
fn a_path_that_becomes_slow_is_not_taken_for_dead() {
    let mut world = two_locators_of_b(10);
    for latency in [5, 10, 20, 40, 80, 120] {
        world.latency = millis(latency);
        world.talk(&[0], millis(600));
    }
    assert_eq!(world.failovers(), [0, 0]);
}

#[test]
fn without_traffic_nothing_is_asked() {
    let mut world = two_locators_of_b(10);
    world.talk(&[0, 1], millis(500));
    world.cut = vec![(A1, B1), (B1, A1)];
    world.talk(&[0, 1], seconds(1));
    world.run(seconds(25));
    let before = world.probes();
    world.run(seconds(60));
    assert_eq!(world.probes(), before);
}

#[test]
fn the_preferred_locator_is_taken_back_when_it_has_answered_for_a_while() {
    let mut world = two_locators_of_b(10);
    world.talk(&[0, 1], millis(500));
    world.cut = vec![(A1, B1), (B1, A1)];
    world.talk(&[0, 1], seconds(3));
    assert_eq!(world.endpoint(0).ip(), B2);
    world.cut.clear();
    world.talk(&[0, 1], seconds(4));
    assert_eq!(world.endpoint(0).ip(), B2, "too early");
    let gap = world.longest_gap(&[0, 1], seconds(6));
    assert_eq!(world.endpoint(0).ip(), B1);
    assert!(gap <= millis(30), "the return was noticed: {gap:?}");
}

#[test]
fn a_path_that_comes_and_goes_is_used_less_and_less() {
    let mut world = two_locators_of_b(10);
    for _ in 0..60 {
        world.cut.clear();
        world.talk(&[0, 1], seconds(12));
        world.cut = vec![(A1, B1), (B1, A1)];
        world.talk(&[0, 1], seconds(3));
    }
    let [from_a, from_b] = world.failovers();
    assert!(from_a + from_b <= 6, "{from_a} + {from_b} failovers in 15 minutes");
}

#[test]
fn a_dead_uplink_of_our_own_is_left_and_told_and_taken_back() {
    let mut world = two_uplinks_of_a(10);
    world.talk(&[0, 1], millis(500));
    assert_eq!(world.nodes[1].moves.last().copied(), None);
    world.cut = both_ways(&[(A1, B1), (A1, B2)]);
    let gap = world.longest_gap(&[0, 1], millis(1000));
    assert!(gap <= millis(300), "{gap:?}");
    assert_eq!(world.endpoint(1).ip(), A2);
    assert!(world.nodes[0].tunnel.uplinks.is_down(1, A1));
    assert_eq!(world.nodes[0].uplink_changes, 1);
    world.talk(&[0, 1], seconds(20));
    assert_eq!(world.nodes[0].uplink_changes, 1);
    world.cut.clear();
    world.talk(&[0, 1], seconds(8));
    assert!(!world.nodes[0].tunnel.uplinks.is_down(1, A1));
    assert_eq!(world.nodes[0].uplink_changes, 2);
}

#[test]
fn a_dead_uplink_is_taken_back_also_when_the_round_trip_is_shorter_than_timers_are_late() {
    let mut world = two_uplinks_of_a(10);
    world.talk(&[0, 1], millis(500));
    world.cut = both_ways(&[(A1, B1), (A1, B2)]);
    world.talk(&[0, 1], seconds(1));
    assert!(world.nodes[0].tunnel.uplinks.is_down(1, A1));
    world.cut.clear();
    world.latency = Duration::ZERO;
    world.talk(&[0, 1], seconds(8));
    assert!(!world.nodes[0].tunnel.uplinks.is_down(1, A1));
}

#[test]
fn one_way_traffic_out_of_a_dead_uplink_takes_another_and_comes_back() {
    let mut world = two_uplinks_of_a(10);
    world.talk(&[0], millis(500));
    world.cut = vec![(A1, B1)];
    let gap = world.longest_gap(&[0], millis(1000));
    assert!(gap <= millis(300), "{gap:?}");
    world.cut.clear();
    world.talk(&[0], seconds(45));
    assert_eq!(world.endpoint(1).ip(), A1);
    assert_eq!(world.failovers(), [1, 0]);
}

#[test]
fn a_host_that_only_hears_is_reached_by_an_uplink_that_it_holds_for_dead() {
    let mut world = two_uplinks_of_b(10);
    world.talk(&[0, 1], millis(500));
    world.talk(&[1], seconds(1));
    world.cut = both_ways(&[(A1, B1)]);
    world.talk(&[1], seconds(3));
    assert!(world.nodes[1].tunnel.uplinks.is_down(1, B1));
    // It works again, which is not proven yet, and so is registered as the last resort.
    world.tell_locators(1, &[B2, B1]);
    world.cut = both_ways(&[(A1, B2)]);
    let gap = world.longest_gap(&[0], millis(3000));
    assert!(gap <= millis(300), "{gap:?}");
    assert!(world.nodes[1].tunnel.uplinks.is_down(1, B1));
}

#[test]
fn an_uplink_that_a_peer_left_first_is_found_dead_too() {
    for cut in [both_ways(&[(A1, B1)]), vec![(B1, A1)]] {
        let mut world = two_uplinks_of_a(10);
        world.talk(&[0, 1], millis(500));
        // A has nothing to say, so it does not miss an answer.
        world.talk(&[1], seconds(12));
        world.cut = cut.clone();
        world.talk(&[1], seconds(2));
        assert_eq!(world.endpoint(1).ip(), A2, "{cut:?}");
        assert!(world.nodes[0].tunnel.uplinks.is_down(1, A1), "{cut:?}");
        assert_eq!(world.nodes[0].uplink_changes, 1);
        world.cut.clear();
        world.talk(&[0, 1], seconds(8));
        assert!(!world.nodes[0].tunnel.uplinks.is_down(1, A1), "{cut:?}");
    }
}

#[test]
fn an_uplink_that_a_peer_left_for_another_locator_is_not_condemned() {
    for (rtt, lost) in [(1, 0), (10, 2), (300, 0), (900, 0)] {
        let mut world = two_uplinks_of_a(rtt);
        world.tell_locators(0, &[A2, A1]);
        world.talk(&[0, 1], millis(500));
        world.loses_first(lost, Some(Kind::Control));
        world.talk(&[1], seconds(40));
        assert_eq!(world.endpoint(1).ip(), A2, "{rtt} ms");
        assert_eq!(world.nodes[0].uplink_changes, 0, "{rtt} ms, {lost} lost");
    }
}

#[test]
fn an_uplink_is_not_condemned_when_the_only_peer_behind_it_moves_elsewhere() {
    let mut world = two_locators_of_b(10);
    world.tell_locators(1, &[B1]);
    world.nodes[0].aliases.push(SocketAddr::new(A2, 4341));
    world.nodes[0].uplinks = vec![(1, A1), (2, A2)];
    world.nodes[0].tunnel.set_uplinks(vec![route(1, A1, "192.0.2.2/32"), route(2, A2, "0.0.0.0/0")]);
    world.talk(&[0, 1], millis(500));
    assert_eq!(world.endpoint(1).ip(), A1);
    // B has another address, which only the other uplink leads to.
    world.nodes[1].address = SocketAddr::new(B2, 4341);
    world.nodes[1].aliases.clear();
    world.tell_locators(1, &[B2]);
    world.tell_locators(0, &[A2]);
    world.talk(&[1], seconds(3));
    assert_eq!(world.endpoint(0).ip(), B2);
    assert_eq!(world.nodes[0].uplink_changes, 0);
    assert_eq!(world.count(0, Counter::UplinkFailures), 0);
}

#[test]
fn an_uplink_by_which_somebody_talks_is_not_condemned_because_others_are_gone() {
    let mut world = two_uplinks_of_a(10);
    let own = world.nodes[0].key;
    let locators = |all: &[IpAddr]| -> Vec<Locator> {
        let all = all.iter().zip(1..);
        all.map(|(a, priority)| Locator { address: SocketAddr::new(*a, 4341), priority, weight: 1 }).collect()
    };
    for n in 2..8 {
        world.nodes.push(Node::new(n, 1));
        let (key, address, now) = (world.nodes[n].key, world.nodes[n].address, world.now);
        world.nodes[0].tunnel.set_peer(key, locators(&[address.ip()]), 0, now);
        world.nodes[n].tunnel.set_peer(own, locators(&[A1, A2]), 0, now);
        world.send(n, 0);
        world.run(millis(1000));
        world.send(n, 0);
        world.run(millis(100));
    }
    // Five who would be asked are gone, one goes on by the uplink, and one prefers the other.
    world.dead.extend(world.nodes[1..6].iter().map(|node| node.address));
    let now = world.now;
    world.nodes[7].tunnel.set_peer(own, locators(&[A2, A1]), 0, now);
    for _ in 0..4000 {
        for (from, to) in [(6, 0), (0, 6), (7, 0)] {
            world.send(from, to);
        }
        world.run(millis(5));
    }
    let left = world.nodes[0].tunnel.find(&world.nodes[7].key).and_then(|id| world.nodes[0].tunnel.peer(id));
    assert_eq!(left.unwrap().endpoint.unwrap().link, 2);
    assert_eq!(world.count(0, Counter::UplinkFailures), 0);
}

#[test]
fn questions_come_to_rest_whatever_happened() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..200 {
        let rtt = [1, 10, 50, 200][random(4) as usize];
        let mut world = two_uplinks_of_b(rtt);
        world.nodes[0].aliases.push(SocketAddr::new(A2, 4341));
        world.nodes[0].uplinks = vec![(1, A1), (2, A2)];
        world.nodes[0].tunnel.set_uplinks(vec![route(1, A1, "0.0.0.0/0"), route(2, A2, "0.0.0.0/0")]);
        world.tell_locators(0, if random(2) == 0 { &[A1, A2] } else { &[A2, A1] });
        world.talk(&[0, 1], millis(300));
        let senders = [&[0, 1][..], &[0], &[1]][random(3) as usize];
        for _ in 0..20 {
            let pairs = [A1, A2].into_iter().flat_map(|a| [B1, B2].map(|b| (a, b)));
            world.cut = pairs.flat_map(|(a, b)| [(a, b), (b, a)]).filter(|_| random(3) == 0).collect();
            if random(4) == 0 {
                let now = world.now;
                world.nodes[random(2) as usize].tunnel.locators_changed(now);
            }
            let (before, time) = (world.probes(), 50 + random(900));
            world.talk(senders, millis(time));
            let asked = (world.probes() - before) * 1000 / time.max(500);
            assert!(asked <= 400, "round {round}: {asked} probes a second while paths come and go");
        }
        world.cut.clear();
        world.talk(&[0, 1], seconds(8));
        let (before, arrived) = (world.probes(), [0, 1].map(|node| world.nodes[node].data));
        world.talk(&[0, 1], seconds(5));
        let asked = (world.probes() - before) / 5;
        assert!(asked <= 12, "round {round}, {rtt} ms: {asked} probes a second when all paths are whole");
        for (node, before) in arrived.into_iter().enumerate() {
            assert!(world.nodes[node].data - before >= 990, "round {round}: {node} is not reached");
        }
    }
}

#[test]
fn one_peer_that_is_gone_does_not_condemn_the_uplink() {
    let mut world = two_uplinks_of_a(10);
    world.talk(&[0, 1], millis(500));
    world.dead.push(world.nodes[1].address);
    world.talk(&[0], seconds(3));
    assert!(!world.nodes[0].tunnel.uplinks.is_down(1, A1));
    assert_eq!(world.nodes[0].uplink_changes, 0);
}

#[test]
fn peers_spread_over_locators_of_equal_priority_as_the_weights_say() {
    let locator = |last: u8, priority, weight| Locator {
        address: SocketAddr::new([192, 0, 2, last].into(), 4341),
        priority,
        weight,
    };
    let mut begins = [0u32; 5];
    for n in 0..2000u32 {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let mut locators = vec![locator(4, 2, 100), locator(3, 1, 0), locator(1, 1, 75), locator(2, 1, 25)];
        order_locators(&mut locators, &key, &[9; 32]);
        begins[usize::from(match locators[0].address.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        })] += 1;
        assert_eq!(locators[2..], [locator(3, 1, 0), locator(4, 2, 100)]);
    }
    assert!((1400..1600).contains(&begins[1]), "{begins:?}");
    assert_eq!(begins[1] + begins[2], 2000);
}

#[test]
fn a_link_that_flaps_is_followed_without_a_storm() {
    let mut world = two_locators_of_b(10);
    world.talk(&[0, 1], millis(500));
    let before = world.probes();
    for _ in 0..200 {
        let now = world.now;
        world.nodes[0].tunnel.locators_changed(now);
        world.run(millis(5));
    }
    let asked = world.probes() - before;
    assert!(asked <= 200, "{asked} probes in a second");
    world.nodes[0].address = SocketAddr::new("192.0.2.77".parse().unwrap(), 4341);
    let now = world.now;
    world.nodes[0].tunnel.locators_changed(now);
    world.run(millis(60));
    assert_eq!(world.endpoint(1).ip(), IpAddr::from([192, 0, 2, 77]));
}

#[test]
fn a_locator_of_the_other_family_is_taken_at_once_when_the_first_has_no_route() {
    let mut world = two_locators_of_b(10);
    let six: IpAddr = "2001:db8::2".parse().unwrap();
    world.nodes[1].aliases.push(SocketAddr::new(six, 4341));
    world.tell_locators(1, &[B1, six]);
    world.talk(&[0, 1], millis(500));
    // Only IPv6 is left.
    let own: IpAddr = "2001:db8:9::9".parse().unwrap();
    world.nodes[0].address = SocketAddr::new(own, 4341);
    world.nodes[0].tunnel.set_uplinks(vec![route(1, own, "::/0")]);
    let now = world.now;
    world.nodes[0].tunnel.locators_changed(now);
    world.run(millis(6));
    assert_eq!(world.endpoint(1).ip(), own);
    world.run(millis(6));
    assert_eq!(world.nodes[0].handovers, [millis(10)]);
}

#[test]
fn two_hosts_with_both_families_do_not_pull_each_other_to_and_fro() {
    for n in 1..=16u16 {
        for opposed in [false, true] {
            let mut world = two_locators_of_b(10);
            let six = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, n, host]);
            for (node, four) in [(0, A1), (1, B1)] {
                world.nodes[node].aliases = vec![SocketAddr::new(six(node as u16), 4341)];
                let (key, now) = (world.nodes[node].key, world.now);
                let priorities = [1, if opposed { 2 } else { 1 }];
                let families = if node == 0 { [four, six(0)] } else { [six(1), four] };
                let locators = families.iter().zip(priorities);
                let locators =
                    locators.map(|(a, priority)| Locator { address: SocketAddr::new(*a, 4341), priority, weight: 100 });
                world.nodes[1 - node].tunnel.set_peer(key, locators.collect(), 0, now);
            }
            world.talk(&[0, 1], seconds(300));
            let moves = world.nodes.iter().map(|node| node.moves.len()).max().unwrap();
            let most = if opposed { 24 } else { 1 };
            assert!(moves <= most, "{n}, opposed {opposed}: {moves} moves");
        }
    }
}

#[test]
fn both_sides_roam_at_once_and_meet_by_their_new_locators() {
    let mut world = two_locators_of_b(10);
    world.talk(&[0, 1], millis(500));
    let (a, b) = (IpAddr::from([192, 0, 2, 77]), IpAddr::from([192, 0, 2, 78]));
    for (node, address) in [(0, a), (1, b)] {
        world.nodes[node].address = SocketAddr::new(address, 4341);
        world.nodes[node].aliases.clear();
        let now = world.now;
        world.nodes[node].tunnel.locators_changed(now);
    }
    world.talk(&[0, 1], millis(100));
    world.tell_locators(0, &[a]);
    world.tell_locators(1, &[b]);
    world.run(millis(12));
    assert_eq!((world.endpoint(0).ip(), world.endpoint(1).ip()), (b, a));
    world.run(millis(300));
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(world.nodes[to].data, world.nodes[from].sent, "from {from}");
    }
}

#[test]
fn a_change_that_leads_no_other_way_to_a_peer_is_not_told_to_it() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    let to_peers = route(1, A1, "0.0.0.0/0");
    let elsewhere = route(2, A2, "203.0.113.0/24");
    let mut probes_after = |routes: &[Uplink]| {
        world.run(millis(600));
        let before = world.count(0, Counter::ProbesSent);
        let now = world.now;
        world.nodes[0].tunnel.set_uplinks(routes.to_vec());
        world.nodes[0].tunnel.locators_changed(now);
        world.count(0, Counter::ProbesSent) - before
    };
    assert_eq!(probes_after(std::slice::from_ref(&to_peers)), 1);
    assert_eq!(probes_after(&[elsewhere.clone(), to_peers.clone()]), 0, "another route, which does not concern it");
    let gateway = Uplink { gateway: Some(B2), ..to_peers.clone() };
    assert_eq!(probes_after(&[elsewhere.clone(), gateway.clone()]), 1, "another gateway");
    let flapped = Uplink { version: 2, ..gateway.clone() };
    assert_eq!(probes_after(&[elsewhere.clone(), flapped.clone()]), 1, "its cable was away");
    assert_eq!(probes_after(&[elsewhere.clone(), flapped]), 0);
    world.run(millis(600));
    let before = world.count(0, Counter::ProbesSent);
    let now = world.now;
    world.nodes[0].tunnel.resumed(now);
    assert_eq!(world.count(0, Counter::ProbesSent), before + 1, "the host was suspended");
}

#[test]
fn who_has_not_heard_of_a_change_hears_of_the_next_whichever_it_is() {
    let (to_peers, elsewhere) = (route(1, A1, "0.0.0.0/0"), route(2, A2, "203.0.113.0/24"));
    for away in [seconds(7), seconds(120)] {
        let mut world = World::pair();
        world.send(0, 1);
        world.run(millis(30));
        world.loses(|_| true);
        let new = "192.0.2.99:4341".parse().unwrap();
        world.nodes[0].address = new;
        let change = |world: &mut World, routes: &[&Uplink], then: Duration| {
            let now = world.now;
            world.nodes[0].tunnel.set_uplinks(routes.iter().copied().cloned().collect());
            world.nodes[0].tunnel.locators_changed(now);
            world.run(then);
        };
        change(&mut world, &[&to_peers], away);
        world.loses(|_| false);
        change(&mut world, &[&elsewhere, &to_peers], millis(30));
        assert_eq!(world.endpoint(1), new, "after {away:?}");
    }
}

const A1: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const A2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const B1: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const B2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));

fn both_ways(pairs: &[(IpAddr, IpAddr)]) -> Vec<(IpAddr, IpAddr)> {
    pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]).collect()
}

fn route(link: u32, address: IpAddr, destination: &str) -> Uplink {
    Uplink { link, address, destination: destination.parse::<Prefix>().unwrap(), gateway: None, up: true, version: 1 }
}

/// B has a second locator, which is not preferred.
fn two_locators_of_b(rtt: u64) -> World {
    let mut world = World::pair();
    world.latency = Duration::from_micros(rtt * 500);
    world.nodes[1].aliases.push(SocketAddr::new(B2, 4341));
    world.tell_locators(1, &[B1, B2]);
    world.send(0, 1);
    world.run(millis(4 * rtt));
    world
}

/// The same with an uplink of its own for each.
fn two_uplinks_of_b(rtt: u64) -> World {
    let mut world = two_locators_of_b(rtt);
    world.nodes[1].uplinks = vec![(1, B1), (2, B2)];
    world.nodes[1].tunnel.set_uplinks(vec![route(1, B1, "0.0.0.0/0"), route(2, B2, "0.0.0.0/0")]);
    world
}

/// A has a second uplink, with a default route that the kernel does not prefer.
fn two_uplinks_of_a(rtt: u64) -> World {
    let mut world = two_locators_of_b(rtt);
    world.tell_locators(1, &[B1]);
    world.nodes[0].aliases.push(SocketAddr::new(A2, 4341));
    world.nodes[0].uplinks = vec![(1, A1), (2, A2)];
    world.nodes[0].tunnel.set_uplinks(vec![route(1, A1, "0.0.0.0/0"), route(2, A2, "0.0.0.0/0")]);
    world.tell_locators(0, &[A1, A2]);
    world.talk(&[0, 1], millis(100));
    world
}

impl World {
    fn tell_locators(&mut self, of: usize, addresses: &[IpAddr]) {
        let locators = addresses.iter().zip(1..);
        let locators =
            locators.map(|(a, priority)| Locator { address: SocketAddr::new(*a, 4341), priority, weight: 1 });
        let (key, now) = (self.nodes[of].key, self.now);
        self.nodes[1 - of].tunnel.set_peer(key, locators.collect(), 0, now);
    }

    /// A packet every 5 ms from each of the senders.
    fn talk(&mut self, senders: &[usize], duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            for &from in senders {
                self.send(from, 1 - from);
            }
            self.run(millis(5));
        }
    }

    /// While they talk, the longest time in which nothing came from one of them.
    fn longest_gap(&mut self, senders: &[usize], duration: Duration) -> Duration {
        let end = self.now + duration;
        let mut heard = [(0, self.now); 2];
        for (node, entry) in heard.iter_mut().enumerate() {
            entry.0 = self.nodes[node].data;
        }
        let mut longest = Duration::ZERO;
        while self.now < end {
            self.talk(senders, millis(5));
            for &from in senders {
                let (count, at) = &mut heard[1 - from];
                let data = self.nodes[1 - from].data;
                longest = longest.max(self.now.since(*at));
                if data > *count {
                    (*count, *at) = (data, self.now);
                }
            }
        }
        longest
    }

    fn failovers(&self) -> [u64; 2] {
        [0, 1].map(|node| self.count(node, Counter::PathFailovers))
    }

    fn probes(&self) -> u64 {
        self.count(0, Counter::ProbesSent) + self.count(1, Counter::ProbesSent)
    }
}
