"""Which function carries out which kind of fault."""

from collections.abc import Mapping

from roadstream.bench.faults import (
    brokers,
    kills,
    pictures,
    producer,
    rolls,
    slow,
    surroundings,
    votes,
)
from roadstream.bench.faults.campaign import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    "kill-worker": kills.kill_worker,
    "kill-worker-at": kills.kill_worker_at,
    "kill-consensus": kills.kill_consensus,
    "kill-consensus-at": kills.kill_consensus_at,
    "kill-several": kills.kill_several,
    "lose-worker": kills.lose_worker,
    "kill-supervisor": kills.kill_supervisor,
    "zombie": kills.zombie,
    "terminate": kills.terminate,
    "storm": kills.storm,
    "poison": pictures.poison,
    "odd-files": pictures.odd_files,
    "killer-picture": pictures.killer_picture,
    "memory": pictures.memory,
    "same-id-same-bytes": pictures.same_id_same_bytes,
    "same-id-other-bytes": pictures.same_id_other_bytes,
    "kill-producer": producer.kill_producer,
    "repeated-votes": votes.repeated_votes,
    "held-votes": votes.held_votes,
    "slow-model": slow.slow_model,
    "slow-sink": slow.slow_sink,
    "slow-consumer": slow.slow_consumer,
    "roll": rolls.roll_version,
    "roll-storm": rolls.roll_storm,
    "clock-step": surroundings.clock_step,
    "disk-full": surroundings.disk_full,
    "locked": surroundings.locked,
    "locked-long": surroundings.locked,
    "kill-broker": brokers.kill_broker,
    "kill-controller": brokers.kill_controller,
    "kill-brokers": brokers.kill_brokers,
    "freeze-broker": brokers.freeze_broker,
    "freeze-brokers": brokers.freeze_brokers,
    "cut-connection": brokers.cut_connection,
}
