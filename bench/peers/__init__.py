"""Who is measured. A further one is a class with the members of Peer, and its place in PEERS."""

from bench.peers.actorsync import Actorsync
from bench.peers.aws import AwsCli
from bench.peers.floor import Floor
from bench.peers.peer import Peer
from bench.peers.programs import Boto3Threads, Obstore
from bench.peers.rclone import Rclone, RcloneUnchecked
from bench.peers.s5cmd import S5cmdList, S5cmdWildcard

OURS = Actorsync()
FLOOR = Floor()
PEERS: tuple[Peer, ...] = (
    OURS,
    S5cmdList(),
    S5cmdWildcard(),
    Rclone(),
    RcloneUnchecked(),
    Obstore(),
    AwsCli(),
    Boto3Threads(),
    FLOOR,
)
