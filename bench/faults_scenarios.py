"""Which function carries out which kind of fault."""

from collections.abc import Mapping

from bench import (
    faults_brokers,
    faults_kills,
    faults_pictures,
    faults_producer,
    faults_slow,
    faults_surroundings,
    faults_votes,
)
from bench.faults_campaign import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    "kill-worker": faults_kills.kill_worker,
    "kill-worker-at": faults_kills.kill_worker_at,
    "kill-consensus": faults_kills.kill_consensus,
    "kill-consensus-at": faults_kills.kill_consensus_at,
    "kill-several": faults_kills.kill_several,
    "lose-worker": faults_kills.lose_worker,
    "kill-supervisor": faults_kills.kill_supervisor,
    "zombie": faults_kills.zombie,
    "terminate": faults_kills.terminate,
    "storm": faults_kills.storm,
    "poison": faults_pictures.poison,
    "odd-files": faults_pictures.odd_files,
    "killer-picture": faults_pictures.killer_picture,
    "memory": faults_pictures.memory,
    "same-id-same-bytes": faults_pictures.same_id_same_bytes,
    "same-id-other-bytes": faults_pictures.same_id_other_bytes,
    "kill-producer": faults_producer.kill_producer,
    "repeated-votes": faults_votes.repeated_votes,
    "held-votes": faults_votes.held_votes,
    "slow-model": faults_slow.slow_model,
    "slow-sink": faults_slow.slow_sink,
    "slow-consumer": faults_slow.slow_consumer,
    "clock-step": faults_surroundings.clock_step,
    "disk-full": faults_surroundings.disk_full,
    "locked": faults_surroundings.locked,
    "locked-long": faults_surroundings.locked,
    "kill-broker": faults_brokers.kill_broker,
    "kill-controller": faults_brokers.kill_controller,
    "kill-brokers": faults_brokers.kill_brokers,
}
