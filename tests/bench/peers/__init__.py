"""Who is measured. A further one is a class with the members of Peer, and its place in PEERS."""

from tests.bench.peers.actorsync import Actorsync
from tests.bench.peers.aws import AwsCli
from tests.bench.peers.floor import Floor
from tests.bench.peers.peer import Peer
from tests.bench.peers.programs import Boto3Threads, Obstore
from tests.bench.peers.rclone import Rclone, RcloneUnchecked
from tests.bench.peers.s5cmd import S5cmdList, S5cmdWildcard

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
