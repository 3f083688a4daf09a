//! What else has been seen to happen while a primary changes.

use super::{
    announced::{Away, Label, Phase, Target},
    catalogue::{HOLD, Version},
    cnpg::{Leaving, crash, planned},
    cnpg::{NEW, OLD, choose, give_up, old_one_returns, relabel, take_over},
    scene::Scene,
    support::Stop,
};

/// How often the operator changes its mind.
const FLAPS: usize = 4;

/// The primary is gone, and the operator takes the failover back as often as it announces it: `"pending"` is no pod that
/// lives, so it sets the target to the current primary again, and the label with it.
pub(super) fn flapping(scene: &mut Scene, version: Version) {
    scene.rig.kill(OLD);
    scene.expect_writes_on(NEW);
    scene.say(|cluster| cluster.pods[OLD].is_ready = false);
    for _ in 0..FLAPS {
        scene.say(|cluster| {
            cluster.phase = Phase::FailingOver;
            cluster.target = Target::Pending;
            cluster.pods[OLD].label = Label::Unhealthy;
        });
        scene.pause(scene.pace.receiver_poll);
        scene.say(|cluster| {
            cluster.target = Target::Pod(OLD);
            cluster.pods[OLD].label = Label::Primary;
        });
        scene.pause(scene.pace.receiver_poll);
    }
    scene.say(|cluster| {
        cluster.target = Target::Pending;
        cluster.pods[OLD].label = Label::Unhealthy;
    });
    choose(scene, version);
    take_over(scene, version, Leaving::Suddenly);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    old_one_returns(scene);
}

/// The operator is slow to see who the primary is, and the labels are old for long.
pub(super) fn late_label(scene: &mut Scene, version: Version) {
    give_up(scene, version);
    take_over(scene, version, Leaving::InOrder);
    scene.pause(scene.pace.late_relabel);
    relabel(scene);
    old_one_returns(scene);
}

/// The crashed primary is started with what it had: for a while it takes writes, which nobody will ever see again. The
/// new one ends all connections meanwhile, so that everybody looks for a primary anew.
pub(super) fn old_primary_comes_back(scene: &mut Scene, version: Version) {
    // In force from its next start on: it would wait for its standby otherwise, and so do no harm.
    scene
        .rig
        .sql(OLD, "ALTER SYSTEM SET synchronous_standby_names = ''");
    scene.rig.kill(OLD);
    scene.expect_writes_on(NEW);
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = false;
        cluster.phase = Phase::FailingOver;
    });
    choose(scene, version);
    take_over(scene, version, Leaving::Suddenly);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    scene.pause(scene.pace.calm);
    scene.rig.restart(OLD);
    scene.rig.terminate_client_backends(NEW);
    scene.pause(scene.pace.calm);
    scene.rig.terminate_client_backends(NEW);
    scene.pause(scene.pace.calm);
    scene.rig.kill(OLD);
    old_one_returns(scene);
}

/// Nobody can ask the API server while it all happens.
pub(super) fn api_server_away(scene: &mut Scene, version: Version) {
    scene.api_server_goes_away(Away::Frozen);
    planned(scene, version);
    scene.api_server_comes_back();
}

/// As a failover with the API server gone before.
pub(super) fn crash_without_api_server(scene: &mut Scene, version: Version) {
    scene.api_server_goes_away(Away::Killed);
    crash(scene, version);
    scene.api_server_comes_back();
}

/// Somebody has promoted the standby by hand: nothing is said of it for long, and only the servers know.
pub(super) fn without_a_word(scene: &mut Scene, _: Version) {
    scene.rig.checkpoint(OLD);
    scene.expect_writes_on(NEW);
    scene.rig.stop(OLD, Stop::Fast);
    while !scene.rig.is_receiver_down(NEW) {
        scene.pause(scene.pace.receiver_poll);
    }
    scene.rig.promote(NEW);
    scene.pause(scene.pace.late_relabel);
    scene.say(|cluster| {
        cluster.current = NEW;
        cluster.target = Target::Pod(NEW);
    });
    relabel(scene);
    old_one_returns(scene);
}

/// The old primary has lost its way to everybody but the pooler, and works on when the other one has been promoted. What it
/// was given before anybody could know is lost; nothing may reach it afterwards.
pub(super) fn two_primaries(scene: &mut Scene, version: Version) {
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = false;
        cluster.phase = Phase::FailingOver;
        cluster.target = Target::Pending;
        cluster.pods[OLD].label = Label::Unhealthy;
    });
    choose(scene, version);
    scene.expect_writes_on(NEW);
    take_over(scene, version, Leaving::Suddenly);
    scene.is_known_in(scene.pace.hearsay);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    scene.pause(scene.pace.late_relabel);
    scene.rig.kill(OLD);
    old_one_returns(scene);
}

/// The primary is gone, and something keeps the operator from promoting another: clients are told, and not held for ever.
pub(super) fn nobody_is_promoted(scene: &mut Scene, version: Version) {
    scene.rig.kill(OLD);
    scene.expect_writes_on(NEW);
    scene.say(|cluster| {
        cluster.pods[OLD].is_ready = false;
        cluster.phase = Phase::FailingOver;
        cluster.target = Target::Pending;
        cluster.pods[OLD].label = Label::Unhealthy;
    });
    scene.pause(HOLD * 2);
    choose(scene, version);
    take_over(scene, version, Leaving::Suddenly);
    scene.pause(scene.pace.relabel);
    relabel(scene);
    old_one_returns(scene);
}

/// Somebody has fenced the primary: it is stopped, its pod stays, and nobody takes over.
pub(super) fn fenced(scene: &mut Scene, _: Version) {
    scene.say(|cluster| cluster.is_primary_fenced = true);
    scene.pause(scene.pace.notice);
    scene.rig.stop(OLD, Stop::Fast);
    scene.say(|cluster| cluster.pods[OLD].is_ready = false);
    scene.pause(HOLD * 2);
    scene.expect_writes_on(OLD);
    scene.say(|cluster| cluster.is_primary_fenced = false);
    scene.rig.restart(OLD);
    scene.say(|cluster| cluster.pods[OLD].is_ready = true);
}
