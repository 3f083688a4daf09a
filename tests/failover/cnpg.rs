//! What CloudNativePG does to change a primary, or to restart it, in the order in which it does it.
//!
//! The first server is the primary at the beginning, and the second one at the end.

use std::time::Instant;

use super::{
    announced::{Label, Lease, Phase, Target},
    catalogue::Version,
    scene::Scene,
    support::Stop,
};

pub(super) const OLD: usize = 0;
pub(super) const NEW: usize = 1;

/// `kubectl cnpg promote`, a drained node, an update by switchover.
pub(super) fn planned(scene: &mut Scene, version: Version) {
    give_up(scene, version);
    take_over(scene, version, Leaving::InOrder);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    old_one_returns(scene);
}

/// The primary's processes are gone, and its container with them.
pub(super) fn crash(scene: &mut Scene, version: Version) {
    scene.rig.kill(OLD);
    fail_over(scene, version);
    old_one_returns(scene);
}

/// The primary's node is gone: nothing answers, and nobody says so for a while.
pub(super) fn node_loss(scene: &mut Scene, version: Version) {
    scene.rig.go_silent();
    scene.pause(scene.pace.node_grace);
    fail_over(scene, version);
    scene.pause(scene.pace.node_away);
    // It could reach neither the API server nor its peers, and has ended itself.
    scene.rig.kill(OLD);
    scene.rig.come_back();
    old_one_returns(scene);
}

/// The primary is restarted where it is, which is what a change of its settings takes.
pub(super) fn restart_in_place(scene: &mut Scene, _: Version) {
    scene.say(|cluster| cluster.phase = Phase::RestartInPlace);
    scene.pause(scene.pace.notice);
    scene.rig.checkpoint(OLD);
    let begun = Instant::now();
    scene.rig.begin_stop(OLD, Stop::Smart);
    scene.rig.wait_for_end(OLD, scene.pace.smart_shutdown);
    scene.shutdown_took(begun.elapsed());
    scene.rig.stop(OLD, Stop::Fast);
    scene.say(|cluster| cluster.pods[OLD].is_ready = false);
    scene.expect_writes_on(OLD);
    scene.rig.restart(OLD);
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = true;
        cluster.phase = Phase::Healthy;
    });
}

/// The primary's pod is deleted: its clients may stay for a while, and nobody is promoted before they have gone.
pub(super) fn pod_deleted(scene: &mut Scene, version: Version) {
    scene.say(|cluster| cluster.pods[OLD].is_terminating = true);
    scene.rig.checkpoint(OLD);
    let begun = Instant::now();
    scene.rig.begin_stop(OLD, Stop::Smart);
    scene.say(|cluster| {
        cluster.phase = Phase::FailingOver;
        cluster.target = Target::Pending;
        if version.relabels_first() {
            cluster.pods[OLD].label = Label::Unhealthy;
        }
    });
    scene.expect_writes_on(NEW);
    scene.rig.wait_for_end(OLD, scene.pace.smart_shutdown);
    scene.shutdown_took(begun.elapsed());
    scene.rig.stop(OLD, Stop::Fast);
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = false;
        if version.has_lease() {
            cluster.lease = Lease::Released;
        }
    });
    choose(scene, version);
    take_over(scene, version, Leaving::InOrder);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    scene.say(|cluster| cluster.pods[OLD].is_terminating = false);
    old_one_returns(scene);
}

/// How the old primary has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Its instance manager has let go of the lease.
    InOrder,
    Suddenly,
}

/// The first part of a switchover, up to the end of the old primary.
pub(super) fn give_up(scene: &mut Scene, version: Version) {
    scene.say(|cluster| {
        cluster.phase = Phase::Switchover;
        cluster.target = Target::Pod(NEW);
    });
    scene.note("the new primary is the target");
    scene.pause(scene.pace.notice);
    if version.relabels_first() {
        scene.say(|cluster| cluster.pods[OLD].label = Label::Unhealthy);
    }
    // It still serves.
    scene.rig.checkpoint(OLD);
    scene.expect_writes_on(NEW);
    scene.rig.stop(OLD, Stop::Fast);
    scene.note("the old primary has stopped");
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = false;
        if version.has_lease() {
            cluster.lease = Lease::Released;
        }
    });
}

/// The operator's part when a primary is gone, up to the new labels.
fn fail_over(scene: &mut Scene, version: Version) {
    scene.expect_writes_on(NEW);
    scene.say(|cluster| cluster.pods[OLD].is_ready = false);
    scene.pause(scene.pace.notice);
    scene.say(|cluster| {
        cluster.phase = Phase::FailingOver;
        cluster.target = Target::Pending;
        if version.relabels_first() {
            cluster.pods[OLD].label = Label::Unhealthy;
        }
    });
    choose(scene, version);
    take_over(scene, version, Leaving::Suddenly);
    scene.pause(scene.pace.relabel);
    relabel(scene);
}

/// The operator chooses the next primary, when no standby receives anything any more.
pub(super) fn choose(scene: &mut Scene, version: Version) {
    wait_for_receiver(scene, version);
    scene.say(|cluster| cluster.target = Target::Pod(NEW));
    scene.pause(scene.pace.notice);
}

/// What the new primary's instance manager does.
pub(super) fn take_over(scene: &mut Scene, version: Version, old: Leaving) {
    wait_for_receiver(scene, version);
    if version.has_lease() {
        scene.pause(match old {
            Leaving::InOrder => scene.pace.lease_poll,
            Leaving::Suddenly => scene.pace.lease_age,
        });
        scene.say(|cluster| cluster.lease = Lease::Held(NEW));
    }
    scene.rig.promote(NEW);
    scene.note("promoted");
    for other in NEW + 1..scene.rig.len() {
        scene.rig.follow(other, NEW);
    }
    scene.rig.checkpoint(NEW);
    scene.say(|cluster| cluster.current = NEW);
    scene.note("the new primary is current");
    scene.rig.terminate_client_backends(NEW);
    scene.note("the new primary has ended all connections");
}

/// The operator has seen who the primary is.
pub(super) fn relabel(scene: &mut Scene) {
    scene.say(|cluster| {
        cluster.pods[OLD].label = Label::Replica;
        cluster.pods[NEW].label = Label::Primary;
        cluster.phase = Phase::Healthy;
    });
    scene.note("the labels are new");
}

/// The old primary becomes a standby of the new one.
pub(super) fn old_one_returns(scene: &mut Scene) {
    scene.rig.rejoin(OLD, NEW);
    scene.say(|cluster| cluster.pods[OLD].is_ready = true);
}

fn wait_for_receiver(scene: &Scene, version: Version) {
    while version.waits_for_receivers() && !scene.rig.is_receiver_down(NEW) {
        scene.pause(scene.pace.receiver_poll);
    }
}
